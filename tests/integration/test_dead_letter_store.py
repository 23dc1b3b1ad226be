"""Dead letters in a real Redis: read, replayed, dropped, while others write."""

import json
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import eventually

from modelyard import Client, RequestFailed, dead_letters
from modelyard.claims import DONE, LOST, Claims, Want, settle
from modelyard.dead_entries import Entry, Filter
from modelyard.dead_letters import DeadLetters
from modelyard.endings import answered, died
from modelyard.messages import Answer, DeadLetter, DeadReason, Request
from modelyard.names import (
    BEHIND_KEY_PREFIX,
    CANCELLED_KEY,
    COUNTERS_KEY,
    DEAD_LETTERS_BY_AGE_KEY,
    DEAD_LETTERS_KEY,
    REPLY_CHANNEL_PREFIX,
    RESULT_KEY_PREFIX,
    SUBMITTED_KEY_PREFIX,
    WAKE_KEY_PREFIX,
)
from modelyard.plan import Decision, Plan, Step
from modelyard.replay import Edit
from modelyard.settings import Settings

DIED_AT = 1_000.123456


@pytest.fixture
def letters(store: redis.Redis) -> DeadLetters:
    return DeadLetters(store)


def bury(store: redis.Redis, id: str, died_at: float = DIED_AT, **fields: Any) -> DeadLetter:
    """End a request as a worker does."""
    letter = DeadLetter.model_validate(
        {
            "id": id,
            "reason": "exhausted",
            "message": "all were tried",
            "request": Request.of("hi").encode(),
            "died_at": died_at,
            "reply_to": REPLY_CHANNEL_PREFIX + "me",
            **fields,
        }
    )
    assert settle(store, [died(letter, claim="", ttl_s=600, channel="")]) == [DONE]
    return letter


def answer(store: redis.Redis, id: str, text: str = "hello") -> int:
    """End a request with an answer, and return whether that stands."""
    plan = Plan(steps=(Step(model="small"),))
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=1.0, plan=plan
    )
    said = Answer(id=id, text=text, model="small", provider_model="s", decision=decision)
    (done,) = settle(
        store, [answered(said, claim="", ttl_s=600, channel=REPLY_CHANNEL_PREFIX + "me", now=1.0)]
    )
    return done


def ids(entries: Iterator[Entry]) -> list[str]:
    return [entry.id for entry in entries]


def fates(letters: DeadLetters, *args: Any, **options: Any) -> list[tuple[str, str]]:
    return [(fate.id, fate.what) for fate in letters.replay(*args, **options)]


def queued(store: redis.Redis, queue: str = "requests") -> list[str]:
    """The ids on a queue, next first."""
    return [json.loads(raw)["headers"]["id"] for raw in reversed(store.lrange(queue, 0, -1))]


def everything(store: redis.Redis) -> dict[bytes, bytes | None]:
    return {key: store.dump(key) for key in store.scan_iter()}


def test_a_letter_is_found_whole(store: redis.Redis, letters: DeadLetters) -> None:
    letter = bury(store, "a", traceback="here")
    (found,) = letters.find()
    assert (found.letter, found.died_at) == (letter, DIED_AT)
    assert letters.get("a") == found
    assert letters.get("b") is None
    assert letters.count() == 1


def test_reasons_are_counted_whatever_the_ids_are(store: redis.Redis, letters: DeadLetters) -> None:
    for number, reason in enumerate(DeadReason):
        for times in range(number + 1):
            bury(store, f"{reason}-{times}", reason=reason)
    bury(store, 'a "quoted" \\ id', reason="poison")
    bury(store, "long" * 200, reason="poison")
    store.hset(DEAD_LETTERS_KEY, "odd", "no letter")

    assert letters.by_reason() == {
        "poison": 7,
        "refused": 4,
        "invalid": 3,
        "expired": 2,
        "exhausted": 1,
        "unreadable": 1,
    }


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.text(st.sampled_from("abBé0-"), min_size=1, max_size=4),
        st.sampled_from([1.0, 1.5, 2.0, 1e9 + 1 / 3]),
        max_size=25,
    ),
    st.sampled_from([1.0, 1.5, 2.0, 3.0]),
    st.integers(min_value=1, max_value=4),
)
def test_letters_come_by_age_and_each_once_however_many_died_at_one_moment(
    redis_url: str, died_at: dict[str, float], bound: float, page: int
) -> None:
    with redis.Redis.from_url(redis_url) as store, pytest.MonkeyPatch.context() as patch:
        patch.setattr(dead_letters, "PAGE", page)
        store.flushall()
        for id, moment in died_at.items():
            bury(store, id, moment)
        by_age = sorted(died_at, key=lambda id: (died_at[id], id.encode()))
        letters = DeadLetters(store)

        assert ids(letters.find()) == by_age
        assert ids(letters.find(newest_first=True)) == by_age[::-1]
        since = [id for id in by_age if died_at[id] >= bound]
        before = [id for id in by_age if died_at[id] < bound]
        assert ids(letters.find(Filter(since=bound))) == since
        assert ids(letters.find(Filter(before=bound))) == before
        assert ids(letters.find(Filter(since=bound), newest_first=True)) == since[::-1]
        assert ids(letters.find(Filter(before=bound), newest_first=True)) == before[::-1]


def test_letters_that_come_and_go_meanwhile_hide_none_of_the_others(
    store: redis.Redis, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 3)
    rng = random.Random(7)
    stays = [f"stays-{number:03}" for number in range(40)]
    for number, id in enumerate(stays):
        bury(store, id, float(number // 4))
        bury(store, f"goes-{number:03}", float(number // 4))
    seen = Counter[str]()
    for entry in letters.find():
        seen[entry.id] += 1
        for _ in range(2):
            letters.drop([each for each in [letters.get(f"goes-{rng.randrange(40):03}")] if each])
            bury(store, f"new-{rng.random()}", float(rng.randrange(12)))
    assert all(seen[id] == 1 for id in stays)
    assert max(seen.values()) == 1


def test_large_letters_are_read_few_at_a_time(
    store: redis.Redis, letters: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE_BYTES", 2_000)
    for number in range(10):
        bury(store, f"{number}", request=Request.of("x" * 1_000).encode())
    assert ids(letters.find()) == [f"{number}" for number in range(10)]


def test_filters_and_a_limit(store: redis.Redis, letters: DeadLetters) -> None:
    for number in range(6):
        request = Request.of("hi", metadata={"half": str(number % 2)})
        bury(store, f"{number}", float(number), request=request.encode())
    odd = Filter(metadata={"half": "1"})
    assert ids(letters.find(odd)) == ["1", "3", "5"]
    assert ids(letters.find(odd, limit=2)) == ["1", "3"]
    assert ids(letters.find(odd, limit=2, newest_first=True)) == ["5", "3"]
    assert ids(letters.find(Filter(ids=("4", "none", "0", "4")))) == ["4", "0"]


def test_letters_from_before_there_was_an_index_are_found_by_their_age(
    store: redis.Redis, letters: DeadLetters
) -> None:
    for number in (3, 1, 2):
        bury(store, f"{number}", float(number))
    store.delete(DEAD_LETTERS_BY_AGE_KEY)
    assert ids(letters.find()) == ["1", "2", "3"]
    assert ids(letters.find(Filter(since=2.0))) == ["2", "3"]
    assert letters.mend() == 0


def test_letters_that_were_removed_by_hand_are_forgotten(
    store: redis.Redis, letters: DeadLetters
) -> None:
    for id in ("a", "b"):
        bury(store, id)
    store.hdel(DEAD_LETTERS_KEY, "a")
    assert ids(letters.find()) == ["b"]
    assert store.zrange(DEAD_LETTERS_BY_AGE_KEY, 0, -1) == [b"b"]


def test_what_is_no_letter_can_be_seen_and_dropped_and_is_not_replayed(
    store: redis.Redis, letters: DeadLetters
) -> None:
    store.hset(DEAD_LETTERS_KEY, "odd", b"\xff")
    (odd,) = letters.find()
    assert (odd.id, odd.letter, odd.raw) == ("odd", None, b"\xff")
    assert fates(letters) == [("odd", "refused")]
    assert letters.drop([odd]) == 1
    assert letters.count() == 0


def test_a_replayed_request_is_on_its_queue_under_its_id_and_nowhere_else(
    store: redis.Redis, letters: DeadLetters
) -> None:
    bury(store, "a")
    bury(store, "b", request=Request.of("later", lane="batch").encode())

    assert [(fate.id, fate.queue) for fate in letters.replay()] == [
        ("a", "requests"),
        ("b", "batch.requests"),
    ]

    (claimed,), _ = Claims(store).claim([Want("requests", 1, 1)], 1)
    message = json.loads(claimed.message)
    assert message["headers"]["id"] == "a"
    assert message["headers"]["task"] == "modelyard.route"
    assert message["properties"]["reply_to"] == REPLY_CHANNEL_PREFIX + "me"
    assert Request.decode(json.loads(message["body"])[0][0]).text == "hi"
    assert queued(store, "batch.requests") == ["b"]
    assert not store.exists(DEAD_LETTERS_KEY, DEAD_LETTERS_BY_AGE_KEY)
    assert not store.exists(RESULT_KEY_PREFIX + "a", RESULT_KEY_PREFIX + "b")
    assert store.hget(COUNTERS_KEY, "replayed") == b"2"


def test_a_replay_wakes_a_worker(store: redis.Redis, letters: DeadLetters) -> None:
    for id in ("a", "b"):
        bury(store, id)
    assert fates(letters) == [("a", "replayed"), ("b", "replayed")]
    assert store.lrange(WAKE_KEY_PREFIX + "requests", 0, -1) == [b"1"]


def test_the_answer_of_a_replayed_request_stands(store: redis.Redis, letters: DeadLetters) -> None:
    bury(store, "a")
    assert answer(store, "a") == LOST  # its first outcome is that it died
    fates(letters)
    assert answer(store, "a") == DONE


def test_what_was_submitted_once_and_cancelled_too_late_can_be_replayed(
    store: redis.Redis, letters: DeadLetters
) -> None:
    bury(store, "a")
    store.set(SUBMITTED_KEY_PREFIX + "a", "a", ex=600)
    store.zadd(CANCELLED_KEY, {"a": 2e9})
    assert fates(letters) == [("a", "replayed")]
    assert store.zscore(CANCELLED_KEY, "a") is None


def test_whoever_asks_again_gets_the_answer(
    redis_url: str, store: redis.Redis, letters: DeadLetters
) -> None:
    with Client(redis_url, name="me", settings=Settings()) as client:
        bury(store, "a")
        with pytest.raises(RequestFailed, match="all were tried"):
            client.handle("a").result(10)
        fates(letters)
        again = client.handle("a")
        assert not again.done()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(again.result, 20)
            answer(store, "a", "at last")
            assert waiting.result(20).text == "at last"


@pytest.mark.parametrize(("status", "had"), [("SUCCESS", "answer"), ("REVOKED", "cancelled")])
def test_a_request_that_has_another_outcome_by_now_is_not_run_again(
    store: redis.Redis, letters: DeadLetters, status: str, had: str
) -> None:
    bury(store, "a")
    store.set(RESULT_KEY_PREFIX + "a", json.dumps({"status": status, "result": None}))
    before = everything(store)
    (fate,) = letters.replay()
    assert fate.what == "refused"
    assert had in fate.why
    assert everything(store) == before


@pytest.mark.parametrize("stored", [None, "no JSON", "[]", '{"status": "STARTED"}'])
def test_a_result_that_is_gone_or_none_does_not_stop_a_replay(
    store: redis.Redis, letters: DeadLetters, stored: str | None
) -> None:
    bury(store, "a")
    store.delete(RESULT_KEY_PREFIX + "a")
    if stored is not None:
        store.set(RESULT_KEY_PREFIX + "a", stored)
    assert fates(letters) == [("a", "replayed")]
    assert answer(store, "a") == DONE


def test_a_dry_run_says_the_same_and_changes_nothing(
    store: redis.Redis, letters: DeadLetters
) -> None:
    bury(store, "a", 1.0)
    bury(store, "b", 2.0, reason="invalid", request={"received": 7})
    bury(store, "c", 3.0, reason="expired", request=Request.of("hi", deadline=5.0).encode())
    bury(store, "d", 4.0)
    store.set(RESULT_KEY_PREFIX + "d", '{"status": "SUCCESS"}')
    before = everything(store)

    told = list(letters.replay(dry_run=True, most=1))

    assert everything(store) == before
    assert [fate.what for fate in told] == ["replayed", "refused", "refused", "refused"]
    assert list(letters.replay()) == told
    assert letters.count() == 3


def test_letters_that_would_die_again_are_refused_one_by_one(
    store: redis.Redis, letters: DeadLetters
) -> None:
    bury(store, "a", request=Request.of("hi", deadline=5.0).encode())
    bury(store, "b")
    (late, fine) = letters.replay()
    assert (late.what, fine.what) == ("refused", "replayed")
    assert "--no-deadline" in late.why
    assert fates(letters, edit=Edit(no_deadline=True)) == [("a", "replayed")]


def test_a_full_queue_is_waited_for(store: redis.Redis, letters: DeadLetters) -> None:
    for number in range(5):
        bury(store, f"{number}", float(number))
    told: list[str] = []
    waits: list[float] = []

    def serve(wait_s: float) -> None:
        waits.append(wait_s)
        assert store.llen("requests") == 2
        if len(waits) % 3 == 0:
            store.rpop("requests")

    done = fates(letters, most=2, on_full=told.append, wait=serve)

    assert done == [(f"{number}", "replayed") for number in range(5)]
    assert told == ["requests"] * 3
    assert waits == [0.05, 0.1, 0.2] * 3
    assert queued(store) == ["3", "4"]


def test_a_replay_waits_for_room_in_the_queues_behind_too(
    store: redis.Redis, letters: DeadLetters
) -> None:
    for number in range(2):
        bury(store, f"{number}", float(number))
    store.sadd(BEHIND_KEY_PREFIX + "requests", "model.small")
    store.lpush("model.small", "a", "b")
    waits: list[float] = []

    def serve(wait_s: float) -> None:
        waits.append(wait_s)
        assert queued(store) == []
        store.rpop("model.small")

    done = fates(letters, most=2, wait=serve)

    assert done == [("0", "replayed"), ("1", "replayed")]
    assert len(waits) == 1


def test_a_deadline_that_passes_while_the_queue_is_full_is_seen(store: redis.Redis) -> None:
    now = [10.0]
    letters = DeadLetters(store, clock=lambda: now[0])
    bury(store, "a", request=Request.of("hi", deadline=11.0).encode())
    store.lpush("requests", "full")

    def pass_time(wait_s: float) -> None:
        now[0] += 1.0

    assert fates(letters, most=1, wait=pass_time) == [("a", "refused")]
    assert letters.count() == 1


def test_a_replay_ends_although_all_that_it_replays_dies_again(
    store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 2)
    for number in range(5):
        bury(store, f"{number}", 1.0)
    told = []
    now = time.time()
    for fate in DeadLetters(store, clock=lambda: now).replay():
        told.append(fate.what)
        if fate.what == "replayed":
            (raw,) = store.lrange("requests", 0, -1)
            store.delete("requests")
            request = json.loads(json.loads(raw)["body"])[0][0]
            bury(store, fate.id, now - 100, request=request)  # a worker whose clock is behind
    assert Counter(told) == {"replayed": 5, "again": 5}
    assert DeadLetters(store).count() == 5


def test_what_was_decided_of_a_letter_does_not_happen_to_the_next_of_its_request(
    store: redis.Redis, letters: DeadLetters
) -> None:
    bury(store, "a", 1.0)
    (first,) = letters.find()
    replaying = letters.replay(Filter(before=1.5), most=1, wait=lambda _: bury_again())

    def bury_again() -> None:
        store.delete(DEAD_LETTERS_KEY, DEAD_LETTERS_BY_AGE_KEY, RESULT_KEY_PREFIX + "a", "requests")
        bury(store, "a", 2.0)

    store.lpush("requests", "full")
    assert [fate.what for fate in replaying] == ["gone"]
    assert letters.drop([first]) == 0
    assert ids(letters.find()) == ["a"]
    assert queued(store) == []


def test_a_dropped_letter_is_gone_and_its_client_is_still_told(
    store: redis.Redis, letters: DeadLetters
) -> None:
    for id in ("a", "b", "c"):
        bury(store, id)
    assert letters.drop(list(letters.find(Filter(ids=("a", "c"))))) == 2
    assert letters.drop_those([("a", DIED_AT), ("nobody", 1.0)]) == 0
    assert ids(letters.find()) == ["b"]
    assert store.exists(RESULT_KEY_PREFIX + "a")
    assert store.hget(COUNTERS_KEY, "dropped") == b"2"


def test_replays_and_drops_at_the_same_time_share_the_letters(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "PAGE", 20)
    every = {f"{number:03}" for number in range(300)}
    for id in sorted(every):
        bury(store, id)
    start = threading.Barrier(4)

    def work(act: Callable[[DeadLetters], list[str]]) -> list[str]:
        with redis.Redis.from_url(redis_url) as client:
            start.wait(20)
            return act(DeadLetters(client))

    def replayed(letters: DeadLetters) -> list[str]:
        return [fate.id for fate in letters.replay() if fate.what == "replayed"]

    def dropped(letters: DeadLetters) -> list[str]:
        backwards = letters.find(newest_first=True)
        return [entry.id for entry in backwards if letters.drop([entry])]

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(work, [replayed, replayed, replayed, dropped]))

    assert Counter(id for some in done for id in some) == Counter(every)
    assert sorted(queued(store)) == sorted(id for some in done[:3] for id in some)
    assert DeadLetters(store).count() == 0


def test_a_replay_that_is_killed_goes_on_and_nothing_is_lost_or_doubled(
    redis_url: str, store: redis.Redis, letters: DeadLetters
) -> None:
    every = [f"{number:04}" for number in range(1500)]
    for id in every:
        bury(store, id)
    program = textwrap.dedent(
        """
        import sys, redis
        from modelyard.dead_letters import DeadLetters
        for fate in DeadLetters(redis.Redis.from_url(sys.argv[1])).replay(most=700):
            pass
        """
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for enough in (1, 200, 500):
        process = subprocess.Popen([sys.executable, "-c", program, redis_url], env=env)
        eventually(lambda: store.llen("requests") >= enough, message="it replays", interval_s=0.001)  # noqa: B023
        process.kill()
        process.wait(20)
        assert letters.count() > 0
        assert sorted(queued(store) + ids(letters.find())) == every
    fates(letters)
    assert queued(store) == every
    assert letters.count() == 0


def test_a_server_that_refuses_writes_loses_nothing(
    store: redis.Redis, letters: DeadLetters
) -> None:
    bury(store, "a")
    before = everything(store)
    store.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError):
            fates(letters)
    finally:
        store.config_set("maxmemory", 0)
    assert everything(store) == before
    store.script_flush()
    assert fates(letters) == [("a", "replayed")]
