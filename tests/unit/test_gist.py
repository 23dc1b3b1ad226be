"""What answers say: which are the same, which are not."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.gist import gist, json_value


@pytest.mark.parametrize(
    "same",
    [
        ["Paris", "paris.", " **Paris** ", "The answer is: Paris", "The final answer is Paris!"],
        ["42", "42.0", "The answer is **42**.", "6 * 7 = 42", "It costs $42.00", "#### 42"],
        ["1,234.5", "1234.50", "in all, 1,234.5 EUR"],
        ["-5", "\u22125", "It is -$5.", "x = -5.0"],
        ["\\boxed{12}", "12"],
        [
            '{"a": 1, "b": [true]}',
            '{"b":[true],\n"a":1.0}',
            'Here:\n```json\n{"a":1,"b":[true]}\n```',
        ],
        ["Yes, since 1990", "Yes: in 1990."],
        ["", " \n", "**"],
    ],
)
def test_these_say_the_same(same: list[str]) -> None:
    assert len({gist(text) for text in same}) == 1


@pytest.mark.parametrize(
    "different",
    [
        ["Paris", "London", ""],
        ["42", "43", "-42", "4.2", "It is not known"],
        ["2024-05-01", "2023-05-01"],
        ["at 10:30", "at 11:30"],
        ["3/4", "1/4"],
        ["1. red\n2. blue", "1. red\n2. green"],
        ["Yes, in 1990.", "No, in 1990."],
        ["4 of the largest cities are in Asia", "4 of the largest cities are in Africa"],
        ['{"a": 1}', '{"a": true}', '{"a": "1"}', '{"a": 2}', "[1]", '["a", 1]'],
        ["version 1.2.3", "version 1.3.3"],
    ],
)
def test_these_do_not(different: list[str]) -> None:
    assert len({gist(text) for text in different}) == len(different)


def test_json_is_read_from_the_whole_text_or_its_first_fence() -> None:
    assert json_value(' {"a": 1} ') == {"a": 1}
    assert json_value("Sure!\n```\n[1, 2]\n```\nAnything else?") == [1, 2]
    assert json_value("```python\nx = 1\n```\n```json\n3\n```") == 3
    for text in ("", "no", '{"a": NaN}', "```json\n{\n```", "```python\n[1]\n```"):
        with pytest.raises(ValueError):
            json_value(text)


def test_texts_made_to_be_slow_are_not() -> None:
    began = time.monotonic()
    for text in ("`" * 300_000, "```a\n" * 60_000, "1," * 150_000, "[" * 100_000, "-$" * 150_000):
        gist(text)
    assert time.monotonic() - began < 10


json_objects = st.dictionaries(
    st.text(max_size=4),
    st.none()
    | st.booleans()
    | st.integers(-99, 99)
    | st.text(max_size=4)
    | st.lists(st.integers()),
    max_size=4,
)


@given(json_objects)
def test_json_says_the_same_however_it_is_written(value: dict[str, object]) -> None:
    backwards = dict(reversed(value.items()))
    assert gist(json.dumps(value)) == gist(f"```json\n{json.dumps(backwards, indent=2)}\n```")


@given(st.text(max_size=40))
def test_looks_do_not_matter(text: str) -> None:
    assert gist(text) == gist(f"  {text}\n")


@given(st.integers(-(10**12), 10**12))
def test_a_number_says_the_same_however_it_is_written(number: int) -> None:
    forms = [f"{number}", f"{number:,}", f"{number}.0", f"The answer is **{number}**."]
    assert len(set(map(gist, forms))) == 1
