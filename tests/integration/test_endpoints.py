"""Endpoints that are slow, flap, deny, or have a limit, behind real worker processes."""

import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import redis
from waiting import eventually
from workers import KEY, Workers, workers

from modelyard import Answer, Client, Handle
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.names import model_queue
from modelyard.testing import FakeProvider, Gate, Reply
from producer.commands import model_command

POOLS = ("pool-1", "pool-2")
LIMIT = 30
"""Calls a minute that one endpoint takes."""

CATALOG = f"""
models:
  - name: spread
    provider: openai
    endpoints:
      - {{name: slow, base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}
      - {{name: flapping, base_url: "${{FAKE_B}}", api_key: "${{FAKE_KEY}}"}}
      - {{name: limited, base_url: "${{FAKE_C}}", api_key: "${{FAKE_KEY}}",
         quota: {{requests_per_min: {LIMIT}, interactive_share: 0}}}}
    concurrency: 10
    retry: {{calls: 4, base_s: 0.05, cap_s: 0.2}}
    breaker: {{failures: 3, cooldown_s: 0.3, longest_s: 1}}
  - name: down
    provider: openai
    endpoints: [{{base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}]
    concurrency: 10
    retry: {{calls: 20, base_s: 0.05, cap_s: 0.2}}
    breaker: {{failures: 3, cooldown_s: 1, longest_s: 4}}
  - name: fallback
    provider: openai
    endpoints: [{{base_url: "${{FAKE_B}}", api_key: "${{FAKE_KEY}}"}}]
    concurrency: 10
  - name: keyed
    provider: openai
    endpoints:
      - {{name: good, base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}
      - {{name: bad, base_url: "${{FAKE_B}}", api_key: "${{WRONG_KEY}}"}}
    concurrency: 10
  - name: sticky
    provider: openai
    balance: sticky
    endpoints:
      - {{name: a, base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}
      - {{name: b, base_url: "${{FAKE_B}}", api_key: "${{FAKE_KEY}}"}}
      - {{name: c, base_url: "${{FAKE_C}}", api_key: "${{FAKE_KEY}}"}}
    concurrency: 10
  - name: lanes
    provider: openai
    endpoints: [{{base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}]
    quota: {{requests_per_min: 120, interactive_share: 0.5}}
    concurrency: 10
  - name: held
    provider: openai
    endpoints: [{{base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}]
    concurrency: 10
  - name: killed
    provider: openai
    endpoints: [{{base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}]
    quota: {{concurrency: 2, interactive_share: 0}}
    concurrency: 10
routes:
  default: {{otherwise: [spread]}}
"""
SHARED = ("spread", "down", "fallback", "keyed", "sticky", "lanes", "held")


@dataclass
class Yard:
    """Workers, a client of theirs, and the three providers that they call."""

    workers: Workers
    client: Client
    a: FakeProvider
    b: FakeProvider
    c: FakeProvider

    def submit(self, count: int, *models: str, **options: Any) -> list[Handle]:
        texts = [f"{models[0]} {number}" for number in range(count)]
        return self.client.submit_many(texts, models=list(models), **options)

    def results(self, handles: list[Handle]) -> list[Answer]:
        return [handle.result(60) for handle in handles]

    def calls(self, fake: FakeProvider, model: str) -> list[int | None]:
        return [call.status for call in fake.calls if call.model == model]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("endpoints")
    with ExitStack() as stack:
        store = stack.enter_context(EmbeddedRedis(folder / "state"))
        b, c = (stack.enter_context(FakeProvider(api_key=KEY)) for _ in range(2))
        env = {
            "FAKE_B": b.base_url,
            "FAKE_C": c.base_url,
            "WRONG_KEY": "sk-wrong",
            "MODELYARD_LEASE_S": "2",
        }
        some = stack.enter_context(workers(folder, store.url, catalog=CATALOG, env=env))
        some.start_router()
        for number, name in enumerate(POOLS, 1):
            some.start(name, model_command(*SHARED, process=number))
        client = stack.enter_context(some.client())
        yield Yard(some, client, some.fake, b, c)


class Limited:
    """Answers `limit` calls in any minute, and says 429 to all others."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.refused = 0
        self._times: deque[float] = deque()

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        now = time.monotonic()
        while self._times and self._times[0] <= now - 60.0:
            self._times.popleft()
        if len(self._times) >= self.limit:
            self.refused += 1
            wait_s = self._times[0] + 60.0 - now
            return Reply(status=429, headers={"retry-after": f"{wait_s:.1f}"})
        self._times.append(now)
        return Reply()


def flapping(period_s: float) -> Callable[[Mapping[str, Any]], Reply]:
    """Return what is well and down by turns."""

    def reply(body: Mapping[str, Any]) -> Reply:
        return Reply(status=503) if int(time.monotonic() / period_s) % 2 else Reply(delay_s=0.05)

    return reply


def test_calls_are_spread_over_what_is_slow_flaps_and_has_a_limit(yard: Yard) -> None:
    limited = Limited(LIMIT)
    yard.a.always("spread", Reply(delay_s=0.3))
    yard.b.always("spread", flapping(1.0))
    yard.c.always("spread", limited)

    answers = yard.results(yard.submit(400, "spread"))

    took = Counter(answer.attempts[-1].endpoint for answer in answers)
    assert sum(took.values()) == 400
    assert min(took["slow"], took["flapping"]) > 40
    assert 0 < took["limited"] <= LIMIT
    calls = sum(len(yard.calls(fake, "spread")) for fake in (yard.a, yard.b, yard.c))
    assert limited.refused <= 0.01 * calls
    assert calls <= 1.25 * 400  # the breaker keeps them from what is down


def test_the_backlog_of_a_model_that_is_down_goes_to_the_next(yard: Yard) -> None:
    """Those in front of it that can go nowhere else do not hold it up, and are not lost."""
    yard.a.always("down", Reply(status=503))
    stay = yard.submit(60, "down")
    go = yard.submit(200, "down", "fallback")

    answers = yard.results(go)

    assert Counter(answer.model for answer in answers) == {"fallback": 200}
    assert len(yard.calls(yard.a, "down")) < 100
    assert not any(handle.done() for handle in stay)
    yard.a.always("down", Reply())
    assert {answer.model for answer in yard.results(stay)} == {"down"}


def test_a_wrong_key_at_one_endpoint_costs_one_call_of_each_worker(yard: Yard) -> None:
    answers = yard.results(yard.submit(100, "keyed"))

    assert {answer.attempts[-1].endpoint for answer in answers} == {"good"}
    alerts = [yard.workers.log(name).count("keyed at bad denies our calls") for name in POOLS]
    assert set(alerts) <= {0, 1} and sum(alerts) >= 1
    denied = [each for answer in answers for each in answer.attempts if each.kind == "denied"]
    assert len(denied) <= 20  # those that were on their way when the first was denied


def test_a_session_stays_at_its_endpoint(yard: Yard) -> None:
    handles = [
        yard.client.submit("hello", models=["sticky"], metadata={"session": f"s{number % 12}"})
        for number in range(60)
    ]
    places: dict[int, set[str]] = {}
    for number, answer in enumerate(yard.results(handles)):
        places.setdefault(number % 12, set()).add(answer.attempts[-1].endpoint)
    assert all(len(where) == 1 for where in places.values())
    assert len(set.union(*places.values())) > 1


def test_a_batch_at_its_limit_does_not_hold_up_the_interactive_lane(yard: Yard) -> None:
    batch = yard.submit(120, "lanes", lane="batch")
    eventually(lambda: len(yard.calls(yard.a, "lanes")) >= 3)

    yard.results(yard.submit(5, "lanes"))

    assert sum(handle.done() for handle in batch) < 60
    # What waits for its limit, in the queue or in a worker, can be cancelled.
    for handle in batch:
        handle.cancel()
    with redis.Redis.from_url(yard.workers.broker_url) as store:
        eventually(lambda: not store.llen(model_queue("lanes", batch=True)))
    called = len(yard.calls(yard.a, "lanes"))
    assert called < 100
    yard.results(yard.submit(2, "lanes"))
    assert len(yard.calls(yard.a, "lanes")) == called + 2


def test_calls_that_wait_for_a_long_limit_wait_in_the_queue(yard: Yard) -> None:
    yard.a.script("held", [Reply(status=429, headers={"retry-after": "7"})])
    (first,) = yard.submit(1, "held")
    eventually(lambda: yard.calls(yard.a, "held") == [429])
    # Both workers hear of it.
    with redis.Redis.from_url(yard.workers.broker_url) as store:
        eventually(lambda: b"until" in b"".join(store.hvals("modelyard:endpoints:held")))
        eventually(lambda: store.llen(model_queue("held")) == 1)
        handles = yard.submit(80, "held")
        eventually(lambda: store.llen(model_queue("held")) == 81)

    answers = yard.results(handles)

    assert [each.kind for each in first.result(60).attempts] == ["limited", None]
    spent = [answer for answer in answers if len(answer.attempts) != 1]
    assert not spent, [answer.attempts for answer in spent]
    assert yard.calls(yard.a, "held").count(429) == 1


def test_the_calls_in_flight_of_a_killed_worker_are_free_again(yard: Yard) -> None:
    gate = Gate()
    yard.a.always("killed", Reply(gate=gate))
    first = yard.workers.start("killed-1", model_command("killed", process=1))
    handles = yard.submit(6, "killed")
    eventually(lambda: yard.a.in_flight == 2)
    yard.workers.start("killed-2", model_command("killed", process=2))

    first.send_signal(signal.SIGKILL)
    first.wait()
    eventually(lambda: yard.a.in_flight == 0)
    eventually(lambda: yard.a.in_flight == 2, timeout_s=40)
    assert yard.a.max_in_flight >= 2
    gate.open()

    assert len(yard.results(handles)) == 6
    yard.workers.processes.pop("killed-1")


def test_a_shutdown_hands_back_what_waits_for_a_limit(yard: Yard) -> None:
    """And who takes it next has it all, with nothing called twice."""
    opens = time.monotonic() + 12.0

    def limited(body: Mapping[str, Any]) -> Reply:
        left_s = opens - time.monotonic()
        return (
            Reply(status=429, headers={"retry-after": f"{left_s:.1f}"}) if left_s > 0 else Reply()
        )

    yard.a.always("held", limited)
    handles = yard.submit(1, "held")
    with redis.Redis.from_url(yard.workers.broker_url) as store:
        eventually(lambda: store.llen(model_queue("held")) == 1)
        handles += yard.submit(29, "held")
        eventually(lambda: store.llen(model_queue("held")) == 30)
        stops = [
            threading.Thread(target=yard.workers.stop, args=(name, signal.SIGTERM))
            for name in POOLS
        ]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()
        done = sum(handle.done() for handle in handles)
        assert store.llen(model_queue("held")) + done == 30
        for number, name in enumerate(POOLS, 1):
            yard.workers.start(name, model_command("held", process=number))

    answers = yard.results(handles)

    answered = [[each for each in answer.attempts if each.kind is None] for answer in answers]
    assert [len(each) for each in answered] == [1] * 30
    # What was called before a worker heard of the limit: no more than it can hold at a time.
    assert sum(len(answer.attempts) for answer in answers) <= 30 + 4 * 10
    ids = {handle.id for handle in handles}
    calls = Counter(call.request_id for call in yard.a.calls if call.status == 200)
    assert {id: calls[id] for id in ids} == dict.fromkeys(ids, 1)
