"""The language of `accept.expression`: what it can say, what it refuses, and what it never does."""

import ast
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelyard.expression import MAX_CHARS, MAX_DEPTH, parse
from modelyard.plan import Accept

VALUES: dict[str, Any] = {
    "text": "The total is 42 EUR.",
    "finish_reason": "stop",
    "output_tokens": 7,
    "confidence": None,
    "json": {"total": 42, "ok": True, "lines": [{"net": 40.0}], "none": None, "name": "a"},
}


@pytest.mark.parametrize(
    "source",
    [
        'finish_reason == "stop"',
        "len(text) > 10 and output_tokens < 10",
        "0 < output_tokens <= 7",
        "not contains(text, 'USD')",
        "contains(lower(text), 'the total')",
        "'42' in text",
        "startswith(text, 'The') and endswith(text, '.')",
        r"matches(text, '\d+ EUR')",
        "matches(text, '(?i)^THE')",
        'json["total"] == 42',
        'json["lines"][0]["net"] + 2 == json["total"]',
        'json["lines"][-1]["net"] // 7 == 5',
        'json.get("missing", 3) == 3',
        'json.get("none") is None',
        'json.get("missing") is None and json.get("missing").get("deeper") is None',
        'json["ok"]',
        '"ok" in json and "oh" not in json',
        'json["name"] in ("a", "b")',
        "len(json['lines']) == 1",
        "confidence is None",
        "finish_reason == 'length' or -output_tokens == -7",
        "finish_reason == 'stop'\n  and output_tokens == 7",
        "True",
    ],
)
def test_what_is_true_of_an_answer_holds(source: str) -> None:
    assert parse(source).why_not(VALUES) == ""
    assert parse(source).holds(VALUES)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("len(text) > 10 and output_tokens > 10", "output_tokens > 10 does not hold"),
        ('json["missing"] == 1', 'json has no "missing"'),
        ('not json["missing"]', 'json has no "missing"'),
        ('json["lines"][3]["net"] == 1', 'json["lines"] has no 3'),
        ('json["total"]["net"] == 1', 'json["total"] is a number and has nothing in it'),
        ("confidence > 0.5", "confidence is nothing and can't be compared"),
        ('json["name"] > 3', 'json["name"] is text and 3 is a number'),
        ('json["ok"] == 1', 'json["ok"] == 1 does not hold'),
        ('json["ok"] + 1 == 2', 'json["ok"] is true or false and no number'),
        ('json["name"] * 3 == "aaa"', 'json["name"] is text and no number'),
        ("1 / (output_tokens - 7) > 0", "output_tokens - 7 is 0"),
        ('len(json["total"]) > 0', 'json["total"] is a number and no text'),
        ('contains(json["name"], json["total"])', 'json["total"] is a number and no text'),
    ],
)
def test_what_does_not_hold_says_which_part(source: str, why: str) -> None:
    assert parse(source).why_not(VALUES) == why
    assert not parse(source).holds(VALUES)


def test_a_value_that_is_not_there_is_no_value() -> None:
    assert parse("json is None").why_not({"text": "no JSON"}) == "json is not there"
    assert parse("json is None").names == {"json"}


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("", "it is empty"),
        ("len(text) >", "column 1: invalid syntax"),
        ("text = 'a'", "invalid syntax"),
        ("text and\n   foo > 1", "line 2, column 4: foo is unknown: there are text, finish_reason"),
        ("text", "column 1: text is no condition"),
        ("len(text)", "is no condition"),
        ("output_tokens + 1", "is no condition"),
        ("text > 3", "text > 3 compares text with number"),
        ("text.upper() == 'A'", "text.upper() is no call of len, lower"),
        ("json.total == 1", "json.total is not allowed here"),
        ("text.get('a') == 1", "is not allowed here: write json.get(key)"),
        ("text['a'] == 'b'", "only JSON has keys"),
        ("json[1:2] == 1", "only one key or index"),
        ("eval('1') == 1", "is no call of"),
        ("(lambda: 1)() == 1", "is no call of"),
        ("[x for x in json] == []", "is not allowed here"),
        ("(x := 1) == 1", "is not allowed here"),
        ("f'{text}' == 'a'", "is not allowed here"),
        ("text == b'a'", "is neither text nor a number"),
        ("output_tokens ** 9 > 1", "there are + - * / // %"),
        ("output_tokens << 9 > 1", "there are + - * / // %"),
        ("text * 9 == 'a'", "is about numbers, and text is none"),
        ("lower(text) + 'a' == 'b'", "is about numbers"),
        ("1e999 > 1", "is too large a number"),
        ("9999999999999999999999 > 1", "is too large a number"),
        ("len(text, text) > 1", "must have 1 argument"),
        ("contains(text) or True", "must have 2 arguments"),
        ("lower(3) == 'a'", "is about text, and 3 is none"),
        ("len(*json) > 1", "only arguments in their order"),
        ("matches(text, '(')", "RE2 does not know: missing )"),
        ("matches(text, '(?=a)')", "RE2 does not know"),
        ("matches(text, text)", "must have a pattern in quotes"),
        ("text is 'a'", "`is` is for None"),
        ("a) or (b", "a is unknown"),
        ("text == '\0'", "null bytes"),
        (" and ".join(["True"] * 1_000), f"{MAX_CHARS:,} are allowed"),
        ("not " * 100 + "True", f"nested more than {MAX_DEPTH} deep"),
        ("(" * 500 + "True", "too many nested parentheses"),
        ("-" * 1_500 + "1 > 0", f"nested more than {MAX_DEPTH} deep"),
    ],
)
def test_what_is_no_condition_is_refused_with_what_is_wrong_and_where(
    source: str, wrong: str
) -> None:
    with pytest.raises(ValueError) as caught:
        parse(source)
    assert wrong in str(caught.value)


def test_arithmetic_is_bounded() -> None:
    product = parse(f"{'*'.join(['output_tokens'] * 25)} > 0")
    assert product.why_not({"output_tokens": 10**6}).endswith("leads to too large a number")
    assert parse("json + 1 > 0").why_not({"json": 10**400}) == "json leads to too large a number"
    assert not parse("json * 1.0 > 0").holds({"json": math.inf})
    assert not parse("json + 1 == json + 1").holds({"json": math.nan})


def test_a_pattern_takes_linear_time() -> None:
    expression = parse("matches(text, '(a+)+$')")
    began = time.monotonic()
    assert not expression.holds({"text": "a" * 100_000 + "b"})
    assert time.monotonic() - began < 5


def test_text_that_is_no_unicode_and_json_that_is_very_deep_are_no_error() -> None:
    assert parse("matches(text, 'a')").why_not({"text": "\ud800"}) == (
        "can't be told: UnicodeEncodeError"
    )
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    other: Any = []
    for _ in range(100_000):
        other = [other]
    assert parse("json[0] == json[1]").why_not({"json": [deep, other]}).startswith("can't be told")


def test_nothing_of_the_answer_is_in_the_reason() -> None:
    secret = {"text": "SECRET", "json": {"SECRET": "SECRET"}, "finish_reason": "SECRET"}
    for source in (
        "text == 'a'",
        "json[text] == 1",
        "json[finish_reason][text] == 1",
        "json[text] > 3",
        "len(json) > 5",
        "text > json",
    ):
        assert "SECRET" not in parse(source).why_not(secret)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
atoms = st.sampled_from(
    ["text", "finish_reason", "output_tokens", "confidence", "json", "1", "0", "'a'", "None"]
)
sources = st.recursive(
    atoms,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["<", ">=", "==", "!=", "in", "and", "or"]), inner).map(
            lambda parts: f"({' '.join(parts)})"
        )
        | st.tuples(inner, st.sampled_from("+ - * / // %".split()), inner).map(
            lambda parts: f"({' '.join(parts)})"
        )
        | inner.map(lambda part: f"not {part}")
        | st.tuples(st.sampled_from(["len", "lower"]), inner).map(lambda p: f"{p[0]}({p[1]})")
        | st.tuples(inner, inner).map(lambda parts: f"json[{parts[0]}]")
        | st.tuples(inner, inner).map(lambda parts: f"contains({parts[0]}, {parts[1]})")
        | inner.map(lambda part: f"json.get({part})")
    ),
    max_leaves=12,
)


@given(
    source=sources, json=json_values, text=st.text(max_size=9), confidence=st.none() | st.floats()
)
def test_an_expression_is_refused_or_true_or_false_and_nothing_else(
    source: str, json: Any, text: str, confidence: float | None
) -> None:
    try:
        expression = parse(source)
    except ValueError:
        return
    values = {
        "text": text,
        "finish_reason": "stop",
        "output_tokens": 3,
        "confidence": confidence,
        "json": json,
    }
    assert expression.holds(values) in {True, False}


@given(st.text(alphabet="abcjsontext()[]'\"., =<>0123456789\n+-*/%:_\\{}", max_size=60))
def test_any_text_is_a_condition_or_a_value_error(source: str) -> None:
    try:
        expression = parse(source)
    except ValueError:
        return
    expression.holds(VALUES)


@given(
    st.recursive(
        st.sampled_from(["output_tokens", "3", "-2", "7.5"]),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        max_leaves=8,
    ),
    st.integers(1, 100),
)
def test_numbers_are_calculated_as_python_does(source: str, tokens: int) -> None:
    expected = eval(
        compile(ast.parse(source, mode="eval"), "", "eval"), {}, {"output_tokens": tokens}
    )
    assert parse(f"{source} == json").holds({"output_tokens": tokens, "json": expected})


def test_a_catalog_with_what_can_t_be_used_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"foo is unknown"):
        Accept(expression="foo > 1")
    with pytest.raises(ValidationError, match=r"\$.type: 'foo' is not valid"):
        Accept(json_schema={"type": "foo"})
    accept = Accept(expression="len(text) > 1", json_schema={"type": "object"})
    assert Accept.decode(accept.encode()) == accept


def test_a_client_reads_what_a_newer_worker_decided() -> None:
    read = Accept.model_validate_json('{"expression": "newer(text)"}')
    assert read.expression == "newer(text)"
