"""Answers that were given before, through real processes."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from model_workers.answer_cache.entry import Entry, Kept
from model_workers.answer_cache.prompts import Group
from model_workers.answer_cache.store import Store, open_cache
from modelyard import Client, ModelyardError, RequestFailed
from modelyard.client import Handle
from modelyard.messages import Answer, Draft, Request, Usage
from modelyard.names import CACHED_KEY_PREFIX, CACHED_PROMPTS_KEY_PREFIX, DECISIONS_KEY
from modelyard.testing import Gate, Reply
from producer.commands import model_command

LEASE_S = 1.0
USAGE = Usage(input_tokens=10, output_tokens=5)
CALL_USD = 15e-6
"""What one call of `small` costs; `judge` is as dear."""

MODELS = ("small", "large", "judge")
CATALOG = (
    fake_models(*(fake_model(name, usd=1, concurrency=60, timeout_s=60) for name in MODELS))
    + """
routes:
  default: {answer_cache: {ttl_s: 600}, otherwise: [small]}
  off: {otherwise: [small]}
  short: {answer_cache: {ttl_s: 1}, otherwise: [small]}
  similar:
    answer_cache: {ttl_s: 600, similar: 0.95}
    embeddings: "cached_embeddings:letters"
    otherwise: [small]
  judged: {answer_cache: {ttl_s: 600}, otherwise: {models: [small, large], strategy: cascade,
    accept: {judge: judge, judge_floor: 0.7}}}
  vote: {answer_cache: {ttl_s: 600}, otherwise: {models: [small, large], strategy: ensemble}}
  redacted: {answer_cache: {ttl_s: 600}, after: [redact], otherwise: [small]}
"""
)


@contextmanager
def cache_yard(folder: Path, *pools: str) -> Iterator[Workers]:
    """Give a yard with a router and these pools of all models."""
    with own_yard(folder, catalog=CATALOG, env={"MODELYARD_LEASE_S": str(LEASE_S)}) as yard:
        yard.start_router()
        for pool in pools:
            start_pool(yard, pool)
        yield yard


def start_pool(yard: Workers, name: str) -> None:
    process = ("one", "two").index(name)
    yard.start(name, model_command(*MODELS, process=process))


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with cache_yard(tmp_path_factory.mktemp("yard"), "one", "two") as yard:
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    with redis.Redis.from_url(module_yard.broker_url) as store:
        for prefix in (CACHED_KEY_PREFIX, CACHED_PROMPTS_KEY_PREFIX):
            for key in store.scan_iter(f"{prefix}*"):
                store.delete(key)
        store.delete(DECISIONS_KEY)
    module_yard.fake.reset()
    module_yard.fake.always("small", Reply(text="Paris.", usage=USAGE))
    return module_yard


def ask(client: Client, text: str = "Capital of France?", **fields: Any) -> Answer:
    return client.submit(Request.of(text, **fields)).result(timeout_s=60)


def failure(handle: Handle) -> ModelyardError | None:
    """Return why there is no answer; None if there is one."""
    try:
        handle.result(timeout_s=60)
    except ModelyardError as error:
        return error
    return None


def called(yard: Workers) -> list[str]:
    return [call.model for call in yard.fake.calls]


def entries(yard: Workers) -> list[dict[str, Any]]:
    with redis.Redis.from_url(yard.broker_url) as store:
        rows: Any = store.xrange(DECISIONS_KEY)
    return [json.loads(fields[b"e"]) for _, fields in rows]


def test_a_hundred_at_once_over_two_processes_are_one_call(yard: Workers, client: Client) -> None:
    gate = Gate()
    yard.fake.script("small", [Reply(text="Paris.", usage=USAGE, gate=gate)])
    handles = client.submit_many(["Capital of France?"] * 100)
    logs = [len(yard.log(name)) for name in ("one", "two")]
    with redis.Redis.from_url(yard.broker_url) as store:
        # All are in the workers' hands before there is an answer.
        eventually(lambda: store.hlen("modelyard:claims") == 100)
    gate.open()
    answers = [handle.result(timeout_s=60) for handle in handles]

    assert called(yard) == ["small"]
    assert {answer.text for answer in answers} == {"Paris."}
    (paid,) = [answer for answer in answers if answer.cached is None]
    assert len(paid.attempts) == 1
    assert paid.cost_usd == pytest.approx(CALL_USD)
    for hit in answers:
        if hit is not paid:
            assert hit.cached is not None
            assert (hit.cached.of, hit.cached.usage) == (paid.id, USAGE)
            assert hit.cached.saved_usd == pytest.approx(CALL_USD)
            assert (hit.attempts, hit.cost_usd, hit.usage) == ((), 0.0, Usage())
    for name, seen in zip(("one", "two"), logs, strict=True):
        assert f"answered request {paid.id} so" in yard.log(name)[seen:]


def test_the_ledger_tells_of_hits(yard: Workers, client: Client) -> None:
    first, second = ask(client), ask(client)
    eventually(lambda: len(entries(yard)) == 2)
    paid, hit = entries(yard)
    assert "cached" not in paid
    assert (hit["id"], hit["cached"], hit["cost_usd"]) == (second.id, first.id, 0.0)
    assert hit["saved_usd"] == pytest.approx(CALL_USD)
    assert hit["calls"] == {}


def test_one_tenant_never_gets_anothers_answer(yard: Workers, client: Client) -> None:
    yard.fake.script("small", [Reply(text="for acme"), Reply(text="for bolt"), Reply(text="all")])
    tenants: tuple[dict[str, str], ...] = ({"tenant": "acme"}, {"tenant": "bolt"}, {})
    for _ in range(2):
        texts = [ask(client, metadata=tenant).text for tenant in tenants]
        assert texts == ["for acme", "for bolt", "all"]
    assert len(called(yard)) == 3


def test_a_route_without_a_cache_calls_each_time(yard: Workers, client: Client) -> None:
    for _ in range(2):
        assert ask(client, route="off").cached is None
    assert len(called(yard)) == 2


def test_no_store_is_neither_read_nor_written(yard: Workers, client: Client) -> None:
    assert ask(client, no_store=True).cached is None
    assert ask(client).cached is None
    assert ask(client, no_store=True).cached is None
    assert len(called(yard)) == 3


def test_an_answer_is_forgotten_after_its_time(yard: Workers, client: Client) -> None:
    first = ask(client, route="short")
    with redis.Redis.from_url(yard.broker_url) as store:
        eventually(lambda: not list(store.scan_iter(f"{CACHED_KEY_PREFIX}*")))
    second = ask(client, route="short")
    assert (first.cached, second.cached) == (None, None)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_half_an_answer_is_not_kept(yard: Workers, client: Client, reason: str) -> None:
    yard.fake.script("small", [Reply(text="Par", finish_reason=reason)])
    assert ask(client).text == "Par"
    assert ask(client).text == "Paris."


def test_who_can_t_be_answered_hands_on_to_who_waits(yard: Workers, client: Client) -> None:
    gate = Gate()
    yard.fake.script("small", [Reply(status=400, gate=gate, message="not like this")])
    handles = client.submit_many(["Capital of France?"] * 10)
    with redis.Redis.from_url(yard.broker_url) as store:
        eventually(lambda: store.hlen("modelyard:claims") == 10)
    gate.open()
    outcomes = [failure(handle) for handle in handles]
    assert sum(outcome is not None for outcome in outcomes) == 1
    assert len(called(yard)) == 2


def test_who_waits_keeps_to_its_deadline_and_can_be_cancelled(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.script("small", [Reply(text="Paris.", gate=gate)])
    first = client.submit("Capital of France?")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1, 30)
    late = client.submit("Capital of France?", deadline_s=1.0)
    gone = client.submit("Capital of France?")
    with redis.Redis.from_url(yard.broker_url) as store:
        eventually(lambda: store.hlen("modelyard:claims") >= 2)
        expired = failure(late)
        assert isinstance(expired, RequestFailed)
        assert expired.reason == "expired"
        assert gone.cancel()
        # Only who calls is left in a worker's hands.
        eventually(lambda: store.hlen("modelyard:claims") == 1)
    gate.open()
    assert first.result(timeout_s=60).text == "Paris."
    assert called(yard) == ["small"]


def test_what_was_accepted_is_not_judged_again(yard: Workers, client: Client) -> None:
    yard.fake.always("judge", Reply(text="9", usage=USAGE))
    gate = Gate()
    yard.fake.script("judge", [Reply(text="9", usage=USAGE, gate=gate)])
    handles = client.submit_many(["Capital of France?"] * 10, route="judged")
    yard.fake.wait_until(lambda fake: "small" in called(yard) and fake.in_flight == 1, 30)
    gate.open()
    answers = [handle.result(timeout_s=60) for handle in handles]
    assert called(yard) == ["small", "judge"]
    saved = [answer.cached.saved_usd for answer in answers if answer.cached]
    assert saved == pytest.approx([2 * CALL_USD] * 9)


def test_what_was_turned_down_is_not_kept(yard: Workers, client: Client) -> None:
    yard.fake.always("judge", Reply(text="1"))
    yard.fake.always("large", Reply(text="Paris, in France."))
    first, second = ask(client, route="judged"), ask(client, route="judged")
    assert called(yard) == ["small", "judge", "large", "small", "judge"]
    assert first.text == second.text == "Paris, in France."
    # What was paid for on the way is in its cost all the same.
    assert second.cached is not None
    assert second.cost_usd > 0
    assert [draft.model for draft in second.drafts] == ["small"]


def test_members_of_an_ensemble_are_found(yard: Workers, client: Client) -> None:
    yard.fake.always("large", Reply(text="Paris.", usage=USAGE))
    ask(client, route="vote")
    again = ask(client, route="vote")
    assert sorted(called(yard)) == ["large", "small"]
    assert (again.text, again.cost_usd) == ("Paris.", 0.0)


def test_what_a_route_takes_out_of_an_answer_is_not_kept(yard: Workers, client: Client) -> None:
    yard.fake.script("small", [Reply(text="Write to ada@example.com.")])
    first, second = ask(client, route="redacted"), ask(client, route="redacted")
    assert first.text == second.text == "Write to [email]."
    assert second.cached is not None
    with redis.Redis.from_url(yard.broker_url) as store:
        kept = [store.get(key) or b"" for key in store.scan_iter(f"{CACHED_KEY_PREFIX}*")]
    assert kept
    assert not any(b"ada@" in each for each in kept)


def test_nearly_the_same_words_are_a_hit_that_says_so(yard: Workers, client: Client) -> None:
    first = ask(client, "Where is order 7 now?", route="similar")
    hit = ask(client, "Where is the order 7 now?", route="similar")
    assert hit.cached is not None
    assert hit.cached.of == first.id
    assert hit.cached.similarity is not None
    assert 0.95 <= hit.cached.similarity < 1
    for other in ("Where is order 8 now?", "Buzz off, 7 zebras!"):
        assert ask(client, other, route="similar").cached is None
    same = ask(client, "Where is order 7 now?", route="similar")
    assert same.cached is not None
    assert same.cached.similarity is None
    assert len(called(yard)) == 3


def test_a_killed_worker_s_place_is_taken(tmp_path: Path) -> None:
    gate = Gate()
    with cache_yard(tmp_path, "one") as yard, yard.client() as client:
        yard.fake.script("small", [Reply(text="Paris.", hang=True), Reply(text="Rome.", gate=gate)])
        handles = client.submit_many(["Capital of France?"] * 5)
        yard.fake.wait_until(lambda fake: fake.in_flight == 1, 30)
        start_pool(yard, "two")
        handles += client.submit_many(["Capital of France?"] * 5)
        yard.stop("one", signal.SIGKILL)
        yard.fake.wait_until(lambda fake: len(fake.calls) == 1 and fake.in_flight == 1, 30)
        gate.open()
        answers = [handle.result(timeout_s=60) for handle in handles]
        outcomes = [call.outcome for call in yard.fake.calls]
    assert {answer.text for answer in answers} == {"Rome."}
    assert sum(answer.cached is None for answer in answers) == 1
    assert outcomes == ["abandoned", "answered"]


# -- the store itself, on a real Redis

ENTRY = Entry("k", 60)
DRAFT = Draft(model="small", text="Paris.")


async def test_a_lease_is_one_request_s_until_it_is_given_back(redis_url: str) -> None:
    store = Store(lambda: open_cache(redis_url), lease_s=30.0)
    assert await store.take("k", "a") == "a"
    assert await store.take("k", "b") == "a"
    await store.let_go("k", "b")
    assert await store.take("k", "b") == "a"
    await store.let_go("k", "a")
    assert await store.take("k", "b") == "b"
    await store.put(ENTRY, "b", DRAFT)
    await store.let_go("k", "b")
    assert await store.take("k", "c") == Kept(of="b", draft=DRAFT)
    await store.aclose()


async def test_renewing_touches_only_what_is_ours(redis_url: str) -> None:
    store = Store(lambda: open_cache(redis_url), lease_s=30.0)
    with redis.Redis.from_url(redis_url) as client:
        await store.take("mine", "a")
        await store.take("theirs", "b")
        await store.put(ENTRY, "a", DRAFT)
        for key in ("mine", "theirs"):
            client.pexpire(CACHED_KEY_PREFIX + key, 10_000)
        await store.renew({"mine": "a", "theirs": "a", "k": "a", "gone": "a"})
        left = [client.pttl(CACHED_KEY_PREFIX + key) for key in ("mine", "theirs", "k", "gone")]
    assert 20_000 < left[0] <= 30_000
    assert left[1] <= 10_000
    assert left[2] > 50_000
    assert left[3] == -2
    await store.aclose()


async def test_a_redis_that_is_away_is_an_empty_cache_and_left_alone() -> None:
    made: list[int] = []
    now = [0.0]

    def connect() -> redis.Redis:
        made.append(1)
        raise redis.ConnectionError("nobody there")

    store = Store(connect, clock=lambda: now[0])
    assert await store.take("k", "a") is None
    await store.put(ENTRY, "a", DRAFT)
    assert await store.find("k") is None
    await store.renew({"k": "a"})
    group = Group()
    await store.read("g", group)
    assert (len(made), group.keys) == (1, [])
    now[0] = 5.0
    assert await store.take("k", "a") is None
    assert len(made) == 2
    await store.aclose()
