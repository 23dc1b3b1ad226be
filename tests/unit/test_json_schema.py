"""JSON schemas of answers: nothing is fetched, nothing takes for ever, nothing is repeated."""

import json
import time
from typing import Any

import pytest

from modelyard.json_schema import check_schema, why_not

INVOICE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "total": {"type": "number", "minimum": 0},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    },
    "required": ["total"],
    "patternProperties": {"^x-": {"type": "string"}},
}


@pytest.mark.parametrize("value", [{"total": 1}, {"total": 0.5, "currency": "EUR", "x-a": "b"}])
def test_what_fits_fits(value: Any) -> None:
    assert why_not(INVOICE, value) == ""


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "its JSON breaks type"),
        ({}, "its JSON breaks required"),
        ({"total": -1}, "its JSON breaks properties.total.minimum"),
        ({"total": 1, "currency": "euro"}, "its JSON breaks properties.currency.pattern"),
        ({"total": 1, "currency": "\ud800"}, "its JSON breaks properties.currency.pattern"),
        ({"total": 1, "x-a": 3}, "its JSON breaks patternProperties.^x-.type"),
    ],
)
def test_what_does_not_fit_says_which_rule_it_breaks(value: Any, why: str) -> None:
    assert why_not(INVOICE, value) == why


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"type": "foo"}, "$.type: 'foo' is not valid"),
        ({"properties": {"a": {"minimum": "1"}}}, "$.properties.a.minimum: '1' is not of type"),
        ({"$ref": "http://127.0.0.1:1/x"}, "is not in this schema, and nothing is fetched"),
        ({"$ref": "#/$defs/nothing"}, "is not in this schema"),
        ({"pattern": "(?=a)"}, "$.pattern: RE2 does not know '(?=a)'"),
        ({"patternProperties": {"(": {}}}, "patternProperties"),
        ({"$schema": 5}, "$.$schema"),
    ],
)
def test_what_is_no_schema_is_refused_with_what_is_wrong(
    schema: dict[str, Any], wrong: str
) -> None:
    with pytest.raises(ValueError) as caught:
        check_schema(schema)
    assert wrong in str(caught.value)


def test_a_schema_may_refer_to_its_own_parts() -> None:
    tree = {"$defs": {"word": {"type": "string"}}, "items": {"$ref": "#/$defs/word"}}
    check_schema(tree)
    assert why_not(tree, ["a"]) == ""
    assert why_not(tree, ["a", 1])


def test_older_drafts_are_known() -> None:
    old = {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]}
    assert why_not(old, ["a", 1]) == ""


def test_a_schema_without_end_is_no_error_of_ours() -> None:
    assert why_not({"$ref": "#"}, {}) == "its JSON or the schema is nested too deep"


def test_patterns_take_linear_time() -> None:
    began = time.monotonic()
    assert why_not({"pattern": "^(a+)+$"}, "a" * 50_000 + "b")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400])
def test_a_number_that_is_too_large_does_not_fit(number: str) -> None:
    why = why_not({"multipleOf": 0.01}, json.loads(number))
    assert why == "its JSON has a number that is too large"
