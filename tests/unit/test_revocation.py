"""What a revocation is of, and what becomes of a part that is revoked."""

import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker import state as worker_state

from model_workers.origin import Origin
from model_workers.revocation import CallRequest, follow, parts_of, revoked
from modelyard.errors import FailureKind
from modelyard.holdings import ledger
from modelyard.member import Member, round_of
from modelyard.messages import Attempt, Call, DeadReason, Part, Request
from modelyard.plan import Decision, Plan, Step, Strategy

DECISION = Decision(
    route="all",
    intent="other",
    why="a test",
    input_tokens=1,
    decided_at=1_700_000_000.25,
    plan=Plan(strategy=Strategy.ENSEMBLE, steps=(Step(model="small"), Step(model="large"))),
)
TRIED = Attempt(
    model="small",
    endpoint="a",
    started_at=1.0,
    duration_ms=1.0,
    kind=FailureKind.RETRYABLE,
    message="no",
)
CALL = Call(
    request=Request.of("hello"),
    decision=DECISION,
    part=Part.MEMBER,
    step=1,
    attempts=(TRIED,),
    origin="job",
)


HOUR_S = 3600.0


@pytest.fixture(autouse=True)
def nothing_is_revoked() -> Iterator[None]:
    worker_state.revoked.clear()
    yield
    worker_state.revoked.clear()


def decided(ago_s: float) -> Any:
    """A piece of a request whose route was chosen so long ago."""
    decision = DECISION.model_copy(update={"decided_at": time.time() - ago_s})
    return CALL.model_copy(update={"decision": decision}).encode()


def revoke(id: str, ago_s: float) -> None:
    worker_state.revoked.add(id, time.monotonic() - ago_s)


def is_dropped(id: str, payload: Any) -> bool:
    follow(id, "job", payload)
    return id in worker_state.revoked


@pytest.mark.parametrize("id", ["job:2", "job"])
def test_a_part_is_dropped_that_was_revoked_after_its_route_was_chosen(id: str) -> None:
    revoke(id, HOUR_S)
    assert not is_dropped("job:2", decided(HOUR_S - 1))
    assert id != "job:2" or id not in worker_state.revoked
    revoke(id, HOUR_S)
    assert is_dropped("job:2", decided(HOUR_S + 1))
    assert not is_dropped("job:3", decided(HOUR_S - 1))


def test_a_part_of_a_former_life_takes_none_of_the_replay_along() -> None:
    revoke("job", HOUR_S)
    assert is_dropped("job:2", decided(2 * HOUR_S))
    assert not is_dropped("job:2", decided(HOUR_S / 2))


def test_a_part_that_can_t_be_read_is_dropped_if_it_is_revoked() -> None:
    revoke("job:2", HOUR_S)
    assert is_dropped("job:2", {"no": "call"})
    assert not is_dropped("job:3", {"no": "call"})


def test_parts_are_those_that_say_whose_they_are() -> None:
    parents = {
        "job": "job:route",
        "job:1": "job",
        "job:2": "job",
        "job:shadow": "job",
        "job:7": "job:7:route",  # its producer called it that
        "other:1": "other",
        "alone": None,
    }
    requests = {id: SimpleNamespace(parent_id=parent) for id, parent in parents.items()}

    assert parts_of(["job"], requests) == {"job:1": "job", "job:2": "job", "job:shadow": "job"}
    assert parts_of(["job:7", "alone"], requests) == {}


def test_a_revoked_part_has_failed_and_tells_what_was_tried() -> None:
    join = revoked(Origin("job:2", "claim", "", "job"), CALL.encode())

    assert join is not None
    assert (join.claim, join.id, join.number, join.answered) == ("claim", "job", 2, False)
    assert (join.queue, join.round, join.entry) == ("model.large", round_of(DECISION), "")
    assert Member.model_validate_json(join.ended) == Member(
        attempts=(TRIED,), reason=DeadReason.REFUSED, message="large: somebody revoked it"
    )


def test_a_revoked_part_that_can_t_be_read_has_failed_too() -> None:
    join = revoked(Origin("job:2", "claim", "", "job"), {"no": "call"})
    assert join is not None
    assert (join.number, join.round) == (2, "")


def test_a_shadow_and_a_request_have_nobody_who_joins_them() -> None:
    assert revoked(Origin("job:shadow", "claim", "", "job"), CALL.encode()) is None
    assert revoked(Origin("job", "claim", "", "job:route"), CALL.encode()) is None


def request_of_a_part(**how: Any) -> CallRequest:
    """A part in the hands of a worker that has no broker."""
    headers = {"id": "job:1", "parent_id": "job", "task": "call"}
    message: Any = SimpleNamespace(
        headers=headers,
        body=json.dumps([[CALL.encode()], {}, {}]),
        payload=[[CALL.encode()], {}, {}],
        properties={"delivery_tag": "claim"},
        delivery_info={},
        content_type="application/json",
        content_encoding="utf-8",
    )
    app = Celery("test", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/0")

    @app.task(name="call")
    def task(payload: Any) -> None:
        """Do nothing."""

    return CallRequest(message, app=app, task=task, **how)


def test_a_part_whose_answer_is_being_stored_is_not_revoked_any_more() -> None:
    """Neither written over nor acknowledged: its app has no broker, and would say so."""
    request = request_of_a_part()
    job = SimpleNamespace(finishing=True, terminate=lambda signal: None)
    request._apply_result = lambda: job
    request.time_start = 1.0
    pool: Any = SimpleNamespace(terminate_job=lambda pid, signal: None)

    request.terminate(pool)

    assert not request.acknowledged
    assert not request._already_revoked


def test_a_part_that_is_revoked_while_redis_is_away_is_let_go_and_comes_again() -> None:
    """The main thread does not wait for Redis, and acknowledges nothing: its lease runs out."""
    acknowledged: list[bool] = []
    request = request_of_a_part(on_ack=lambda *_: acknowledged.append(ledger.ack("claim")))
    request.time_start = 1.0
    ledger.claimed(["claim"])

    request.terminate(SimpleNamespace(terminate_job=lambda pid, signal: None))

    assert acknowledged == [False]
    assert not ledger.holds("claim") and not ledger.owes
