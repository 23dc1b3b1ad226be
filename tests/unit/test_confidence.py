"""How sure a model is of its answer, from the log-probabilities of its tokens."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.openai import read_completion, read_confidence


def logprobs(*logs: Any) -> dict[str, Any]:
    return {"content": [{"token": "x", "logprob": log, "top_logprobs": []} for log in logs]}


def test_it_is_the_geometric_mean_of_the_tokens_probabilities() -> None:
    assert read_confidence(logprobs(math.log(0.9), math.log(0.4))) == pytest.approx(0.6)


@given(st.lists(st.floats(-50, 0), min_size=1))
def test_it_does_not_depend_on_how_often_an_answer_is_repeated(logs: list[float]) -> None:
    once, twice = read_confidence(logprobs(*logs)), read_confidence(logprobs(*logs, *logs))
    assert once == pytest.approx(twice)
    assert once is not None
    assert 0 <= once <= 1


@pytest.mark.parametrize(
    "said",
    [None, [], {}, {"content": None}, {"content": []}, {"content": ["x"]}, logprobs(None, "0")],
)
def test_what_is_none_is_not_guessed(said: object) -> None:
    assert read_confidence(said) is None


def test_odd_numbers_do_no_harm() -> None:
    assert read_confidence(logprobs(1e-9, 0)) == 1.0
    assert read_confidence(logprobs(-math.inf, 0)) == 0.0
    assert read_confidence(logprobs(math.nan, math.log(0.5))) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("logs", "sure"),
    [((1000.0,), 1.0), ((math.inf, -math.inf), 0.0), ((10**400, 0), 1.0), ((-(10**400),), 0.0)],
)
def test_what_no_probability_is_costs_no_answer(logs: tuple[float, ...], sure: float) -> None:
    assert read_confidence(logprobs(*logs)) == pytest.approx(sure)


def test_a_completion_has_it_where_the_provider_told() -> None:
    choice = {"message": {"content": "hi"}, "logprobs": logprobs(math.log(0.5))}
    body = json.dumps({"choices": [choice]}).encode()
    assert getattr(read_completion(200, body, "m"), "confidence") == pytest.approx(0.5)  # noqa: B009
    del choice["logprobs"]
    plain = json.dumps({"choices": [choice]}).encode()
    assert getattr(read_completion(200, plain, "m"), "confidence") is None  # noqa: B009
