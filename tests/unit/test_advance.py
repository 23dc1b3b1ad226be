"""What comes after an attempt, and the laws that hold for every history."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.advance import (
    LONGEST_HELD_S,
    LONGEST_WAIT_S,
    MOST_LIMITED,
    CallNow,
    Die,
    Later,
    NextStep,
    advance,
    held,
)
from modelyard.catalog import Retry
from modelyard.circuit import Hold, Reason
from modelyard.errors import FailureKind
from modelyard.messages import Attempt, Call, DeadReason, Lane, Part, Request
from modelyard.plan import Accept, Decision, Plan, Step

NOW = 1_000.0
RETRY = Retry(calls=3, base_s=1.0, cap_s=8.0, patience_s=30.0)


def call(
    *models: str,
    step: int = 0,
    deadline: float | None = None,
    part: Part = Part.ANSWER,
    before: Sequence[Attempt] = (),
) -> Call:
    return Call(
        request=Request.of("hello", deadline=deadline),
        decision=Decision(
            route="default",
            intent="other",
            why="",
            input_tokens=1,
            decided_at=NOW,
            plan=Plan(
                steps=tuple(Step(model=model) for model in models),
                accept=Accept(judge="judge"),
                shadow="shadow",
            ),
        ),
        step=step,
        part=part,
        attempts=tuple(before),
    )


def failed(model: str, kind: FailureKind, retry_after_s: float | None = None) -> Attempt:
    return Attempt(
        model=model,
        endpoint="e",
        started_at=NOW,
        duration_ms=1.0,
        kind=kind,
        message="no",
        retry_after_s=retry_after_s,
    )


def test_a_request_is_called_at_once() -> None:
    assert advance(call("a"), (), RETRY, NOW, 0.5) == CallNow(0.0)


def test_waits_double_up_to_their_cap_and_are_drawn_evenly() -> None:
    long = Retry(calls=9, base_s=1.0, cap_s=8.0)
    history: list[Attempt] = []
    waits = []
    for _ in range(5):
        history.append(failed("a", FailureKind.RETRYABLE))
        move = advance(call("a"), history, long, NOW, 1.0)
        assert isinstance(move, CallNow)
        waits.append(move.wait_s)
    assert waits == [2.0, 4.0, 8.0, 8.0, 8.0]
    assert advance(call("a"), history, long, NOW, 0.25) == CallNow(2.0)


def test_after_its_last_call_a_model_hands_over_to_the_next() -> None:
    history = [failed("a", FailureKind.RETRYABLE)] * 3
    assert advance(call("a", "b"), history, RETRY, NOW, 0.0) == NextStep(1, "a: retryable")


def test_the_next_model_starts_with_calls_of_its_own() -> None:
    before = [failed("a", FailureKind.RETRYABLE)] * 3
    history = [*before, failed("b", FailureKind.RETRYABLE)]
    second = call("a", "b", step=1, before=before)
    assert isinstance(advance(second, history, RETRY, NOW, 0.0), CallNow)


def test_a_judge_that_was_asked_before_or_answers_too_starts_anew() -> None:
    before = [failed("judge", FailureKind.RETRYABLE)] * 3
    again = call("a", "judge", part=Part.JUDGE, before=before)
    assert advance(again, before, RETRY, NOW, 0.0) == CallNow()


@pytest.mark.parametrize("part", [Part.MAP, Part.REDUCE])
def test_a_piece_and_what_they_become_have_a_next_model_too(part: Part) -> None:
    history = [failed("a", FailureKind.PERMANENT)]
    move = advance(call("a", "b", part=part), history, RETRY, NOW, 0.0)
    assert move == NextStep(1, "a: permanent")
    move = advance(call("b", "a", step=1, part=part), history, RETRY, NOW, 0.0)
    assert isinstance(move, Die)


@pytest.mark.parametrize("part", [Part.JUDGE, Part.MEMBER, Part.SHADOW, Part.COMBINE])
def test_only_who_answers_the_request_has_a_next_model(part: Part) -> None:
    history = [failed("a", FailureKind.PERMANENT)]
    move = advance(call("a", "b", part=part), history, RETRY, NOW, 0.0)
    assert isinstance(move, Die)


@pytest.mark.parametrize("kind", [FailureKind.PERMANENT, FailureKind.TOO_LONG, FailureKind.REFUSED])
def test_what_another_call_can_t_mend_goes_on_at_once(kind: FailureKind) -> None:
    assert isinstance(advance(call("a", "b"), [failed("a", kind)], RETRY, NOW, 0.0), NextStep)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (FailureKind.RETRYABLE, DeadReason.EXHAUSTED),
        (FailureKind.PERMANENT, DeadReason.EXHAUSTED),
        (FailureKind.REFUSED, DeadReason.REFUSED),
        (FailureKind.INVALID, DeadReason.INVALID),
    ],
)
def test_the_last_model_s_last_failure_names_the_reason(
    kind: FailureKind, reason: DeadReason
) -> None:
    assert advance(call("a"), [failed("a", kind)] * 3, RETRY, NOW, 0.0) == Die(reason, "a: no")


def test_an_invalid_request_is_not_offered_to_other_models() -> None:
    move = advance(call("a", "b"), [failed("a", FailureKind.INVALID)], RETRY, NOW, 0.0)
    assert move == Die(DeadReason.INVALID, "a: no")


def test_a_retry_after_is_never_undercut() -> None:
    for kind in (FailureKind.LIMITED, FailureKind.RETRYABLE):
        move = advance(call("a", "b"), [failed("a", kind, 12.0)], RETRY, NOW, 0.0)
        assert move == CallNow(12.0)


def test_a_long_retry_after_goes_to_the_next_model_but_the_last_one_waits() -> None:
    limited = [failed("a", FailureKind.LIMITED, 300.0)]
    assert isinstance(advance(call("a", "b"), limited, RETRY, NOW, 0.0), NextStep)
    assert advance(call("a"), limited, RETRY, NOW, 0.0) == Later(300.0, "a: no")


def test_the_last_model_s_limit_is_waited_for_and_no_call_is_spent_on_it() -> None:
    history = [failed("a", FailureKind.LIMITED, 1.0)] * 20
    assert advance(call("a"), history, RETRY, NOW, 0.0) == CallNow(1.0)
    history += [failed("a", FailureKind.RETRYABLE)] * 2
    assert isinstance(advance(call("a"), history, RETRY, NOW, 0.0), CallNow)
    history += [failed("a", FailureKind.RETRYABLE)]
    assert advance(call("a"), history, RETRY, NOW, 0.0) == Die(DeadReason.EXHAUSTED, "a: no")


def test_a_long_limit_of_the_last_model_is_waited_for_in_the_queue() -> None:
    for asked_s in (LONGEST_HELD_S + 1, 24 * 3600.0):
        limited = [failed("a", FailureKind.LIMITED, asked_s)]
        move = advance(call("a"), limited, RETRY, NOW, 0.0)
        assert move == Later(min(asked_s, LONGEST_WAIT_S), "a: no")


def test_limits_are_met_so_often_at_most_however_often_the_request_was_put_back() -> None:
    before = [failed("a", FailureKind.LIMITED, 300.0)] * (MOST_LIMITED - 2)
    back = call("a", before=before)
    one = [*before, failed("a", FailureKind.LIMITED, 300.0)]
    assert isinstance(advance(back, one, RETRY, NOW, 0.0), Later)
    two = [*one, failed("a", FailureKind.LIMITED, 300.0)]
    assert isinstance(advance(back, two, RETRY, NOW, 0.0), Die)


def test_failures_from_before_a_request_was_put_back_count() -> None:
    before = [failed("a", FailureKind.RETRYABLE)] * 2
    back = call("a", before=before)
    assert advance(back, before, RETRY, NOW, 0.0) == CallNow()
    third = [*before, failed("a", FailureKind.RETRYABLE)]
    assert isinstance(advance(back, third, RETRY, NOW, 0.0), Die)


def test_a_limit_counts_where_there_is_a_next_model() -> None:
    history = [failed("a", FailureKind.LIMITED, 1.0)] * 3
    assert isinstance(advance(call("a", "b"), history, RETRY, NOW, 0.0), NextStep)


def test_another_endpoint_is_called_at_once_whatever_the_failed_one_asked_for() -> None:
    for kind in (FailureKind.LIMITED, FailureKind.RETRYABLE, FailureKind.DENIED):
        history = [failed("a", kind, 300.0)]
        for models in ("a", "ab"):
            move = advance(call(*models), history, RETRY, NOW, 1.0, elsewhere=True)
            assert move == CallNow(0.0)


DOWN = Hold(5.0, Reason.FAILING, "down")
LIMITED = Hold(20.0, Reason.LIMITED, "limited")
FULL = Hold(20.0, None, "full")
TENANT = Hold(60.0, None, "tenant", own=True, everywhere=True)


def test_who_has_a_next_model_does_not_wait_for_what_is_down_nor_for_long() -> None:
    for hold in (
        DOWN,
        Hold(0.2, Reason.DENIED, ""),
        Hold(31.0, None, ""),
        Hold(31.0, None, "", True),
    ):
        assert isinstance(held(call("a", "b"), hold, RETRY, NOW), NextStep)
    for hold in (LIMITED, FULL, TENANT):
        assert not isinstance(held(call("a", "b"), hold, RETRY, NOW), NextStep)


def test_short_holds_are_waited_for_in_the_worker_but_not_again_and_again() -> None:
    short = Hold(0.5, None, "full")
    assert held(call("a"), short, RETRY, NOW) == CallNow(0.5)
    assert held(call("a"), short, RETRY, NOW, 1.4) == CallNow(0.5)
    assert isinstance(held(call("a"), short, RETRY, NOW, 1.6), Later)


def test_what_all_have_to_wait_for_keeps_their_order() -> None:
    for hold in (LIMITED, FULL):
        assert held(call("a"), hold, RETRY, NOW) == Later(20.0, f"a: {hold.message}")


def test_others_go_first_where_only_this_request_has_to_wait() -> None:
    """A tenant at its limit, or a model that is down for who can go nowhere else."""
    for hold in (TENANT, DOWN, Hold(60.0, Reason.LIMITED, "for long")):
        assert held(call("a"), hold, RETRY, NOW) == CallNow(LONGEST_HELD_S)
        later = held(call("a"), hold, RETRY, NOW, LONGEST_HELD_S)
        assert isinstance(later, Later) and later.wait_s == 0


def test_nothing_waits_beyond_its_deadline() -> None:
    for deadline in (NOW - 1, NOW, NOW + 4):
        move = held(call("a", deadline=deadline), DOWN, RETRY, NOW)
        assert isinstance(move, Die) and move.reason is DeadReason.EXPIRED
    assert isinstance(held(call("a"), Hold(600.0, Reason.DENIED, ""), RETRY, NOW), Die)


def test_nothing_is_called_after_the_deadline() -> None:
    move = advance(call("a", deadline=NOW), (), RETRY, NOW, 0.0)
    assert isinstance(move, Die)
    assert move.reason is DeadReason.EXPIRED


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    limited = [failed("a", FailureKind.LIMITED, 10.0)]
    late = call("a", deadline=NOW + 5)
    move = advance(late, limited, RETRY, NOW, 0.0)
    assert isinstance(move, Die)
    assert move.reason is DeadReason.EXPIRED
    assert isinstance(advance(call("a", "b", deadline=NOW + 5), limited, RETRY, NOW, 0.0), NextStep)


kinds = st.sampled_from(list(FailureKind))
names = st.lists(st.sampled_from("abcde"), min_size=1, max_size=5, unique=True)


@given(names, st.data(), st.integers(1, 5))
def test_every_history_ends_within_the_calls_that_are_allowed(
    models: Sequence[str], data: st.DataObject, calls: int
) -> None:
    retry = Retry(calls=calls, base_s=0.1)
    current, now = call(*models), NOW
    attempts: list[Attempt] = []
    while True:
        move = advance(current, attempts, retry, now, data.draw(st.floats(0, 1)))
        if isinstance(move, Die):
            break
        if isinstance(move, NextStep):
            assert move.step == current.step + 1
            current = current.model_copy(update={"step": move.step, "attempts": tuple(attempts)})
            continue
        if isinstance(move, Later) or data.draw(st.booleans()):
            current = current.model_copy(update={"attempts": tuple(attempts)})
        now += move.wait_s
        attempts.append(failed(current.model, data.draw(kinds)))
    limits = sum(each.kind is FailureKind.LIMITED for each in attempts)
    assert limits <= MOST_LIMITED
    assert len(attempts) - limits <= calls * len(models)
    assert [model for model in models if model in {each.model for each in attempts}] == list(
        dict.fromkeys(each.model for each in attempts)
    )


def test_who_is_waited_for_goes_on_after_its_patience_and_a_batch_waits() -> None:
    full = Hold(5.0, None, "full")
    waiting = call("a", "b")
    assert isinstance(held(waiting, full, RETRY, NOW + 24.0), Later)
    assert held(waiting, full, RETRY, NOW + 26.0) == NextStep(1, "a: full")
    batch = waiting.request.model_copy(update={"lane": Lane.BATCH})
    patient = waiting.model_copy(update={"request": batch})
    assert isinstance(held(patient, full, RETRY, NOW + 600.0), Later)


@pytest.mark.parametrize("kind", [FailureKind.RETRYABLE, FailureKind.LIMITED])
def test_what_was_called_by_its_own_name_counts_where_the_plan_has_an_alias(
    kind: FailureKind,
) -> None:
    given = call("writer")
    moves = [
        advance(given, [failed("writer@1", kind)] * calls, RETRY, NOW, 0.0)
        for calls in range(1, MOST_LIMITED + 1)
    ]
    most = RETRY.calls if kind is FailureKind.RETRYABLE else MOST_LIMITED
    assert all(isinstance(move, CallNow) for move in moves[: most - 1])
    assert all(isinstance(move, Die) for move in moves[most - 1 :])
