"""What waits for people: nobody else gets it, it has one outcome, and nothing of it is lost."""

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from inbox_requests import MEMBER, PROMPT, SHADOW, call, escalated, send
from waiting import eventually
from workers import CATALOG, Workers, workers

from modelyard import RequestFailed, RequestRevoked
from modelyard.claims import DONE, Back, Claims, JoinPoint, Spread, Want, settle
from modelyard.dead_letters import DeadLetters
from modelyard.decision_ledger import Kind, read
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.endings import cancelled
from modelyard.errors import InvalidRequest
from modelyard.inbox import CLAIM, PAGE, Inbox, NotWaiting
from modelyard.leases import Leases
from modelyard.ledger import Ledger
from modelyard.messages import DeadReason, Request
from modelyard.names import (
    CANCELLED_KEY,
    CLAIMS_KEY,
    JOIN_KEY_PREFIX,
    LEASES_KEY,
    RESULT_KEY_PREFIX,
    session_key,
)
from modelyard.outcome import read_outcome
from modelyard.settings import Settings
from modelyard.testing import Reply
from producer.commands import model_command
from router_worker.sweep import Sweeper

SETTINGS = Settings()
PEOPLE = ("support", "legal@v2")


@pytest.fixture
def inbox(store: redis.Redis) -> Inbox:
    return Inbox(store, PEOPLE, SETTINGS)


def outcome(store: redis.Redis, id: str) -> Any:
    raw = store.get(RESULT_KEY_PREFIX + id)
    return None if raw is None else read_outcome(raw, id)


def nothing_is_left(store: redis.Redis) -> bool:
    """No message waits for people, and nobody has one in hand."""
    return not any(map(store.exists, ("model.support", CLAIMS_KEY, LEASES_KEY)))


def test_what_waits_is_listed_urgent_first_and_oldest_first(
    store: redis.Redis, inbox: Inbox
) -> None:
    send(store, "b1", batch=True)
    for number in range(120):
        send(store, f"i{number:03}")
    send(store, "l1", model="legal@v2")

    assert inbox.counts() == {"support": 121, "legal@v2": 1}
    ids = [item.id for item in inbox.waiting()]
    assert ids == [*(f"i{number:03}" for number in range(120)), "l1", "b1"]
    assert [item.id for item in inbox.waiting(2)] == ["i000", "i001"]
    assert inbox.find("l1").model == "legal@v2"
    assert inbox.find("b1").state(time.time()) == "waiting"


def test_an_answer_of_a_person_is_the_answer(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "other")
    send(store, "a", call(metadata={"tenant": "t"}))

    assert inbox.answer("a", "In Hamburg.", "ada").model == "support"

    answer = outcome(store, "a")
    assert (answer.text, answer.model, answer.provider_model) == ("In Hamburg.", "support", "ada")
    assert [(attempt.model, attempt.endpoint) for attempt in answer.attempts] == [
        ("support", "inbox")
    ]
    assert 60_000 <= answer.timings.total_ms < 90_000
    assert answer.timings.queued_ms > 50_000
    assert [item.id for item in inbox.waiting()] == ["other"]
    assert not store.exists(CLAIMS_KEY, LEASES_KEY)
    (entry,) = read(store)
    assert (entry.id, entry.model, entry.outcome, entry.kind) == (
        *("a", "support", "answered"),
        Kind.REQUEST,
    )


def test_what_models_answered_before_is_told_and_counted(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "a", escalated(metadata={"session": "s", "tenant": "t"}))
    inbox.answer("a", "In Hamburg.")

    answer = outcome(store, "a")
    assert answer.provider_model == "person"
    assert answer.cost_usd == 0.25
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 5)
    assert [draft.model for draft in answer.drafts] == ["small"]
    assert [attempt.model for attempt in answer.attempts] == ["small", "support"]
    assert store.get(session_key("t", "s")) == b"support"


def test_what_is_declined_is_a_dead_letter_that_says_why(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "a", escalated())
    inbox.decline("a", "no such parcel", "ada")

    entry = DeadLetters(store).get("a")
    assert entry is not None
    assert entry.letter is not None
    assert entry.letter.reason is DeadReason.REFUSED
    assert entry.letter.message == "support: declined by ada: no such parcel"
    assert [attempt.model for attempt in entry.letter.attempts] == ["small", "support"]
    assert isinstance(outcome(store, "a"), RequestFailed)
    assert nothing_is_left(store)


def test_a_second_answer_is_told_that_there_is_one(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "a")
    inbox.answer("a", "first", "ada")
    with pytest.raises(NotWaiting, match=r"was answered already, by support \(ada\)"):
        inbox.answer("a", "second")
    with pytest.raises(NotWaiting, match="was answered already"):
        inbox.decline("a", "no")
    assert outcome(store, "a").text == "first"


def test_of_many_who_answer_at_once_one_is_heard(redis_url: str, store: redis.Redis) -> None:
    send(store, "a")

    def answer(number: int) -> bool:
        with redis.Redis.from_url(redis_url) as own:
            try:
                Inbox(own, PEOPLE, SETTINGS).answer("a", f"answer {number}", f"p{number}")
            except NotWaiting:
                return False
            return True

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(answer, range(8)))
    assert won.count(True) == 1
    assert outcome(store, "a").text == f"answer {won.index(True)}"
    assert nothing_is_left(store)
    assert store.hget("modelyard:counters", "duplicates") is None


def test_what_expired_can_t_be_answered_and_its_client_is_told(
    store: redis.Redis, inbox: Inbox
) -> None:
    send(store, "a", call(deadline=time.time() - 1))
    assert inbox.find("a").state(time.time()) == "expired"
    with pytest.raises(NotWaiting, match="has expired"):
        inbox.answer("a", "too late")
    assert outcome(store, "a").reason == "expired"
    assert nothing_is_left(store)


def test_a_sweep_ends_what_nobody_can_answer_and_leaves_what_waits(
    store: redis.Redis, inbox: Inbox
) -> None:
    send(store, "late", call(deadline=time.time() - 1))
    send(store, "waits", call(deadline=time.time() + 600))
    send(store, "gone")
    assert settle(store, [cancelled("gone", claim="", ttl_s=60, channel="", now=time.time())])
    store.rpush("model.support", "garbage")

    swept = list(inbox.sweep())

    assert len(swept) == 3
    assert "request late has expired: it is a dead letter now" in swept
    assert outcome(store, "late").reason == "expired"
    assert isinstance(outcome(store, "gone"), RequestRevoked)
    assert [item.id for item in inbox.waiting()] == ["waits"]
    assert not store.exists(CLAIMS_KEY)
    assert list(inbox.sweep()) == []


def test_a_sweep_reads_page_by_page_and_passes_nothing_over(
    store: redis.Redis, inbox: Inbox
) -> None:
    """What waits may be more than there is memory for."""
    for number in range(2 * PAGE + 7):
        wait_s = 600 if number % 3 == 0 else -1
        send(store, f"i{number:03}", call(deadline=time.time() + wait_s))
    numbers = range(2 * PAGE + 7)

    sweep = inbox.sweep()
    store.lset("model.support", 0, "read only when its page is")
    assert next(sweep) == "request i001 has expired: it is a dead letter now"
    store.lpop("model.support")

    assert len(list(sweep)) == sum(number % 3 != 0 for number in numbers[:-1]) - 1
    left = [item.id for item in inbox.waiting()]
    assert left == [f"i{number:03}" for number in numbers[:-1] if number % 3 == 0]


def test_a_sweep_tells_what_came_first(
    store: redis.Redis, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store, "late", call(deadline=time.time() - 1))

    def cancelled_meanwhile(*args: Any) -> Any:
        end = cancelled("late", claim="", ttl_s=60, channel="", now=time.time())
        assert settle(store, [end]) == [DONE]
        return CLAIM(*args)

    monkeypatch.setattr("modelyard.inbox.CLAIM", cancelled_meanwhile)
    assert list(inbox.sweep()) == ["request late was cancelled: nobody waits for an answer"]
    assert DeadLetters(store).count() == 0
    assert nothing_is_left(store)


class Troubled(redis.Redis):
    """It fails at first, after a while."""

    trouble: Exception | None = None

    def lrange(self, *args: Any) -> Any:
        if self.trouble is not None:
            trouble, self.trouble = self.trouble, None
            time.sleep(0.5)
            raise trouble
        return super().lrange(*args)


@pytest.mark.parametrize("trouble", [redis.TimeoutError("silent"), ValueError("odd")])
def test_sweeping_goes_on_soon_after_an_error(
    store: redis.Redis, redis_url: str, trouble: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """However long Redis was silent: that is no reason to leave it alone."""
    send(store, "late", call(deadline=time.time() - 1))
    client = Troubled(connection_pool=redis.ConnectionPool.from_url(redis_url))
    client.trouble = trouble
    sweeper = Sweeper(("support",), lambda: client, SETTINGS, every_s=0.05)
    sweeper.start()
    try:
        eventually(lambda: outcome(store, "late"), timeout_s=5)
    finally:
        sweeper.stop()
    assert "the sweep of people failed" in caplog.text


def test_a_sweep_leaves_alone_what_somebody_just_takes(
    store: redis.Redis, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store, "late", call(deadline=time.time() - 1))
    monkeypatch.setattr("modelyard.inbox.CLAIM", lambda *_: 0)
    assert list(inbox.sweep()) == []
    assert outcome(store, "late") is None


def test_what_was_cancelled_can_t_be_answered(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "a")
    end = cancelled("a", claim="", ttl_s=60, channel="", now=time.time())
    assert settle(store, [end]) == [DONE]
    store.zadd(CANCELLED_KEY, {"a": time.time() + 60})

    assert inbox.find("a").state(time.time()) == "cancelled"
    with pytest.raises(NotWaiting, match="was cancelled"):
        inbox.answer("a", "an answer")
    assert isinstance(outcome(store, "a"), RequestRevoked)
    assert nothing_is_left(store)


def test_who_declines_what_was_put_back_meanwhile_is_told(
    store: redis.Redis, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store, "a")

    def put_back_at_once(client: Any, keys: Any, args: Any) -> Any:
        said = CLAIM(client, keys, args)
        (taken,) = Claims(store, now_ms=lambda: 10**15).take_over()
        assert settle(store, [Back(taken.claim, taken.queue, taken.message)]) == [DONE]
        return said

    with monkeypatch.context() as patch:
        patch.setattr("modelyard.inbox.CLAIM", put_back_at_once)
        with pytest.raises(NotWaiting, match="waits again"):
            inbox.decline("a", "not mine")
    assert outcome(store, "a") is None
    assert inbox.find("a").state(time.time()) == "waiting"


def test_a_cancel_at_the_last_moment_is_told(
    store: redis.Redis, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store, "a")

    def claim_and_cancel(*args: Any) -> Any:
        said = CLAIM(*args)
        settle(store, [cancelled("a", claim="", ttl_s=60, channel="", now=time.time())])
        return said

    monkeypatch.setattr("modelyard.inbox.CLAIM", claim_and_cancel)
    with pytest.raises(NotWaiting, match="was cancelled"):
        inbox.answer("a", "an answer")
    assert nothing_is_left(store)


def test_who_dies_while_answering_leaves_a_request_that_waits_again(
    store: redis.Redis, inbox: Inbox
) -> None:
    queue = send(store, "a")
    item = inbox.find("a")
    keys, arguments = [queue, CLAIMS_KEY, LEASES_KEY], [1, 1000, "inbox:dead", item.message]
    assert CLAIM(store, keys, arguments) == 1
    assert CLAIM(store, keys, arguments) == 1  # the reply to the first was lost
    assert CLAIM(store, keys, [1, 1000, "inbox:other", item.message]) == 0
    with pytest.raises(NotWaiting, match="is not in the inbox"):
        inbox.find("a")

    # A worker of some other queue, as its leases' thread does.
    Leases(Claims(store, lease_s=1), Ledger(), 1).take_over()

    assert store.llen(queue) == 1
    inbox.answer("a", "In Hamburg.")
    assert outcome(store, "a").text == "In Hamburg."
    assert nothing_is_left(store)


def test_a_message_that_is_none_can_be_seen_and_ended(store: redis.Redis, inbox: Inbox) -> None:
    store.lpush("model.support", b"{not JSON")
    queue = send(store, "a")
    broken = json.loads(store.lindex(queue, 0) or b"")
    broken["headers"]["id"] = "b"
    broken["body"] = '[["no call"],{},{}]'
    store.lpush(queue, json.dumps(broken))

    states = {item.id: item.state(time.time()) for item in inbox.waiting()}
    assert states == {"": "unreadable", "a": "waiting", "b": "unreadable"}
    with pytest.raises(NotWaiting, match="can't be read"):
        inbox.answer("b", "an answer")
    assert outcome(store, "b").reason == "invalid"
    assert [item.id for item in inbox.waiting()] == ["", "a"]


def test_a_message_whose_origin_is_no_text_for_redis_holds_nobody_up(
    store: redis.Redis, inbox: Inbox
) -> None:
    odd = json.loads(store.lindex(send(store, "odd"), 0) or b"")
    arguments = json.loads(odd["body"])
    arguments[0][0]["origin"] = "\ud800"
    store.lset("model.support", 0, json.dumps({**odd, "body": json.dumps(arguments)}))
    send(store, "a")
    assert [item.id for item in inbox.waiting()] == ["odd", "a"]
    assert list(inbox.sweep()) == ["request odd can't be read: it is a dead letter now"]


def test_one_of_an_ensemble_may_be_a_person(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "r:0")
    claims = Claims(store)
    ((claimed,), _) = claims.claim([Want("model.support", 1, 1)], 1)
    point = JoinPoint("r", 2, 2, 60_000, "model.small", "joined")
    assert claims.settle([Spread(claimed.claim, (), point)]) == [DONE]
    for number in (1, 2):
        waits = call(part=MEMBER, origin="r")
        send(store, f"r:{number}", waits, parent_id="r")

    inbox.answer("r:1", "In Hamburg.", "ada")
    assert store.hget(f"{JOIN_KEY_PREFIX}r", "answered") == b"1"
    assert not store.exists("model.small")
    inbox.decline("r:2", "I don't know")

    assert store.lrange("model.small", 0, -1) == [b"joined"]
    member = json.loads(store.hget(f"{JOIN_KEY_PREFIX}r", "m1") or b"")
    assert (member["draft"]["text"], member["draft"]["provider_model"]) == ("In Hamburg.", "ada")
    assert json.loads(store.hget(f"{JOIN_KEY_PREFIX}r", "m2") or b"")["reason"] == "refused"
    assert outcome(store, "r") is None
    assert nothing_is_left(store)


def test_a_shadow_s_answer_is_only_recorded(store: redis.Redis, inbox: Inbox) -> None:
    send(store, "r:shadow", call(part=SHADOW, origin="r"), parent_id="r")
    inbox.answer("r:shadow", "In Hamburg.")
    (entry,) = read(store)
    assert (entry.kind, entry.id) == (Kind.SHADOW, "r")
    assert outcome(store, "r:shadow") is None
    assert nothing_is_left(store)


@pytest.mark.parametrize(("text", "by"), [(" \n", "ada"), ("yes", ""), ("\ud800", "ada")])
def test_what_says_nothing_is_no_answer(
    store: redis.Redis, inbox: Inbox, text: str, by: str
) -> None:
    send(store, "a")
    with pytest.raises(InvalidRequest):
        inbox.answer("a", text, by)
    assert [item.id for item in inbox.waiting()] == ["a"]


# Through real processes

PEOPLE_CATALOG = CATALOG.replace(
    "routes:",
    """  - name: support
    provider: people
  - name: small@v2
    provider: openai
    endpoints: [{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]
routes:
  careful:
    otherwise:
      models: [small, support]
      strategy: cascade
      accept: {expression: 'not contains(text, "not sure")'}""",
)


@pytest.fixture(scope="module")
def yard(
    redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workers]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as own:
        folder = tmp_path_factory.mktemp("yard")
        with workers(folder, own.url, catalog=PEOPLE_CATALOG) as yard:
            yard.start_router()
            yield yard


def test_a_client_waits_until_a_person_answers(yard: Workers) -> None:
    with yard.client() as client, redis.Redis.from_url(yard.broker_url) as store:
        handle = client.submit(PROMPT, models=["support"])
        inbox = Inbox(store, ["support"], SETTINGS)
        eventually(inbox.waiting, message="it waits for a person")
        with ThreadPoolExecutor() as threads:
            waiting = threads.submit(handle.result, 60)
            eventually(lambda: client._waiter.connected)
            inbox.answer(handle.id, "In Hamburg.", "ada")
            answer = waiting.result(60)
    assert (answer.text, answer.provider_model) == ("In Hamburg.", "ada")
    assert answer.decision.plan.strategy == "handoff"


def test_a_client_is_told_when_its_deadline_passes_and_nobody_answered(yard: Workers) -> None:
    with yard.client() as client:
        request = Request.of(PROMPT, models=("support",), deadline=time.time() + 1.5)
        with pytest.raises(RequestFailed) as told:
            client.submit(request).result(60)
    assert told.value.reason == "expired"


def test_a_client_is_told_that_nobody_answers(yard: Workers) -> None:
    with yard.client() as client, redis.Redis.from_url(yard.broker_url) as store:
        handle = client.submit(PROMPT, models=["support"])
        inbox = Inbox(store, ["support"], SETTINGS)
        eventually(inbox.waiting, message="it waits for a person")
        inbox.decline(handle.id, "no such parcel")
        with pytest.raises(RequestFailed, match="no such parcel") as caught:
            handle.result(60)
    assert caught.value.reason == "refused"


def test_what_a_model_does_not_do_well_goes_to_people(yard: Workers) -> None:
    yard.fake.always("provider-small", Reply(text="I am not sure."))
    yard.start_pool("small")
    with yard.client() as client, redis.Redis.from_url(yard.broker_url) as store:
        handle = client.submit(PROMPT, route="careful", metadata={"session": "s"})
        inbox = Inbox(store, ["support"], SETTINGS)
        eventually(inbox.waiting, message="it waits for a person")
        (draft,) = inbox.find(handle.id).call.drafts  # type: ignore[union-attr]
        assert (draft.text, draft.model) == ("I am not sure.", "small")
        assert "not contains" in draft.verdict
        inbox.answer(handle.id, "In Hamburg.", "ada")
        answer = handle.result(60)
    assert (answer.text, answer.model) == ("In Hamburg.", "support")
    assert [each.model for each in answer.drafts] == ["small"]
    assert answer.cost_usd == draft.cost_usd > 0
    assert yard.stop("small") == 0


def refusal(command: list[str], env: dict[str, str]) -> str:
    """What a worker says that does not start."""
    done = subprocess.run(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    return done.stdout


def test_a_worker_refuses_to_serve_people(yard: Workers) -> None:
    said = refusal(model_command("small", "support"), yard.env)
    assert "model_workers: support: provider people has no worker" in said


def test_a_worker_refuses_a_model_whose_key_it_does_not_have(yard: Workers) -> None:
    """It would take messages from the workers that have it, and could only refuse them."""
    said = refusal(model_command("small@v2"), {**yard.env, "FAKE_KEY": ""})
    assert "model_workers: can't be called here: small@v2 (FAKE_KEY is not set)" in said


def test_a_worker_that_would_have_no_queue_does_not_start(yard: Workers, tmp_path: Path) -> None:
    # Celery would have it consume `requests`, which is the router's.
    path = tmp_path / "catalog.yaml"
    path.write_text(
        "models: [{name: support, provider: people}]\nroutes: {default: {otherwise: [support]}}\n"
    )
    env = {**yard.env, "MODELYARD_CATALOG": str(path)}
    command = model_command("support")
    without_queue = [*command[: command.index("-Q")], *command[command.index("-Q") + 2 :]]
    assert "no model of the catalog can be called here" in refusal(without_queue, env)


def test_a_model_may_have_a_version(yard: Workers) -> None:
    yard.start("small-v2", model_command("small@v2"))
    with yard.client() as client:
        answer = client.submit("hello", models=["small@v2"]).result(60)
    assert answer.model == "small@v2"
    assert "small=v2@" in yard.log("small-v2")
    assert yard.stop("small-v2") == 0
