"""Messages whose envelope is broken: each is a dead letter, and no worker's end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import eventually
from workers import Workers, whole_yard

from modelyard.claims import New, put
from modelyard.client import Client
from modelyard.messages import Call, DeadLetter, Request
from modelyard.names import (
    CALL_TASK,
    CLAIMS_KEY,
    DEAD_LETTERS_KEY,
    REQUESTS_QUEUE,
    ROUTE_TASK,
    model_queue,
)
from modelyard.plan import Decision, Plan, Step
from modelyard.publish import envelope

BROKEN: list[tuple[str, str, Any]] = [
    ("headers", "task", []),
    ("headers", "task", {}),
    ("headers", "expires", [1]),
    ("headers", "expires", "garbage"),
    ("headers", "eta", "garbage"),
    ("headers", "timelimit", "x"),
    ("headers", "timelimit", [1]),
    ("headers", "timelimit", ["a", "b"]),
    ("headers", "stamped_headers", 5),
    ("headers", "parent_id", "bad\ud800"),
    ("headers", "id", "bad\ud800"),
    ("headers", "modelyard-deliveries", "many"),
    ("properties", "reply_to", 7),
    ("properties", "reply_to", ["x"]),
    ("properties", "reply_to", "modelyard:answers:\ud800"),
    ("properties", "delivery_info", "x"),
]

REQUEST = Request.of("summarize this")
CALL = Call(
    request=REQUEST,
    decision=Decision(
        route="default",
        intent="summarize",
        why="",
        input_tokens=3,
        decided_at=0.0,
        plan=Plan(steps=(Step(model="small"),)),
    ),
)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with whole_yard(Path(tmp_path_factory.mktemp("malformed"))) as yard:
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def broken(queue: str, number: int, part: str, name: str, value: Any) -> tuple[str, bytes]:
    """Return a message that is good but for one value, and its id."""
    task, payload = (
        (ROUTE_TASK, REQUEST.encode()) if queue == REQUESTS_QUEUE else (CALL_TASK, CALL.encode())
    )
    id = f"{queue}-{number}"
    message = json.loads(
        envelope(task=task, id=id, payload=payload, queue=queue, summary="", reply_to="")
    )
    message[part][name] = value
    return id, json.dumps(message).encode()


@pytest.mark.parametrize("queue", [REQUESTS_QUEUE, model_queue("small")])
def test_a_broken_message_is_a_dead_letter_and_no_workers_end(
    yard: Workers, store: redis.Redis, queue: str
) -> None:
    sent = [broken(queue, number, *each) for number, each in enumerate(BROKEN)]
    store.delete(DEAD_LETTERS_KEY)
    put(store, queue, [New(id, message) for id, message in sent])

    with Client(yard.broker_url) as client:
        assert client.submit("summarize after all that").result(30).model == "small"

    def settled() -> bool:
        return store.hlen(DEAD_LETTERS_KEY) == len(sent) and store.hlen(CLAIMS_KEY) == 0

    eventually(settled, message=f"each is a dead letter: {store.hkeys(DEAD_LETTERS_KEY)}")
    letters = [DeadLetter.model_validate_json(each) for each in store.hvals(DEAD_LETTERS_KEY)]
    assert {letter.reason.value for letter in letters} == {"invalid"}
    assert all(process.poll() is None for process in yard.processes.values())
