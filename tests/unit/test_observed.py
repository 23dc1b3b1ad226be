"""What is learned of models while they are called."""

from typing import Any

import pytest
from ledger_entries import entry, failed

from modelyard.decision_ledger import Entry
from router_worker.observed import FRESH_S, LEAST, Observed, Observer

NOW = 1_795_000_000.0


def observed(*entries: Entry, now: float | None = None) -> Observed:
    """What is known after these, as of the last one or of `now`."""
    found = Observer()
    for each in entries:
        found.add(each)
    return found.observed(entries[-1].at if now is None else now)


def test_a_model_that_was_hardly_called_is_not_known() -> None:
    assert observed(*[entry()] * (LEAST - 1)).latency_s == {}
    seen = observed(*[entry()] * LEAST)
    assert seen.latency_s == {"small": pytest.approx(0.2)}
    assert seen.output_tokens == {("small", "other"): pytest.approx(50)}


def test_what_is_newer_counts_more() -> None:
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 4.0}}
    seen = observed(*[entry()] * 100, *[entry(calls=slow)] * 100)
    assert seen.latency_s["small"] == pytest.approx(4.0, rel=0.02)


def test_calls_that_fail_say_nothing_of_how_long_an_answer_takes() -> None:
    seen = observed(*[entry()] * LEAST, *[failed("small")] * 50)
    assert seen.latency_s == {"small": pytest.approx(0.2)}


def test_answers_are_as_long_as_those_of_their_intent() -> None:
    seen = observed(
        *[entry(intent="code", output_tokens=900)] * LEAST,
        *[entry(intent="chat", output_tokens=20)] * LEAST,
        *[entry(intent="code", output_tokens=9_000, drafts=1)] * LEAST,
    )
    assert seen.output_tokens == {
        ("small", "code"): pytest.approx(900),
        ("small", "chat"): pytest.approx(20),
    }


def test_the_calls_of_an_ensemble_count_once() -> None:
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 4.0}}
    whole = entry(strategy="ensemble", calls=slow)
    seen = observed(*[entry(kind="member"), whole] * LEAST)
    assert seen.latency_s == {"small": pytest.approx(0.2)}


def test_of_a_request_in_pieces_the_pieces_tell_and_not_how_long_an_answer_is() -> None:
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 4.0}}
    whole = entry(strategy="map_reduce", calls=slow)
    piece = entry(kind="member", strategy="map_reduce", output_tokens=64)
    seen = observed(*[piece, whole] * LEAST)
    assert seen.latency_s == {"small": pytest.approx(0.2)}
    assert seen.output_tokens == {}


def took(seconds: float, at: float, **fields: Any) -> Entry:
    """An answer of `small` that took so long."""
    return entry(calls={"small": {"made": 1, "failed": 0, "answered_s": seconds}}, at=at, **fields)


def test_the_latency_of_a_model_that_is_not_called_any_more_is_forgotten() -> None:
    slow = [took(30.0, NOW + number) for number in range(20)]
    last = slow[-1].at

    assert observed(*slow, now=last + FRESH_S).latency_s == {"small": pytest.approx(30.0)}
    late = observed(*slow, now=last + FRESH_S + 1)
    assert late.latency_s == {}
    assert late.output_tokens == {("small", "other"): pytest.approx(50)}


def test_neither_failures_nor_other_models_keep_it() -> None:
    slow = [took(30.0, NOW)] * 20
    later = NOW + FRESH_S + 1
    others = [failed("small", at=later), entry(model="large", at=later)] * 10

    assert observed(*slow, *others).latency_s == {"large": pytest.approx(0.2)}


def test_a_model_that_was_silent_is_known_by_its_new_answers_alone() -> None:
    slow, back = [took(30.0, NOW)] * 20, NOW + FRESH_S + 1

    assert observed(*slow, *[took(0.5, back)] * (LEAST - 1)).latency_s == {}
    assert observed(*slow, *[took(0.5, back)] * LEAST).latency_s == {"small": pytest.approx(0.5)}


def test_entries_that_come_late_make_no_silence() -> None:
    fast, late = [took(0.5, NOW + FRESH_S)] * 20, took(0.5, NOW - FRESH_S)
    assert observed(*fast, late, now=NOW + 2 * FRESH_S).latency_s == {"small": pytest.approx(0.5)}
