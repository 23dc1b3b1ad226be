"""What is expected arrives once, and everybody who waits is told, whoever comes first."""

import logging
import threading

import pytest

from modelyard.errors import BrokerUnavailable, RequestFailed, RequestRevoked
from modelyard.expected import Expected, arrived

ANSWER = (
    b'{"status":"SUCCESS","result":{"id":"t","text":"hi","model":"m","provider_model":"m",'
    b'"decision":{"route":"default","intent":"other","why":"","input_tokens":1,"decided_at":1.0,'
    b'"plan":{"steps":[{"model":"m"}]}}},"traceback":null,"task_id":"t"}'
)


def test_callbacks_before_and_after_are_called_once() -> None:
    expected, told = Expected(), []
    expected.when_done(lambda: told.append("before"))
    expected.settle(ANSWER)
    expected.when_done(lambda: told.append("after"))
    expected.settle(RequestRevoked("too late"))

    assert told == ["before", "after"]
    assert getattr(expected.read("t"), "text", None) == "hi"


def test_a_callback_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("a bug")

    expected, told = Expected(), []
    expected.when_done(lambda: told.append(1))
    expected.when_done(fail)
    with caplog.at_level(logging.ERROR):
        expected.settle(ANSWER)
    assert told == [1]
    assert "a callback for an outcome failed" in caplog.text


def test_callbacks_that_come_while_it_is_settled_are_called_once() -> None:
    for _ in range(200):
        expected, start = Expected(), threading.Barrier(3)
        told: list[int] = []

        def add(expected: Expected, start: threading.Barrier, told: list[int]) -> None:
            start.wait(20)
            for at in range(20):
                expected.when_done(lambda at=at: told.append(at))  # type: ignore[misc]

        threads = [threading.Thread(target=add, args=(expected, start, told)) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait(20)
        expected.settle(ANSWER)
        for thread in threads:
            thread.join(20)
        assert sorted(told) == sorted([*range(20)] * 2)


def test_a_wait_that_was_too_short_leaves_nothing_behind() -> None:
    expected = Expected()
    assert not expected.wait(0)
    assert expected._callbacks == []
    expected.settle(BrokerUnavailable("gone"))
    assert expected.wait(0)
    assert expected.given_up


@pytest.mark.parametrize(
    "raw",
    [
        b'{"status":"SUCCESS","result":',
        b'{"status":"SUCCESS","status":"RETRY"}',
        b'{"status":"SUCCESS","result":{"text":1}}',
    ],
)
def test_what_begins_like_an_answer_and_is_none_is_invalid(raw: bytes) -> None:
    expected = Expected()
    value = arrived(raw, "t")
    assert value is not None
    expected.settle(value)
    outcome = expected.read("t")
    assert isinstance(outcome, RequestFailed)
    assert (outcome.id, outcome.reason) == ("t", "invalid")


def test_what_is_not_final_has_not_arrived() -> None:
    assert arrived(b'{"status":"STARTED","result":null}', "t") is None
    assert isinstance(arrived(b'{"status": "REVOKED", "result": null}', "t"), RequestRevoked)
