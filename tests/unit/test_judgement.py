"""What is well and what is not: the judgement, on frozen data."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from modelyard import transport
from modelyard.beat import SLACK_S, Beat, NodeState
from modelyard.claims import LEASE_S
from modelyard.finding import Level
from modelyard.health import (
    LOST_S,
    Broker,
    Limits,
    QueueState,
    Report,
    Scope,
    Snapshot,
    judge,
)
from modelyard.heartbeat import Heartbeat, Seen
from modelyard.holdings import ledger
from modelyard.snapshot import problem_of, shown
from producer.health import node_name

NOW = 1_000_000.0
FRESH_S = 2 * LEASE_S + SLACK_S

ROUTER = Beat(
    node="router@a",
    at=NOW - 1,
    consumed_at=NOW - 1,
    turned_at=NOW - 1,
    lease_s=LEASE_S,
    queues=("requests", "batch.requests"),
    in_flight=0,
    prefetch=200,
    pid=7,
    app="router_worker",
    version="0.1.0",
)
POOL = replace(ROUTER, node="small@b", queues=("model.small", "batch.model.small"))
WELL = Snapshot(
    broker=Broker(address="redis://redis:6379/0"),
    at=NOW,
    beats=(ROUTER, POOL),
    queues=(QueueState("requests", 0), QueueState("model.small", 3, NOW - 5)),
)


def seen(report: Report) -> set[tuple[str, str]]:
    """What was found, as pairs of how bad and about what."""
    return {(finding.level.value, finding.about) for finding in report.findings}


def ages() -> st.SearchStrategy[float]:
    return st.floats(0, 100_000)


def beats() -> st.SearchStrategy[Beat]:
    return st.builds(
        lambda at, consumed, turned, lease_s, queues, stopping, node: Beat(
            node=node,
            at=NOW - at,
            consumed_at=NOW - at - consumed,
            turned_at=None if turned is None else NOW - at - turned,
            lease_s=lease_s,
            queues=tuple(queues),
            in_flight=1,
            prefetch=2,
            pid=3,
            app="app",
            version="1",
            stopping=stopping,
        ),
        ages(),
        ages(),
        st.none() | ages(),
        st.floats(0.1, 1000),
        st.lists(st.sampled_from(["requests", "model.small", "model.large"]), unique=True),
        st.booleans(),
        st.text(min_size=1),
    )


def test_a_yard_whose_workers_consume_is_healthy() -> None:
    report = judge(WELL, NOW)

    assert report.healthy
    assert report.findings == ()
    assert report.consumers("model.small") == ("small@b",)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, NodeState.CONSUMING),
        ({"at": NOW - FRESH_S - 1}, NodeState.SILENT),
        ({"turned_at": NOW - FRESH_S - 1}, NodeState.STUCK),
        ({"turned_at": None}, NodeState.CONSUMING),
        ({"consumed_at": NOW - FRESH_S - 1}, NodeState.STALLED),
        ({"queues": ()}, NodeState.PAUSED),
        # Its main thread waits for its calls, and it takes nothing new.
        ({"stopping": True, "turned_at": NOW - 100, "queues": ()}, NodeState.STOPPING),
        ({"stopping": True, "at": NOW - 100}, NodeState.SILENT),
    ],
)
def test_the_state_of_a_worker_follows_from_its_beat(
    change: dict[str, Any], state: NodeState
) -> None:
    assert replace(ROUTER, **change).state(NOW) is state


@pytest.mark.parametrize(
    "change",
    [{"at": NOW - 30}, {"turned_at": NOW - 30}, {"consumed_at": NOW - 30}, {"queues": ()}],
)
def test_a_worker_of_no_use_is_unhealthy_for_its_own_probe_and_in_the_yard(
    change: dict[str, Any],
) -> None:
    ill = replace(WELL, beats=(ROUTER, replace(POOL, **change)))

    for scope in (Scope(), Scope(node="small@b")):
        report = judge(ill, NOW, scope)
        assert not report.healthy
        assert ("unhealthy", "small@b") in seen(report)
    assert judge(ill, NOW, Scope(node="router@a")).healthy


def test_a_worker_that_stops_is_healthy_but_serves_nobody() -> None:
    stopping = replace(WELL, beats=(ROUTER, replace(POOL, stopping=True)))

    assert judge(stopping, NOW, Scope(node="small@b")).level is Level.WARNING
    assert ("unhealthy", "model.small") in seen(judge(stopping, NOW))


def test_a_worker_that_was_never_heard_of_is_unhealthy() -> None:
    report = judge(WELL, NOW, Scope(node="large@b"))

    assert not report.healthy
    assert "router@a, small@b" in report.findings[0].message


def test_a_lost_worker_is_a_warning_in_the_end_if_others_serve_its_queues() -> None:
    lost = replace(POOL, node="small@c", at=NOW - LOST_S)

    assert seen(judge(replace(WELL, beats=(ROUTER, POOL, lost)), NOW)) == {("warning", "small@c")}
    assert seen(judge(replace(WELL, beats=(ROUTER, POOL, lost)), NOW - 100)) == {
        ("unhealthy", "small@c")
    }
    assert not judge(replace(WELL, beats=(ROUTER, lost)), NOW).healthy
    # Its own probe knows no others.
    assert not judge(replace(WELL, beats=(ROUTER, POOL, lost)), NOW, Scope(node="small@c")).healthy


def test_requests_need_a_router_and_waiting_messages_a_worker() -> None:
    assert seen(judge(replace(WELL, beats=(POOL,)), NOW)) == {("unhealthy", "requests")}
    assert seen(judge(replace(WELL, beats=(ROUTER,)), NOW)) == {("unhealthy", "model.small")}
    empty = replace(WELL, beats=(ROUTER,), queues=(QueueState("model.small", 0),))
    assert judge(empty, NOW).healthy
    # Who asks about a queue wants it served, also while it is empty.
    assert not judge(empty, NOW, Scope(queues=("model.small",))).healthy


def test_only_what_was_asked_about_is_judged() -> None:
    ill = replace(WELL, beats=(replace(ROUTER, at=NOW - 100), POOL), overdue=5, dead_letters=10)

    assert judge(ill, NOW, Scope(queues=("model.small",)), Limits(dead_letters=10)).healthy
    assert judge(ill, NOW, Scope(node="small@b"), Limits(dead_letters=10)).healthy
    assert not judge(ill, NOW).healthy


@pytest.mark.parametrize(
    ("dead", "level"),
    [(79, Level.HEALTHY), (80, Level.ALERT), (99, Level.ALERT), (100, Level.UNHEALTHY)],
)
def test_dead_letters_near_their_limit_are_told_and_at_it_unhealthy(
    dead: int, level: Level
) -> None:
    report = judge(replace(WELL, dead_letters=dead), NOW, limits=Limits(dead_letters=100))

    assert report.level is level
    assert judge(replace(WELL, dead_letters=dead), NOW).level is Level.HEALTHY


def test_a_queue_near_its_limit_and_memory_nearly_used_up_are_warnings() -> None:
    full = replace(
        WELL,
        queues=(QueueState("requests", 9),),
        broker=Broker(address="r", used_bytes=95, max_bytes=100),
    )

    assert seen(judge(full, NOW, limits=Limits(queue=10))) == {
        ("warning", "requests"),
        ("warning", "broker"),
    }


def test_claims_that_nobody_takes_over_are_unhealthy() -> None:
    report = judge(replace(WELL, claims=7, overdue=2, overdue_since=NOW - 50), NOW)

    assert seen(report) == {("unhealthy", "claims")}
    assert "2 messages" in report.findings[0].message and "50 s" in report.findings[0].message


def test_with_a_broker_that_is_away_nothing_else_is_claimed() -> None:
    away = Snapshot(broker=Broker(address="redis://redis:6379/0", problem="it can't be reached"))

    for scope in (Scope(), Scope(node="router@a"), Scope(queues=("requests",))):
        assert seen(judge(away, 0.0, scope)) == {("unhealthy", "broker")}


def test_a_beat_that_cannot_be_read_is_told() -> None:
    strange = replace(WELL, unreadable=("new@c",))

    assert seen(judge(strange, NOW)) == {("unhealthy", "new@c")}
    assert not judge(strange, NOW, Scope(node="new@c")).healthy
    assert judge(strange, NOW, Scope(node="router@a")).healthy


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '"x"', '{"node": 1}', "[" * 10_000])
def test_what_is_no_beat_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Beat.decode(text)


@given(beats())
def test_a_beat_is_read_as_it_was_written(beat: Beat) -> None:
    assert Beat.decode(beat.encode()) == beat
    # A later version may say more.
    assert Beat.decode(json.dumps({**json.loads(beat.encode()), "more": 1})) == beat


@given(beats(), ages(), ages())
def test_no_worker_recovers_by_time_alone(beat: Beat, after_s: float, later_s: float) -> None:
    fine = {NodeState.CONSUMING, NodeState.STOPPING}

    if beat.state(NOW + after_s) not in fine:
        assert beat.state(NOW + after_s + later_s) not in fine


@given(beats())
def test_a_worker_that_looked_within_two_leases_is_not_ill(beat: Beat) -> None:
    recently = NOW - 2 * beat.lease_s
    busy = replace(
        beat, at=recently, consumed_at=recently, turned_at=recently, queues=("requests",)
    )

    assert busy.state(NOW) in {NodeState.CONSUMING, NodeState.STOPPING}


@given(st.lists(beats(), max_size=5, unique_by=lambda beat: beat.node), ages())
def test_one_more_worker_that_consumes_makes_nothing_worse(
    others: list[Beat], wait_s: float
) -> None:
    now = NOW + wait_s
    more = replace(POOL, node="\0more", at=now, consumed_at=now, turned_at=now)
    before = replace(WELL, beats=tuple(others))
    after = replace(WELL, beats=(*others, more))
    order = list(Level)

    assert order.index(judge(after, now).level) <= order.index(judge(before, now).level)


@given(st.lists(beats(), max_size=5, unique_by=lambda beat: beat.node))
def test_a_report_is_json_and_says_what_it_judged(some: list[Beat]) -> None:
    report = judge(replace(WELL, beats=tuple(some)), NOW)
    said = json.loads(json.dumps(report.as_json()))

    assert said["healthy"] == report.healthy == (said["status"] != "unhealthy")
    assert [node["state"] for node in said["nodes"]] == [each.state(NOW) for each in some]
    assert said["queues"][1]["oldest_age_s"] == 5.0
    assert said["queues"][1]["consumers"] == len(report.consumers("model.small"))


def seen_by_a_worker(*queues: str, prefetch: int) -> Seen:
    """What the step notes of a worker with these queues."""
    consumed = SimpleNamespace(queues=[SimpleNamespace(name=queue) for queue in queues])
    consumer = SimpleNamespace(task_consumer=consumed, qos=SimpleNamespace(value=prefetch))
    worker = SimpleNamespace(consumer=consumer)
    return Heartbeat(worker).look(worker)


def test_a_worker_without_room_need_not_look_for_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "consumed_at", 1.0)
    claims = ["claim-1", "claim-2"]
    ledger.claimed(claims)
    try:
        full = seen_by_a_worker("requests", prefetch=2)
        room = seen_by_a_worker("requests", prefetch=3)
    finally:
        ledger.settled(claims)

    assert full.consumed > 1.0
    assert room.consumed == 1.0
    assert (full.queues, full.prefetch) == (("requests",), 2)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("router", "router@here.example"),
        ("router@%h", "router@here.example"),
        ("router@there", "router@there"),
        ("small-2", "small-2@here.example"),
    ],
)
def test_a_node_without_a_host_is_the_one_here(name: str, whole: str) -> None:
    assert node_name(name, "here.example") == whole


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (redis.exceptions.OutOfMemoryError("command not allowed"), "no memory left"),
        (redis.ResponseError("OOM command not allowed"), "no memory left"),
        (redis.exceptions.ReadOnlyError("You can't write"), "read-only replica"),
        (redis.exceptions.BusyLoadingError("Redis is loading"), "loading its data"),
        (redis.ResponseError("MISCONF Redis is configured to"), "can't save to its disk"),
        (redis.TimeoutError("Timeout reading from socket"), "does not answer within"),
        (redis.ConnectionError("Error 111. Connection refused."), "can't be reached: Error 111"),
        (redis.ResponseError("something new"), "refuses: something new"),
    ],
)
def test_what_is_wrong_with_a_broker_is_said_in_plain_words(error: Exception, words: str) -> None:
    assert words in problem_of(error)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://redis:6379/0", "redis://redis:6379/0"),
        (
            "rediss://operator:hunter2@redis.example:6380/1?password=hunter3",
            "rediss://redis.example:6380/1",
        ),
        ("redis://:hunt;er@2@redis:6379", "redis://redis:6379"),
        (
            "sentinel://:hunter2@a:26379/0;sentinel://:hunter2@b:26379/0?sentinel_password=x",
            "sentinel://a:26379/0;sentinel://b:26379/0",
        ),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, told: str) -> None:
    assert shown(url) == told
