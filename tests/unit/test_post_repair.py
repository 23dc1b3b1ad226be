"""Repairing JSON: what is clear is mended, what would be a guess is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.post.repair import Unrepairable, is_json, repaired

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
HOLDERS = st.lists(JSON, max_size=4) | st.dictionaries(st.text(), JSON, max_size=4)
ROUGH = st.text(alphabet="{}[]:,\"'\\/*#`\n ab1-.eEtrufalsn", max_size=40)


@given(JSON, st.sampled_from([None, 0, 2]), st.booleans(), st.sampled_from(["", " ", "\n"]))
def test_what_is_json_is_not_changed(
    value: Any, indent: int | None, ascii: bool, around: str
) -> None:
    text = around + json.dumps(value, indent=indent, ensure_ascii=ascii) + around
    assert repaired(text) == text


@given(st.one_of(ROUGH, st.text(), HOLDERS.map(repr)))
def test_what_comes_out_is_json_or_it_is_refused(text: str) -> None:
    try:
        made = repaired(text)
    except Unrepairable:
        return
    assert is_json(made)


@given(HOLDERS)
def test_a_value_in_a_fence_with_words_around_it_is_that_value(value: Any) -> None:
    text = f"Sure! Here [as you asked]:\n```json\n{json.dumps(value, indent=1)}\n```\nBye {{name}}."
    assert json.loads(repaired(text)) == value


@given(HOLDERS, st.data())
def test_a_value_whose_last_brackets_are_missing_is_that_value_or_refused(
    value: Any, data: st.DataObject
) -> None:
    text = json.dumps(value)
    brackets = len(text) - len(text.rstrip("]}"))
    cut = text[: -data.draw(st.integers(1, brackets))]
    try:
        made = json.loads(repaired(cut))
    except Unrepairable as error:
        assert "cut off" in str(error) or not cut
        return
    assert made == value


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.text(), min_size=1))
def test_a_python_dictionary_is_read(value: dict[str, Any]) -> None:
    try:
        made = repaired(repr(value))
    except Unrepairable:
        return  # Python has escapes that JSON has not.
    assert json.loads(made) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n[1, 2]\n```", [1, 2]),
        ('```json\n{"a": 1}', {"a": 1}),
        ("```json\n42\n```", 42),
        ('The result is {"a": 1}.', {"a": 1}),
        ('I [think] it is {"a": "}"} {or so}', {"a": "}"}),
        ('{"a": [1, 2,], "b": 3,}', {"a": [1, 2], "b": 3}),
        ("{'a': 'say \"hi\"', 'b': 'it\\'s'}", {"a": 'say "hi"', "b": "it's"}),
        ("{a: 1, b_c: true}", {"a": 1, "b_c": True}),
        ("{'a': True, 'b': None, 'c': False}", {"a": True, "b": None, "c": False}),
        ('{"a": 1, // one\n "b": /* two */ 2 # three\n}', {"a": 1, "b": 2}),
        ('{"a": "https://example.com/#top"}', {"a": "https://example.com/#top"}),
        ('{"a": "two\nlines",}', {"a": "two\nlines"}),
        ('{"a": {"b": [1, {"c": "d"', {"a": {"b": [1, {"c": "d"}]}}),
        ('[{"a": 1}, {"a": 2}', [{"a": 1}, {"a": 2}]),
        ('{"a": null', {"a": None}),
        ("Here: []", []),
    ],
)
def test_what_is_clear_is_repaired(text: str, value: Any) -> None:
    assert json.loads(repaired(text)) == value


def test_numbers_keep_their_digits() -> None:
    assert repaired("{'n': 12345678901234567890.50}") == '{"n": 12345678901234567890.50}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("I can't do that.", "no JSON"),
        ("Dear {name}, see [the list]", "no JSON"),
        ('{"a": 1} and {"b": 2}', "more than one"),
        ("```json\n{}\n```\nor\n```json\n[]\n```", "more than one"),
        ('{"a": 12', "cut off in a number"),
        ('{"a": "what was', "cut off in a string"),
        ('{"a": "b\\', "cut off in a string"),
        ('{"a": 1, ', "cut off where more was to come"),
        ("[", "cut off where more was to come"),
        ('{"a": tru', "a value is expected"),
        ('{"a":', "cut off inside an entry"),
        ('{"a": 1, "b"', "cut off inside an entry"),
        ('{"a": "he said "hi" to me"}', "a comma or } is expected"),
        ('{"a": 1 "b": 2}', "a comma or } is expected"),
        ('{"a": 1,234}', "a key is expected"),
        ('{"a": [1}', "a comma or ] is expected"),
        ('{"a": NaN}', "a value is expected"),
        ('{"a": undefined, "b": {"c": 1}}', "a value is expected"),
        ('{"a": 01}', "a number is expected"),
        ('{"a": .5}', "a value is expected"),
        ('{"a": "\\x41",}', "escape"),
        ("{'a': 'it's'}", "a comma or } is expected"),
        ("NaN", "no JSON"),
        ("[" * 1000, "nested too deep"),
        ("[/* a list */ and so on", "a value is expected"),
    ],
)
def test_what_would_be_a_guess_is_refused(text: str, why: str) -> None:
    with pytest.raises(Unrepairable, match=why):
        repaired(text)


def test_a_long_text_takes_time_in_line_with_its_length() -> None:
    # Both would take hours if every begin were read to the end of the text.
    for text in ('"' * 200_000, "{ a " * 100_000, "[/*" * 100_000, "[\\" * 100_000):
        with pytest.raises(Unrepairable):
            repaired(text)
    many = "{'a': [" + "'x', " * 50_000 + "]}"
    assert len(json.loads(repaired(many))["a"]) == 50_000
