"""The checker finds what is lost, stranded, doubled and paid twice in logs written by hand."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.checker import Report, check, failures, percentile
from chaos.evidence import (
    Evidence,
    Execution,
    Fault,
    Kind,
    Memory,
    Outcome,
    Truth,
    read_executions,
    read_faults,
    read_submits,
)
from chaos.journal import Journal, Tail, read

LEASE_S = 3.0
ID = "chaos-a-000001"


def outcome(at: float, kind: Kind = "answered", digest: str = "d1", id: str = ID) -> Outcome:
    return Outcome(id, kind, at, digest)


def told(at: float, kind: Kind = "answered", id: str = ID) -> Outcome:
    """What the waiter saw: it knows no digest."""
    return Outcome(id, kind, at)


GOOD = Evidence(
    submitted={ID: 1.0},
    accepted={ID: 1.1},
    executions=(Execution(ID, "pool-1.1", 2.0, 2.5),),
    heard=(told(2.7),),
    published=(outcome(2.6),),
    faults=(),
    truth=Truth(results={ID: outcome(9.0)}),
    lease_s=LEASE_S,
)
"""One request: accepted at 1.1, called at 2.0, ended at 2.6."""

NOTHING = replace(GOOD, executions=(), heard=(), published=(), truth=Truth())
"""The same one, of which there is no trace after it was accepted."""


def broken(evidence: Evidence) -> list[str]:
    return failures(check(evidence))


def test_a_request_with_one_answer_is_fine() -> None:
    report = check(GOOD)
    assert (report.accepted, report.answered, report.dead_lettered) == (1, 1, 0)
    assert report.duration_s == pytest.approx(1.6)
    assert report.requests_per_s == pytest.approx(1 / 1.6)
    assert failures(report) == []


def test_a_dead_letter_is_an_end() -> None:
    ended = replace(
        GOOD,
        heard=(told(2.7, "dead"),),
        published=(outcome(2.6, "dead"),),
        truth=Truth({ID: outcome(9.0, "dead")}, {ID: "exhausted"}),
    )
    assert check(ended).dead_lettered == 1
    assert broken(ended) == []


def test_what_was_accepted_and_left_no_trace_is_lost() -> None:
    assert check(NOTHING).lost == (ID,)
    assert broken(NOTHING) == [f"lost 1: {ID}"]


def test_what_was_never_acknowledged_is_not_lost_but_told() -> None:
    unsure = replace(NOTHING, accepted={})
    assert check(unsure).lost == ()
    assert broken(unsure) == ["1 submits were never accepted"]


@pytest.mark.parametrize("truth", [Truth(queued=frozenset({ID})), Truth(claimed=frozenset({ID}))])
def test_what_is_still_in_a_queue_or_a_claim_is_stranded(truth: Truth) -> None:
    stuck = replace(NOTHING, truth=truth)
    assert (check(stuck).stranded, check(stuck).lost) == ((ID,), ())
    assert broken(stuck) == [f"stranded 1: {ID}"]


def test_a_message_that_outlives_its_outcome_is_told() -> None:
    left = replace(GOOD, truth=replace(GOOD.truth, claimed=frozenset({ID})))
    assert check(left).stranded == ()
    assert broken(left) == [f"left in a queue or a claim though it ended 1: {ID}"]


def test_messages_without_an_id_are_told() -> None:
    left = replace(GOOD, truth=replace(GOOD.truth, unknown=2))
    assert broken(left) == ["2 unreadable messages left in queues or claims"]


def test_an_outcome_that_the_waiter_never_hears_is_told() -> None:
    deaf = replace(GOOD, heard=())
    assert broken(deaf) == [f"outcomes nobody was told 1: {ID}"]
    assert broken(replace(deaf, nobody_waits=frozenset({ID}))) == []


@pytest.mark.parametrize(
    "twice",
    [
        replace(GOOD, published=(outcome(2.6), outcome(4.0))),
        replace(GOOD, published=(outcome(2.6), outcome(4.0, digest="d2"))),
        replace(GOOD, truth=Truth({ID: outcome(9.0, digest="d2")})),
        replace(GOOD, truth=Truth({ID: outcome(9.0)}, {ID: "poison"})),
        replace(GOOD, heard=(told(2.7, "dead"),)),
    ],
    ids=["published again", "published otherwise", "overwritten", "and a dead letter", "told else"],
)
def test_two_outcomes_are_doubled(twice: Evidence) -> None:
    assert check(twice).doubled == (ID,)
    assert broken(twice) == [f"doubled outcomes 1: {ID}"]


AGAIN = replace(
    GOOD,
    executions=(Execution(ID, "pool-1.1", 2.0, 2.5), Execution(ID, "pool-2.1", 5.0, 5.4)),
    heard=(told(5.6),),
    published=(outcome(5.5),),
)
"""Called at 2.0 by pool-1.1, and at 5.0 by pool-2.1, which had the outcome at 5.5."""


def with_fault(action: str, target: str, at: float, until: float | None = None) -> Evidence:
    return replace(AGAIN, faults=(Fault(action, target, at, until or at),))


def test_two_calls_without_a_fault_are_paid_twice_without_a_reason() -> None:
    report = check(AGAIN)
    assert (report.paid_twice, report.in_flight) == ((ID,), 0)
    assert broken(AGAIN) == [f"paid twice without a reason 1: {ID}"]


MEMBERS = replace(
    AGAIN,
    executions=(
        Execution(ID, "pool-1.1", 2.0, 2.5, "1:small"),
        Execution(ID, "pool-1.1", 2.0, 2.6, "2:large"),
        Execution(ID, "pool-2.1", 5.0, 5.3, "1:small"),
        Execution(ID, "pool-2.1", 5.0, 5.4, "2:large"),
    ),
)
"""Two members of an ensemble at pool-1.1, and once more at pool-2.1."""


def test_each_part_of_a_plan_is_to_be_paid_for_once() -> None:
    assert check(replace(MEMBERS, executions=MEMBERS.executions[:2])).paid_twice == ()
    assert broken(MEMBERS) == [f"paid twice without a reason 1: {ID}"]


def test_a_fault_explains_each_part_that_it_found_in_flight() -> None:
    killed = replace(MEMBERS, faults=(Fault("kill", "pool-1.1", 2.2, 2.2),))
    report = check(killed)
    assert (report.paid_twice, report.in_flight, failures(report)) == ((ID,), 2, [])
    assert report.takeovers_s == pytest.approx((2.8, 2.8))
    once_more = Execution(ID, "pool-2.1", 5.1, 5.2, "2:large")
    more = replace(killed, executions=(*killed.executions, once_more))
    assert broken(more) == [f"paid twice without a reason 1: {ID}"]


def test_a_fault_explains_no_other_part_than_it_found_in_flight() -> None:
    """Two parts were in flight at the kill, and one of them is paid for three times."""
    kill = Fault("kill", "pool-1.1", 2.2, 2.2)
    once_more = Execution(ID, "pool-2.1", 5.5, 5.6, "2:large")
    first, second, _, again = MEMBERS.executions
    thrice = replace(MEMBERS, faults=(kill,), executions=(first, second, again, once_more))
    assert broken(thrice) == [f"paid twice without a reason 1: {ID}"]


def test_the_parts_of_a_plan_are_read_from_ids_and_models(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "calls")
    journal.write(kind="start", call=1, id=f"{ID}:2", worker="pool-1.1", mode="", model="large")
    journal.write(kind="end", call=1, id=f"{ID}:2")
    (apart,) = read_executions(read(tmp_path / "calls"), apart=True)
    (as_one,) = read_executions(read(tmp_path / "calls"))
    assert (apart.id, apart.part, as_one.id, as_one.part) == (ID, "2:large", ID, "")


def test_a_call_that_failed_is_not_paid_for() -> None:
    failed = (Execution(ID, "pool-1.1", 2.0), *AGAIN.executions[1:])
    assert check(replace(AGAIN, executions=failed)).paid_twice == ()


@pytest.mark.parametrize(
    "evidence",
    [
        with_fault("kill", "pool-1.1", 2.2),
        with_fault("kill", "pool-1.1", 2.55),
        with_fault("died", "pool-1.1", 2.2),
        with_fault("stop", "pool-1.1", 1.0, 6.0),
        with_fault("redis-kill", "*", 3.0, 3.5),
        with_fault("stall", "*", 1.0, 1.5),
    ],
    ids=[
        "killed in the call",
        "before the commit",
        "died",
        "stopped",
        "redis",
        "called in the lease",
    ],
)
def test_a_fault_that_finds_a_request_in_flight_explains_a_second_call(evidence: Evidence) -> None:
    report = check(evidence)
    assert (report.paid_twice, report.in_flight) == ((ID,), 1)
    assert failures(report) == []


@pytest.mark.parametrize(
    "evidence",
    [
        with_fault("kill", "pool-1.2", 2.2),
        with_fault("kill", "pool-1.1", 5.6),
        with_fault("stop", "pool-1.1", 0.5, 1.5),
        with_fault("redis-kill", "*", 6.0, 7.0),
        with_fault("500", "small", 2.0, 3.0),
    ],
    ids=["another process", "after the outcome", "before the call", "redis later", "no such fault"],
)
def test_other_faults_explain_nothing(evidence: Evidence) -> None:
    assert broken(evidence) == [f"paid twice without a reason 1: {ID}"]


def test_one_fault_explains_one_more_call_only() -> None:
    once_more = Execution(ID, "pool-1.2", 5.2, 5.3)
    thrice = with_fault("kill", "pool-1.1", 2.2)
    thrice = replace(thrice, executions=(*thrice.executions, once_more))
    assert check(thrice).paid_twice_unexplained == (ID,)


def test_a_takeover_lasts_until_the_next_call_or_the_outcome() -> None:
    other = "chaos-a-000002"
    evidence = replace(
        with_fault("kill", "pool-1.1", 2.2),
        submitted={ID: 1.0, other: 1.0},
        accepted={ID: 1.1, other: 1.1},
        executions=(*AGAIN.executions, Execution(other, "pool-1.1", 2.1)),
        heard=(told(5.6), told(7.0, "dead", id=other)),
        published=(outcome(5.5), outcome(6.2, "dead", id=other)),
        truth=Truth({ID: outcome(9.0), other: outcome(9.0, "dead", id=other)}),
    )
    report = check(evidence)
    assert report.takeovers_s == pytest.approx((2.8, 4.0))
    assert report.recoveries_s == pytest.approx((4.0,))
    assert failures(report, two_leases_s=6.0) == []
    assert failures(report, two_leases_s=3.0) == ["takeover p99 4.0 s, more than 3 s"]


def test_what_no_one_takes_over_is_counted() -> None:
    never = replace(
        NOTHING,
        executions=(Execution(ID, "pool-1.1", 2.0, 2.5),),
        faults=(Fault("kill", "pool-1.1", 2.2, 2.2),),
        truth=Truth(claimed=frozenset({ID})),
    )
    assert check(never).never_taken_over == 1
    assert check(never).takeovers_s == check(never).recoveries_s == ()


def test_a_router_recovers_when_what_waited_is_called() -> None:
    evidence = replace(GOOD, faults=(Fault("kill", "router-1.1", 1.5, 1.5),))
    assert check(evidence).router_recoveries_s == pytest.approx((0.5,))
    assert check(evidence).kills == 1


def test_power_loss_excuses_what_redis_had_not_promised() -> None:
    lost = replace(NOTHING, faults=(Fault("redis-power", "*", 2.0, 3.0),))
    report = check(lost)
    assert (report.lost, report.lost_as_promised, report.accepted_unsynced) == ((), (ID,), 1)
    assert failures(report) == []

    earlier = replace(lost, faults=(Fault("redis-power", "*", 4.0, 5.0),))
    assert check(earlier).lost == (ID,)


def test_an_outcome_that_redis_had_not_promised_may_come_again() -> None:
    again = replace(
        GOOD,
        published=(outcome(2.6), outcome(6.0, digest="d2")),
        truth=Truth({ID: outcome(9.0, digest="d2")}),
        faults=(Fault("redis-kill-everysec", "*", 3.0, 4.0),),
    )
    report = check(again)
    assert (report.doubled, report.ended_again_as_promised) == ((), (ID,))

    always = replace(again, faults=(Fault("redis-kill", "*", 3.0, 4.0),))
    assert check(always).doubled == (ID,)


def test_memory_is_compared_after_the_first_fifth() -> None:
    sizes = [(0, 50.0), (100, 80.0), (201, 100.0), (1000, 104.0)]
    memory = tuple(Memory("pool-1.1", outcomes, mib) for outcomes, mib in sizes)
    report = check(replace(GOOD, memory=memory))
    assert report.memory_growth == pytest.approx(0.04)
    assert failures(report, flat=True) == []
    grown = check(replace(GOOD, memory=(*memory, Memory("pool-1.1", 1000, 106.0))))
    assert failures(grown, flat=True) == ["a worker's memory grew by 6.0%"]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 100))
def test_a_percentile_is_one_of_the_values_and_enough_are_below(
    values: list[float], percent: float
) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= len(values) * percent / 100


def test_logs_are_read_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    tail = Tail(tmp_path / "log")
    journal.write(at=1.0, kind="submit", ids=[ID])
    assert [entry["kind"] for entry in tail.entries()] == ["submit"]
    journal.write(at=1.1, kind="accepted", ids=[ID])
    journal.write(at=2.0, kind="submit", ids=[ID])
    journal.close()
    with (tmp_path / "log").open("a") as log:
        log.write('{"at": 3.0, "kind": "acc')
    assert [entry["at"] for entry in tail.entries()] == [1.1, 2.0]
    assert read_submits(read(tmp_path / "log")) == ({ID: 1.0}, {ID: 1.1})


def test_a_call_without_an_end_was_not_paid_for() -> None:
    begun = {"kind": "start", "id": ID, "worker": "pool-1.1", "mode": "normal"}
    log = [
        {**begun, "call": 1, "at": 1.0},
        {**begun, "call": 2, "at": 2.0},
        {"kind": "end", "call": 2, "id": ID, "at": 2.5},
    ]
    assert read_executions(log) == (
        Execution(ID, "pool-1.1", 1.0),
        Execution(ID, "pool-1.1", 2.0, 2.5),
    )


def test_a_fault_that_was_not_ended_lasts_until_the_end() -> None:
    log = [
        {"at": 1.0, "kind": "begin", "action": "stop", "target": "pool-1.1"},
        {"at": 2.0, "kind": "fault", "action": "reset"},
        {"at": 3.0, "kind": "end", "action": "stop", "target": "pool-1.1"},
        {"at": 4.0, "kind": "begin", "action": "stall", "target": "*"},
        {"at": 5.0, "kind": "note", "cut_bytes": 7},
    ]
    assert read_faults(log, 9.0) == (
        Fault("stop", "pool-1.1", 1.0, 3.0),
        Fault("reset", "*", 2.0, 2.0),
        Fault("stall", "*", 4.0, 9.0),
    )


def test_a_report_of_nothing_is_a_report() -> None:
    nothing = Evidence({}, {}, (), (), (), (), Truth(), LEASE_S)
    assert isinstance(check(nothing), Report)
    assert broken(nothing) == []
