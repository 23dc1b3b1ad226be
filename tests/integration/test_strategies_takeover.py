"""Workers that die in the middle of a strategy, and messages that nobody can read."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from strategy_yard import MODELS, empty_yard
from waiting import eventually
from workers import Workers

from modelyard import Client, RequestFailed
from modelyard.dead_letters import DeadLetters
from modelyard.handle import Handle
from modelyard.messages import Answer
from modelyard.names import (
    CLAIMS_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_KEY,
    DECISIONS_KEY,
    JOIN_KEY_PREFIX,
    JOINS_KEY,
    model_queue,
)
from modelyard.replay import Edit
from modelyard.testing import Gate, Reply
from producer.commands import model_command

LEASE_S = 0.9


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    with empty_yard(tmp_path, lease_s=LEASE_S) as yard:
        yield yard


@pytest.fixture
def store(yard: Workers) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(yard.broker_url) as store:
        yield store


def start_but(yard: Workers, doomed: str) -> None:
    """Start a router, one worker for all models but one, and one for that."""
    yard.start_router()
    yard.start("others", model_command(*(model for model in MODELS if model != doomed)))
    yard.start_pool(doomed)


def ended_once(handle: Handle, store: redis.Redis) -> Answer:
    """Return the answer, after which nothing of the request is anywhere."""
    answer = handle.result(30)
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    assert store.hget(COUNTERS_KEY, "duplicates") is None
    assert store.hlen(DEAD_LETTERS_KEY) == store.zcard(JOINS_KEY) == 0
    assert [store.llen(model_queue(model)) for model in MODELS] == [0] * len(MODELS)
    rows: Any = store.xrange(DECISIONS_KEY)
    kinds = [json.loads(fields[b"e"])["kind"] for _, fields in rows]
    assert kinds.count("request") == 1
    return answer


@pytest.mark.parametrize(
    ("route", "doomed", "grade", "text"),
    [
        ("judged", "large", "1", "large says"),  # the second step
        ("judged", "judge", "9", "small says"),
        ("vote", "medium", "", "same"),  # a member
        ("best", "judge", "3", "large says"),  # the combiner
    ],
)
def test_a_killed_worker_s_part_is_done_by_another_and_the_request_ends_once(
    yard: Workers,
    client: Client,
    store: redis.Redis,
    route: str,
    doomed: str,
    grade: str,
    text: str,
) -> None:
    for model in MODELS:
        says = grade if model == "judge" else "same" if route == "vote" else f"{model} says"
        yard.fake.always(model, Reply(text=says))
    gate = Gate()
    yard.fake.script(doomed, [Reply(gate=gate, text=grade or "same")])
    start_but(yard, doomed)
    handle = client.submit("hello", route=route)
    answered = {"judged": 1, "vote": 2, "best": 3}[route] + (doomed == "large")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1 and len(fake.calls) == answered)

    yard.stop(doomed, signal.SIGKILL)
    gate.open()
    yard.start("second", model_command(doomed, process=2))

    assert ended_once(handle, store).text == text
    assert store.hget(COUNTERS_KEY, "taken_over") == b"1"


def test_a_member_that_kills_its_workers_fails_and_the_others_answer(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    yard.fake.always("small", Reply(gate=gate))
    yard.fake.always("medium", Reply(text="b"))
    yard.fake.always("large", Reply(text="c"))
    start_but(yard, "small")
    handle = client.submit("hello", route="all")
    for _ in range(4):
        yard.fake.wait_until(lambda fake: fake.in_flight == 1, timeout_s=30)
        yard.stop("small", signal.SIGKILL)
        yard.fake.wait_until(lambda fake: fake.in_flight == 0, timeout_s=30)
        yard.start_pool("small")

    answer = ended_once(handle, store)

    assert [draft.model for draft in answer.drafts] == ["medium", "large"]
    gate.open()


def no_call(message: dict[str, Any]) -> None:
    message["body"] = '[[{"request":{}}],{},null]'


def no_body(message: dict[str, Any]) -> None:
    message["body"] = "[["


def no_headers(message: dict[str, Any]) -> None:
    message["headers"]["eta"] = 7


@pytest.mark.parametrize("break_it", [no_call, no_body, no_headers])
def test_a_member_that_can_t_be_read_fails_and_the_others_answer(
    yard: Workers,
    client: Client,
    store: redis.Redis,
    break_it: Callable[[dict[str, Any]], None],
) -> None:
    yard.start_router()
    handle = client.submit("hello", route="all")
    queue = model_queue("medium")
    eventually(lambda: store.llen(queue) == 1)
    taken: Any = store.lpop(queue)
    message = json.loads(taken)
    break_it(message)
    store.lpush(queue, json.dumps(message))
    yard.start("pool", model_command(*MODELS))

    answer = ended_once(handle, store)

    assert [draft.model for draft in answer.drafts] == ["small", "large"]


def test_an_ensemble_that_waited_long_for_its_workers_is_answered(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    """All its members were late, and none of them had its turn."""
    yard.start_router()
    handle = client.submit("hello", route="impatient")
    join = JOIN_KEY_PREFIX + handle.id
    eventually(lambda: store.hget(join, "need") == b"1", timeout_s=20)
    assert store.ttl(join) == -1
    yard.start("pool", model_command(*MODELS))

    ended_once(handle, store)


def test_members_of_a_former_life_have_no_say(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    gate = Gate()
    for model in ("small", "medium", "large"):
        yard.fake.script(model, [Reply(gate=gate, text="old")])
    yard.start_router()
    yard.start("pool", model_command(*MODELS))
    handle = client.submit("hello", route="impatient", deadline_s=1)
    with pytest.raises(RequestFailed, match="3 of 3 did not answer in time"):
        handle.result(30)

    new = Gate()
    yard.fake.always("*", Reply(gate=new, text="new"))
    (fate,) = DeadLetters(store).replay(edit=Edit(route="all", no_deadline=True))
    assert fate.what == "replayed"
    yard.fake.wait_until(lambda fake: fake.in_flight == 6)
    gate.open()
    eventually(lambda: store.hlen(CLAIMS_KEY) == 3)
    new.open()

    answer = client.handle(handle.id).result(30)
    assert [draft.text for draft in answer.drafts] == ["new"] * 3
    eventually(lambda: store.hlen(CLAIMS_KEY) == 0)
    assert not store.exists(JOIN_KEY_PREFIX + handle.id)


def test_answers_are_combined_where_a_worker_lives(
    yard: Workers, client: Client, store: redis.Redis
) -> None:
    """The quorum is reached by the second and the third model; nobody serves the first."""
    yard.start_router()
    yard.start("others", model_command("medium", "large"))
    handle = client.submit("hello", route="quorum")

    assert [draft.model for draft in handle.result(30).drafts] == ["medium", "large"]

    yard.start_pool("small")
    ended_once(handle, store)
    assert "small" not in [call.model for call in yard.fake.calls]
