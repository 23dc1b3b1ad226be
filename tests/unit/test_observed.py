"""What is learned of models while they are called."""

import pytest
from ledger_entries import entry, failed

from router_worker.observed import LEAST, Observer


def observer(*entries: object) -> Observer:
    found = Observer()
    for each in entries:
        found.add(each)  # type: ignore[arg-type]
    return found


def test_a_model_that_was_hardly_called_is_not_known() -> None:
    assert observer(*[entry()] * (LEAST - 1)).observed().latency_s == {}
    seen = observer(*[entry()] * LEAST).observed()
    assert seen.latency_s == {"small": pytest.approx(0.2)}
    assert seen.output_tokens == {("small", "other"): pytest.approx(50)}


def test_what_is_newer_counts_more() -> None:
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 4.0}}
    seen = observer(*[entry()] * 100, *[entry(calls=slow)] * 100).observed()
    assert seen.latency_s["small"] == pytest.approx(4.0, rel=0.02)


def test_calls_that_fail_say_nothing_of_how_long_an_answer_takes() -> None:
    seen = observer(*[entry()] * LEAST, *[failed("small")] * 50).observed()
    assert seen.latency_s == {"small": pytest.approx(0.2)}


def test_answers_are_as_long_as_those_of_their_intent() -> None:
    seen = observer(
        *[entry(intent="code", output_tokens=900)] * LEAST,
        *[entry(intent="chat", output_tokens=20)] * LEAST,
        *[entry(intent="code", output_tokens=9_000, drafts=1)] * LEAST,
    ).observed()
    assert seen.output_tokens == {
        ("small", "code"): pytest.approx(900),
        ("small", "chat"): pytest.approx(20),
    }


def test_the_calls_of_an_ensemble_count_once() -> None:
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 4.0}}
    whole = entry(strategy="ensemble", calls=slow)
    seen = observer(*[entry(kind="member"), whole] * LEAST).observed()
    assert seen.latency_s == {"small": pytest.approx(0.2)}


def test_of_a_request_in_pieces_the_pieces_tell_and_not_how_long_an_answer_is() -> None:
    slow = {"small": {"made": 1, "failed": 0, "answered_s": 4.0}}
    whole = entry(strategy="map_reduce", calls=slow)
    piece = entry(kind="member", strategy="map_reduce", output_tokens=64)
    seen = observer(*[piece, whole] * LEAST).observed()
    assert seen.latency_s == {"small": pytest.approx(0.2)}
    assert seen.output_tokens == {}
