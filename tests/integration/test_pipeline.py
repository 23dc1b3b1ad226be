"""The path of a request through real processes: client, router, pools, result backend."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from waiting import eventually
from workers import KEY, Workers, whole_yard

from modelyard import AsyncClient, Client, Request, RequestFailed, ResultTimeout
from modelyard.messages import DeadLetter, Message
from modelyard.names import DEAD_LETTERS_KEY
from modelyard.testing import Gate, Reply


@pytest.fixture(scope="module")
def module_yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with whole_yard(tmp_path_factory.mktemp("yard")) as yard:
        yield yard


@pytest.fixture
def yard(module_yard: Workers) -> Workers:
    module_yard.calm("small", "large")
    return module_yard


def test_an_answer_says_where_it_came_from(yard: Workers, client: Client) -> None:
    yard.fake.always("provider-small", Reply(text="short", usage=None))

    answer = client.submit("Summarize: a long story", metadata={"tenant": "acme"}).result(30)

    assert answer.text == "short"
    assert (answer.model, answer.provider_model) == ("small", "provider-small")
    assert answer.decision.intent == "summarize"
    assert "keyword 'summarize'" in answer.decision.why
    assert answer.cost_usd == pytest.approx(
        (answer.usage.input_tokens + 2 * answer.usage.output_tokens) / 1e6
    )
    assert [attempt.model for attempt in answer.attempts] == ["small"]
    assert answer.timings.total_ms >= answer.timings.calling_ms > 0
    assert not answer.extractive


def test_rules_send_a_long_text_to_the_model_that_holds_it(client: Client) -> None:
    assert client.submit("word " * 3000).result(30).model == "large"


def test_a_conversation_and_its_parameters_reach_the_provider(
    yard: Workers, client: Client
) -> None:
    request = Request(
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="What is a yard?"),
        ),
        params={"temperature": 0.5, "max_tokens": 7},
        models=("large",),
    )

    answer = client.submit(request).result(30)

    assert answer.model == "large"
    assert answer.decision.intent == "pinned"
    assert len(yard.fake.calls) == 1


def test_a_failed_call_is_tried_again_and_then_fails_over(yard: Workers, client: Client) -> None:
    yard.fake.always("provider-small", Reply(status=500))

    answer = client.submit("hello").result(30)

    assert answer.model == "large"
    assert [(each.model, each.kind) for each in answer.attempts] == [
        ("small", "retryable"),
        ("small", "retryable"),
        ("large", None),
    ]


def test_a_retry_after_is_honoured(yard: Workers, client: Client) -> None:
    yard.fake.script("provider-small", [Reply(status=429, headers={"retry-after": "1"})])

    answer = client.submit("hello").result(30)

    first, second = answer.attempts
    assert (first.kind, first.retry_after_s, second.kind) == ("limited", 1.0, None)
    assert second.started_at >= first.started_at + 1.0


def test_a_wrong_key_is_not_tried_twice(yard: Workers, client: Client) -> None:
    yard.fake.always("provider-small", Reply(status=401))

    answer = client.submit("hello").result(30)

    assert [each.model for each in answer.attempts] == ["small", "large"]


def test_when_the_list_is_spent_the_request_is_a_dead_letter(yard: Workers, client: Client) -> None:
    yard.fake.always("*", Reply(status=503))
    handle = client.submit("hello", metadata={"tenant": "acme"})

    with pytest.raises(RequestFailed) as failed:
        handle.result(30)

    assert failed.value.id == handle.id
    assert failed.value.reason == "exhausted"
    assert [each["model"] for each in failed.value.attempts] == ["small"] * 2 + ["large"] * 2
    with redis.Redis.from_url(yard.broker_url) as store:
        raw = store.hget(DEAD_LETTERS_KEY, handle.id)
    letter = DeadLetter.model_validate_json(raw)
    assert letter.request["metadata"] == {"tenant": "acme"}
    assert letter.decision is not None
    assert len(letter.attempts) == 4


def test_what_no_model_can_take_is_refused_by_the_router_with_reasons(client: Client) -> None:
    with pytest.raises(RequestFailed, match=r"large: about .* do not fit") as failed:
        client.submit("word " * 300_000).result(30)
    assert failed.value.reason == "invalid"


def test_an_unknown_route_and_an_unknown_model_are_explained(client: Client) -> None:
    with pytest.raises(RequestFailed, match=r"unknown route 'defalt'.*did you mean 'default'"):
        client.submit("hello", route="defalt").result(30)
    with pytest.raises(RequestFailed, match=r"unknown model 'smal'.*did you mean 'small'"):
        client.submit("hello", models=["smal"]).result(30)


def test_an_expired_request_is_never_called(yard: Workers, client: Client) -> None:
    request = Request.of("hello", deadline=1.0)

    with pytest.raises(RequestFailed, match="deadline") as failed:
        client.submit(request).result(30)

    assert failed.value.reason == "expired"
    assert yard.fake.calls == ()


def test_a_plain_celery_program_submits_and_reads(yard: Workers) -> None:
    plain = Celery(broker=yard.broker_url, backend=yard.broker_url, set_as_current=False)
    with plain:
        submitted = plain.send_task("modelyard.route", args=[{"text": "hi"}], queue="requests")
        answer = submitted.get(timeout=30)

    assert answer["model"] == "small"
    assert answer["id"] == submitted.id


def test_a_plain_celery_program_reads_what_our_client_submitted(
    yard: Workers, client: Client
) -> None:
    yard.fake.script("provider-small", [Reply(text="for all to read")])
    handle = client.submit("hello")
    plain = Celery(broker=yard.broker_url, backend=yard.broker_url, set_as_current=False)
    with plain:
        assert plain.AsyncResult(handle.id).get(timeout=30)["text"] == "for all to read"

    yard.fake.always("*", Reply(status=400, code="invalid_request_error"))
    handle = client.submit("hello")
    with plain, pytest.raises(Exception, match=handle.id):
        plain.AsyncResult(handle.id).get(timeout=30)


def test_a_delayed_message_of_a_plain_celery_program_is_routed_too(yard: Workers) -> None:
    plain = Celery(broker=yard.broker_url, backend=yard.broker_url, set_as_current=False)
    with plain:
        submitted = plain.send_task(
            "modelyard.route", args=[{"text": "hi"}], queue="requests", countdown=0.2
        )
        assert submitted.get(timeout=30)["model"] == "small"


@pytest.mark.parametrize(
    "payload", [{"text": ""}, {"tex": "hi"}, {"text": 7}, [], "hello", {"text": "a", "x": 1}, None]
)
def test_a_malformed_request_is_a_dead_letter_and_not_a_crash(
    yard: Workers, payload: object
) -> None:
    plain = Celery(broker=yard.broker_url, backend=yard.broker_url, set_as_current=False)
    with plain:
        submitted = plain.send_task("modelyard.route", args=[payload], queue="requests")
        with pytest.raises(Exception, match="invalid"):
            submitted.get(timeout=30)


def test_a_pickled_message_is_not_read(yard: Workers, client: Client) -> None:
    plain = Celery(broker=yard.broker_url, backend=yard.broker_url, set_as_current=False)
    with plain:
        submitted = plain.send_task(
            "modelyard.route", args=[{"text": "hi"}], queue="requests", serializer="pickle"
        )
        with pytest.raises(Exception, match=r"invalid.*[Rr]efus"):
            submitted.get(timeout=30)
    assert client.submit("still alive").result(30).model == "small"


def test_many_requests_are_answered_over_one_subscription(yard: Workers, client: Client) -> None:
    texts = [f"question {number}" for number in range(500)]

    handles = client.submit_many(texts)
    done = list(client.as_completed(handles, timeout_s=60))

    assert {handle.id for handle in done} == {handle.id for handle in handles}
    assert len(yard.fake.calls) == 500
    with redis.Redis.from_url(yard.broker_url) as store:
        channels = [name for name in store.pubsub_channels("*") if b"celery-task-meta" in name]
    assert channels == []


def test_the_same_id_submitted_twice_is_one_request(yard: Workers, client: Client) -> None:
    first = client.submit("hello", id="the-same")
    first.result(30)
    second = client.submit("hello", id="the-same")

    assert second.result(30) == first.result(30)
    assert len(yard.fake.calls) == 1


def test_a_result_that_takes_too_long_is_a_timeout_and_not_the_end(
    yard: Workers, client: Client
) -> None:
    yard.fake.script("provider-small", [Reply(delay_s=1.0, text="late")])
    handle = client.submit("hello")

    with pytest.raises(ResultTimeout, match=handle.id):
        handle.result(0.05)

    assert not handle.done()
    assert handle.result(30).text == "late"
    assert handle.done()


def test_another_client_fetches_the_answer_by_its_id(yard: Workers, client: Client) -> None:
    yard.fake.script("provider-small", [Reply(delay_s=0.5, text="shared")])
    handle = client.submit("hello")
    with yard.client() as other:
        assert other.handle(handle.id).result(30).text == "shared"


async def test_the_async_twin_does_the_same(yard: Workers) -> None:
    yard.fake.script("provider-small", [Reply(text="awaited")])
    async with AsyncClient(yard.broker_url) as client:
        handle = await client.submit("hello", lane="interactive", deadline_s=60)
        assert (await handle.result(30)).text == "awaited"
        assert await handle.done()

        handles = await client.submit_many([f"question {number}" for number in range(50)])
        seen = [each.id async for each in client.as_completed(handles, timeout_s=30)]
        assert sorted(seen) == sorted(each.id for each in handles)

        yard.fake.script("provider-small", [Reply(delay_s=2.0)])
        with pytest.raises(ResultTimeout):
            await (await client.submit("slow")).result(0.05)


def test_keys_are_nowhere_in_redis_or_the_logs(yard: Workers, client: Client) -> None:
    yard.fake.always("provider-small", Reply(status=401, message=f"wrong key {KEY}"))
    client.submit("hello").result(30)

    with redis.Redis.from_url(yard.broker_url) as store:
        stored = json.dumps([repr(value) for value in everything(store)])
    logs = "".join(path.read_text() for path in Path(yard.folder).glob("*.log"))
    assert KEY not in stored
    assert KEY not in logs


def everything(store: redis.Redis) -> Iterator[object]:
    """Every key with its value."""
    for key in store.scan_iter():
        kind = store.type(key)
        yield key
        if kind == b"string":
            yield store.get(key)
        elif kind == b"hash":
            yield store.hgetall(key)
        elif kind == b"list":
            yield store.lrange(key, 0, -1)
        elif kind == b"zset":
            yield store.zrange(key, 0, -1)
        elif kind == b"set":
            yield store.smembers(key)


def test_a_lost_connection_does_not_make_a_running_call_run_twice(
    yard: Workers, client: Client
) -> None:
    gate = Gate()
    yard.fake.always("provider-small", Reply(gate=gate, text="once"))
    handle = client.submit("hello")
    yard.fake.wait_until(lambda fake: fake.in_flight == 1)

    with redis.Redis.from_url(yard.broker_url) as store:
        store.client_kill_filter(_type="normal", skipme=True)
        # The worker puts it back when it reconnects, and gets it again.
        eventually(lambda: re.search(r"Restoring \d+ unack", yard.log("small")))
    gate.open()

    assert handle.result(30).text == "once"
    assert client.submit("and after").result(30).model == "small"
    assert len([call for call in yard.fake.calls if call.model == "provider-small"]) == 2
