"""What is read about limits from the headers of answers."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.allowance import read_allowance
from model_workers.providers.base import Allowance

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
OPENAI = {
    "content-type": "application/json",
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-limit-tokens": "200000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-remaining-tokens": "199980",
    "x-ratelimit-reset-requests": "8.64s",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49",
    "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:01Z",
    "anthropic-ratelimit-input-tokens-limit": "50000",
    "anthropic-ratelimit-input-tokens-remaining": "40000",
    "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:00:12Z",
    "anthropic-ratelimit-output-tokens-limit": "10000",
    "anthropic-ratelimit-output-tokens-remaining": "5000",
    "anthropic-ratelimit-output-tokens-reset": "2027-01-15T09:00:30+01:00",
}


def test_openai() -> None:
    assert read_allowance(OPENAI, NOW) == Allowance(10000, 9999, 8.64, 200000, 199980, 360.0)


def test_names_are_read_in_any_case_and_from_any_mapping() -> None:
    shouted = {name.upper(): value for name, value in OPENAI.items()}
    expected = read_allowance(OPENAI, NOW)
    assert read_allowance(shouted, NOW) == expected
    assert read_allowance(httpx.Headers(shouted), NOW) == expected


def test_anthropic_tells_of_the_tokens_that_run_out_first() -> None:
    assert read_allowance(ANTHROPIC, NOW) == Allowance(
        50, 49, 1.0, 10000, 5000, 30.0, tokens_of_all=False
    )
    enough = {**ANTHROPIC, "anthropic-ratelimit-output-tokens-remaining": "10000"}
    assert read_allowance(enough, NOW) == Allowance(
        50, 49, 1.0, 50000, 40000, 12.0, tokens_of_all=False
    )


def test_anthropics_limit_that_is_in_force_counts() -> None:
    headers = {
        **ANTHROPIC,
        "anthropic-ratelimit-tokens-limit": "60000",
        "anthropic-ratelimit-tokens-remaining": "59000",
        "anthropic-ratelimit-tokens-reset": "2027-01-15T07:59:00Z",
    }
    assert read_allowance(headers, NOW) == Allowance(50, 49, 1.0, 60000, 59000, 0.0)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "application/json", "retry-after": "3"},
        {"x-ratelimit-limit-requests": "-1", "x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-limit-tokens": "0", "x-ratelimit-remaining-tokens": "0"},
        {"x-ratelimit-limit-tokens": "-1", "x-ratelimit-reset-tokens": "10"},
        {"x-ratelimit-remaining-tokens": "many", "x-ratelimit-reset-requests": "soon"},
        {"x-ratelimit-remaining-tokens": "nan", "x-ratelimit-limit-requests": "inf"},
        {"anthropic-ratelimit-requests-reset": "2027-01-15T08:00:01"},
        {"anthropic-ratelimit-requests-reset": "tomorrow"},
        {"anthropic-ratelimit-unified-status": "allowed"},
    ],
)
def test_what_says_nothing_is_none(headers: dict[str, str]) -> None:
    assert read_allowance(headers, NOW) is None


def test_one_known_limit_is_told_without_the_other() -> None:
    headers = {
        "x-ratelimit-limit-requests": "-1",
        "x-ratelimit-remaining-requests": "-1",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1h0m0s",
    }
    assert read_allowance(headers, NOW) == Allowance(remaining_tokens=0, reset_tokens_s=3600)


NAMES = [*OPENAI, *ANTHROPIC, "anthropic-ratelimit-tokens-limit"]
VALUE = st.text() | st.sampled_from(["-1", "0", "7", "1e999", "9" * 400 + "s", "0001-01-01T00:00Z"])


@given(st.dictionaries(st.sampled_from(NAMES), VALUE))
def test_nonsense_is_no_error_and_no_negative_number(headers: dict[str, str]) -> None:
    allowance = read_allowance(headers, NOW)
    if allowance is not None:
        told = [getattr(allowance, name) for name in Allowance.__slots__]
        assert any(value is not None for value in told)
        assert all(value is None or 0 <= value < float("inf") for value in told)
