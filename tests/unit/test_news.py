"""What is read of Redis for alerts, whatever somebody has written there."""

import json
import time

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from modelyard.alerts import BudgetNews, EndpointNews, News, alerts
from modelyard.budgets import spent_key
from modelyard.catalog import Catalog
from modelyard.due import Waiting, read_due
from modelyard.finding import Finding
from modelyard.news import circuit, endpoint_news, read_news

CATALOG = Catalog.model_validate(
    {
        "models": [
            {
                "name": "small",
                "provider": "openai",
                "endpoints": [{"name": "west", "base_url": "https://west.example"}],
            }
        ],
        "budgets": [{"usd_per_day": 5}],
        "routes": {"default": {"otherwise": ["small"]}},
    }
)
NOW = 1_800_000_000.0


TIMES: st.SearchStrategy[object] = st.one_of(
    st.floats(), st.integers(-(10**400), 10**400), st.sampled_from(["1e30", "x", None, True, []])
)


@given(st.sampled_from(["denied", "failing", "limited", "else"]), TIMES, TIMES)
def test_whatever_times_are_there_can_be_told(why: str, since: object, until: object) -> None:
    text = json.dumps({"why": why, "since": since, "until": until}).encode()
    news = list(endpoint_news(CATALOG.models[0], {b"west": text}, NOW))
    said = [finding.message for finding in alerts_of(news)]
    assert bool(said) == bool(circuit(text, NOW)[0])


def alerts_of(news: list[EndpointNews]) -> list[Finding]:
    return list(alerts(News(tuple(news)), NOW))


@pytest.mark.parametrize("sum_", [b"abc", b"1.5", b"\xff", b"9" * 400, b"9" * 5000])
def test_a_sum_that_nobody_can_read_is_no_sum(store: redis.Redis, sum_: bytes) -> None:
    store.hset(spent_key(time.time()), CATALOG.budgets[0].label, sum_)
    assert read_news(store, CATALOG).budgets == (BudgetNews("*", "*", 0.0, 5.0, "stop"),)


def test_what_is_no_time_of_these_days_is_no_deadline(store: redis.Redis) -> None:
    def message(number: str) -> str:
        return f'{{"body":"[[{{\\"a\\":1,\\"deadline\\":{number}}}]]"}}'

    for number in ("9" * 400, "1764000000000", "12", "1.8.1", "1800000000.5"):
        store.lpush("model.small", message(number))
    assert read_due(store, ["model.small"]) == [(Waiting(4, NOW + 0.5),)]
