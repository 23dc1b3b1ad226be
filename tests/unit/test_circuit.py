"""When an endpoint is left alone, and when it is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog import Breaker
from modelyard.circuit import (
    CLOSED,
    Circuit,
    Reason,
    admits,
    answered,
    failed,
    opened,
)
from modelyard.errors import FailureKind as K

BREAKER = Breaker(failures=3, failure_rate=0.5, window_s=30, cooldown_s=4, longest_s=20)
HALF = 0.5
"""A draw in the middle: no jitter."""


def fail(circuit: Circuit, now: float, kind: K = K.RETRYABLE, **more: float) -> Circuit:
    started_at = more.pop("started_at", now)
    retry_after_s = more.pop("retry_after_s", None)
    return failed(
        circuit,
        BREAKER,
        kind,
        started_at=started_at,
        now=now,
        draw=more.pop("draw", HALF),
        retry_after_s=retry_after_s,
    )


def test_opens_at_the_third_failure_in_a_row() -> None:
    circuit = fail(fail(CLOSED, 100), 101)
    assert circuit.is_closed
    circuit = fail(circuit, 102)
    assert circuit.is_open(105.9) and not circuit.is_open(106.0)
    assert circuit.why is Reason.FAILING


def test_stays_closed_while_most_calls_are_answered() -> None:
    circuit = CLOSED
    for at in range(100):
        circuit = answered(circuit, BREAKER, at, at)
        if at % 3 == 0:
            circuit = fail(circuit, at)
    assert circuit.is_closed


def test_what_was_busy_and_goes_down_is_left_alone_after_some_failures_in_a_row() -> None:
    circuit = CLOSED
    for _ in range(500):
        circuit = answered(circuit, BREAKER, 100, 100)
    for _ in range(2 * BREAKER.failures - 1):
        circuit = fail(circuit, 100.1)
    for one in (circuit, answered(circuit, BREAKER, 100.1, 100.1)):
        assert one.is_closed
    assert fail(answered(circuit, BREAKER, 100.1, 100.1), 100.2).is_closed
    assert fail(circuit, 100.2).why is Reason.FAILING
    assert not fail(circuit, 100.2).is_closed


def test_failures_of_long_ago_do_not_count() -> None:
    circuit = CLOSED
    for at in range(0, 1000, 60):
        circuit = fail(circuit, at)
    assert circuit.is_closed


def test_the_first_answered_probe_closes_it() -> None:
    circuit = opened(CLOSED, Reason.FAILING, 5, 100)
    assert answered(circuit, BREAKER, 105, 106).is_closed


def test_an_answer_to_a_call_from_before_it_opened_does_not_close_it() -> None:
    circuit = opened(CLOSED, Reason.FAILING, 5, 100)
    assert not answered(circuit, BREAKER, 99, 101).is_closed


def test_failures_of_calls_from_before_it_opened_do_not_lengthen_it() -> None:
    circuit = opened(CLOSED, Reason.FAILING, 5, 100)
    assert fail(circuit, 101, started_at=99).until == circuit.until


def test_a_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    circuit = fail(fail(fail(CLOSED, 0), 0), 0)
    waits = []
    for _ in range(5):
        waits.append(circuit.until - circuit.since)
        circuit = fail(circuit, circuit.until)
    assert waits == [4, 8, 16, 20, 20]


def test_a_denial_opens_at_once_and_for_long() -> None:
    circuit = fail(CLOSED, 100, K.DENIED)
    assert circuit.is_open(100 + 0.7 * BREAKER.denied_s)
    assert circuit.why is Reason.DENIED


def test_a_limit_is_believed_and_never_cut_short() -> None:
    for draw in (0.0, 1.0):
        circuit = fail(CLOSED, 100, K.LIMITED, retry_after_s=7, draw=draw)
        assert 107 <= circuit.until < 108


def test_limits_say_nothing_of_how_long_a_failure_lasts() -> None:
    circuit = CLOSED
    for _ in range(20):
        circuit = fail(circuit, 100, K.LIMITED, retry_after_s=1)
    circuit = fail(circuit, 110)
    assert circuit.until - circuit.since == BREAKER.cooldown_s


def test_what_is_left_alone_for_long_stays_so_for_the_same_reason() -> None:
    denied = fail(CLOSED, 100, K.DENIED)
    for kind in (K.LIMITED, K.RETRYABLE):
        later = fail(denied, 101, kind)
        assert (later.until, later.why) == (denied.until, Reason.DENIED)


def test_only_a_limit_that_is_over_lets_more_through_from_second_to_second() -> None:
    limited = opened(CLOSED, Reason.LIMITED, 5, 100)
    failing = opened(CLOSED, Reason.FAILING, 5, 100)
    for circuit in (limited, failing):
        assert not admits(circuit, BREAKER, 0, 104.9)
        assert admits(circuit, BREAKER, 0, 105.0)
        assert not admits(circuit, BREAKER, 1, 105.0)
    assert admits(limited, BREAKER, 10, 106.0) and not admits(limited, BREAKER, 11, 106.0)
    assert not admits(failing, BREAKER, 1, 1000.0)


def test_what_is_the_requests_own_fault_speaks_for_the_endpoint() -> None:
    for kind in (K.PERMANENT, K.TOO_LONG, K.REFUSED, K.INVALID):
        circuit = opened(CLOSED, Reason.FAILING, 5, 100)
        assert fail(circuit, 106, kind).is_closed


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, *K]), st.floats(0, 100), st.floats(0, 50), st.floats(0, 1)
        ),
        max_size=60,
    )
)
def test_it_is_never_open_for_longer_than_anything_asked_for(
    calls: list[tuple[K | None, float, float, float]],
) -> None:
    """And its counts are never negative, whatever comes in whatever order."""
    circuit, now = CLOSED, 1000.0
    longest = max(1.25 * BREAKER.longest_s, 1.25 * BREAKER.denied_s, 100 + 1)
    for kind, later, took, draw in calls:
        now += later
        if kind is None:
            circuit = answered(circuit, BREAKER, now - took, now)
        else:
            circuit = fail(circuit, now, kind, started_at=now - took, draw=draw, retry_after_s=took)
        assert circuit.good >= 0 and circuit.bad >= 0
        assert circuit.until <= now + longest
