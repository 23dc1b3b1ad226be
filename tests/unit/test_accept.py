"""When an answer is good enough, and why it is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.accept import agreement, check
from modelyard.messages import Draft, Usage
from modelyard.plan import Accept

SCHEMA = {"type": "object", "required": ["total"]}


def draft(text: str = "It is 42.", **fields: Any) -> Draft:
    return Draft(model="small", text=text, usage=Usage(output_tokens=5), **fields)


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        (Accept(), draft("")),
        (Accept(expression="len(text) > 3 and output_tokens == 5"), draft()),
        (Accept(expression='json["total"] > 1'), draft('```json\n{"total": 2}\n```')),
        (Accept(json_schema=SCHEMA), draft('{"total": 2}')),
        (Accept(min_confidence=0.8), draft(confidence=0.8)),
        (
            Accept(min_confidence=0.5, json_schema=SCHEMA, expression="confidence > 0.7"),
            draft('{"total": 2}', confidence=0.8),
        ),
    ],
)
def test_an_answer_that_is_good_enough_is_accepted(accept: Accept, answer: Draft) -> None:
    assert check(accept, answer) == ""


@pytest.mark.parametrize(
    ("accept", "answer", "why"),
    [
        (
            Accept(expression='finish_reason == "stop"'),
            draft(finish_reason="length"),
            'expression: finish_reason == "stop" does not hold',
        ),
        (Accept(expression="json is not None"), draft(), "expression: its text is not JSON"),
        (Accept(json_schema=SCHEMA), draft(), "json_schema: its text is not JSON"),
        (Accept(json_schema=SCHEMA), draft("[" * 100_000), "json_schema: its text is not JSON"),
        (Accept(json_schema=SCHEMA), draft("{}"), "json_schema: its JSON breaks required"),
        (
            Accept(min_confidence=0.8),
            draft(),
            "min_confidence: the provider gave no log-probabilities",
        ),
        (
            Accept(min_confidence=0.8),
            draft(confidence=0.5),
            "min_confidence: 0.50 is less than 0.8",
        ),
        (
            Accept(min_confidence=0.8),
            draft(confidence=float("nan")),
            "min_confidence: nan is less than 0.8",
        ),
    ],
)
def test_one_that_is_not_says_why_in_a_few_words(accept: Accept, answer: Draft, why: str) -> None:
    assert check(accept, answer) == why


def test_all_that_is_given_must_hold() -> None:
    accept = Accept(expression="len(text) > 0", json_schema=SCHEMA, min_confidence=0.5)
    assert check(accept, draft('{"total": 2}')).startswith("min_confidence")
    assert check(accept, draft("no", confidence=0.9)).startswith("json_schema")
    assert check(accept, draft("", confidence=0.9)).startswith("expression")


@pytest.mark.parametrize(
    ("texts", "share"),
    [
        (["42", "The answer is 42.", "43"], 2 / 3),
        (["42", "43", "43"], 1 / 3),
        (["Paris"], 1.0),
        (['{"a": 1}', '{"a":1.0}'], 1.0),
        (["", "", "Paris"], 0.0),
        ([], 0.0),
    ],
)
def test_agreement_is_the_share_that_says_the_same_as_the_first(
    texts: list[str], share: float
) -> None:
    assert agreement(texts) == pytest.approx(share)


@given(st.lists(st.sampled_from(["42", "43", "Paris", "{}"]), min_size=1, max_size=9))
def test_agreement_counts_the_first_and_does_not_care_for_the_order_of_the_others(
    texts: list[str],
) -> None:
    share = agreement(texts)
    assert 1 / len(texts) <= share <= 1
    assert agreement([texts[0], *reversed(texts[1:])]) == share
