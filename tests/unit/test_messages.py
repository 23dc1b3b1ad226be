"""The wire: what is sent is what is read, and bad input is named."""

import json

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelyard.client import broker_error, prepare
from modelyard.errors import (
    BrokerError,
    BrokerFull,
    BrokerUnavailable,
    InvalidRequest,
    RequestFailed,
    RequestRevoked,
)
from modelyard.messages import Answer, Lane, Message, Request, Usage, problems
from modelyard.names import model_queue, queue_model
from modelyard.outcome import read_outcome

texts = st.text(min_size=1, max_size=50).filter(lambda text: text.strip() != "")
requests = st.builds(
    Request,
    messages=st.lists(
        st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=texts),
        min_size=1,
        max_size=3,
    ).map(tuple),
    route=texts,
    lane=st.sampled_from(list(Lane)),
    models=st.lists(texts, max_size=3).map(tuple),
    params=st.dictionaries(texts, st.integers() | st.booleans() | texts, max_size=3),
    metadata=st.dictionaries(texts, texts, max_size=3),
    deadline=st.none() | st.floats(0, 1e10),
    submitted_at=st.none() | st.floats(0, 1e10),
)


@given(requests)
def test_a_request_survives_the_wire(request: Request) -> None:
    assert Request.decode(json.loads(json.dumps(request.encode()))) == request


def test_a_text_is_one_user_message() -> None:
    assert Request.of("hello") == Request(messages=(Message(role="user", content="hello"),))
    assert Request.decode({"text": "hello"}) == Request.of("hello")


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"text": ""},
        {"text": " \n"},
        {"text": "a", "messages": []},
        {"text": "a", "unknown": 1},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"text": "a", "lane": "fast"},
    ],
)
def test_what_is_no_request_is_refused(payload: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Request.decode(payload)


def test_problems_are_named_without_the_content() -> None:
    with pytest.raises(ValidationError) as error:
        Request.decode({"text": ["my password is hunter2"]})
    assert "hunter2" not in problems(error.value)
    assert "content" in problems(error.value)


def test_what_is_given_overrides_the_request_s_own_fields() -> None:
    ready = prepare(
        Request.of("hello", route="slow", metadata={"a": "1"}),
        {"route": "fast"},
        now=100.0,
        deadline_s=5.0,
    )
    assert (ready.route, ready.metadata, ready.deadline, ready.submitted_at) == (
        "fast",
        {"a": "1"},
        105.0,
        100.0,
    )


@pytest.mark.parametrize("text", ["", "   "])
def test_a_request_without_text_is_refused_at_submit(text: str) -> None:
    with pytest.raises(InvalidRequest, match="no text"):
        prepare(text, {}, now=0.0, deadline_s=None)


def test_what_json_has_no_form_for_is_refused_at_submit() -> None:
    nested: dict[str, object] = {}
    for _ in range(400):
        nested = {"a": nested}
    endless = Request.model_construct(messages=Request.of("q").messages, params=nested)
    with pytest.raises(InvalidRequest):
        prepare(endless, {}, now=0.0, deadline_s=None)


def test_a_deadline_in_the_past_is_refused_at_submit() -> None:
    with pytest.raises(InvalidRequest, match="deadline_s"):
        prepare("hello", {}, now=0.0, deadline_s=0.0)


def test_usages_add_up() -> None:
    assert Usage(input_tokens=1, output_tokens=2) + Usage(input_tokens=3) == Usage(
        input_tokens=4, output_tokens=2
    )


@pytest.mark.parametrize("name", ["small", "gpt-4.1", "a_b"])
def test_a_queue_tells_its_model(name: str) -> None:
    assert queue_model(model_queue(name)) == name
    assert queue_model("requests") is None


def stored(status: str, result: object) -> str:
    return json.dumps({"status": status, "result": result, "task_id": "t", "traceback": None})


def test_a_stored_failure_is_the_error_that_was_raised() -> None:
    failure = {
        "exc_type": "RequestFailed",
        "exc_message": ["why", "t", "exhausted", [{"model": "small"}]],
        "exc_module": "modelyard.errors",
    }
    outcome = read_outcome(stored("FAILURE", failure))

    assert isinstance(outcome, RequestFailed)
    assert (str(outcome), outcome.id, outcome.reason) == ("why", "t", "exhausted")
    assert outcome.attempts == ({"model": "small"},)


def test_somebody_else_s_failure_is_told_too() -> None:
    failure = {"exc_type": "KeyError", "exc_message": ["x"], "exc_module": "builtins"}
    outcome = read_outcome(stored("FAILURE", failure))

    assert isinstance(outcome, RequestFailed)
    assert "KeyError: x" in str(outcome)


def test_what_is_not_final_is_no_outcome() -> None:
    assert read_outcome(stored("RETRY", None)) is None
    assert isinstance(read_outcome(stored("REVOKED", None)), RequestRevoked)


def test_a_result_that_is_no_answer_is_an_error_and_not_a_crash() -> None:
    assert isinstance(read_outcome(stored("SUCCESS", {"text": 1})), RequestFailed)
    assert isinstance(read_outcome(stored("SUCCESS", None)), RequestFailed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.binary(max_size=50))
@example(b"\x80\x04garbage")
@example(b"[" * 100_000)
@example(b"1" * 5_000)
@example(b"null")
@example(b'{"result": 1}')
def test_bytes_that_are_no_result_are_an_invalid_outcome(raw: bytes) -> None:
    outcome = read_outcome(raw, "t")
    assert isinstance(outcome, RequestFailed)
    assert (outcome.id, outcome.reason) == ("t", "invalid")


@given(
    st.sampled_from(["SUCCESS", "FAILURE", "REVOKED"]),
    json_values
    | st.fixed_dictionaries({"exc_type": st.just("RequestFailed"), "exc_message": json_values}),
)
@example("FAILURE", {"exc_type": "RequestFailed", "exc_message": [1, 2, 3, 4, 5, 6]})
@example("FAILURE", {"exc_type": "RequestFailed", "exc_message": ["why", "t", "error", [1]]})
def test_a_final_result_of_whatever_form_is_an_outcome(status: str, result: object) -> None:
    outcome = read_outcome(stored(status, result))
    assert isinstance(outcome, RequestFailed | RequestRevoked)
    assert repr(outcome)


def test_an_answer_survives_the_result_backend() -> None:
    raw = {
        "id": "t",
        "text": "hi",
        "model": "small",
        "provider_model": "m",
        "decision": {
            "route": "default",
            "intent": "other",
            "why": "",
            "input_tokens": 1,
            "decided_at": 1.0,
            "plan": {"steps": [{"model": "small"}]},
        },
    }
    outcome = read_outcome(stored("SUCCESS", raw))
    assert isinstance(outcome, Answer)
    assert Answer.decode(outcome.encode()) == outcome


def test_a_full_redis_and_a_lost_one_are_different_errors() -> None:
    full = redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'.")
    wrapped = RuntimeError("batch")
    wrapped.__cause__ = full
    assert isinstance(broker_error(wrapped), BrokerFull)
    assert isinstance(broker_error(redis.ConnectionError("refused")), BrokerUnavailable)


def test_what_redis_refuses_is_told_in_its_own_words() -> None:
    refused = redis.ResponseError(
        "Command # 1 (EVAL ...) of pipeline caused error: WRONGTYPE Operation against a key"
    )
    error = broker_error(refused)
    assert type(error) is BrokerError
    assert str(error) == "the broker refused it: WRONGTYPE Operation against a key"
    assert type(broker_error(redis.exceptions.NoPermissionError("no LPUSH"))) is BrokerError


@pytest.mark.parametrize(
    "refusal",
    [
        redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
        redis.exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
        redis.ResponseError("MISCONF Redis is configured to save RDB snapshots, but can't"),
        redis.exceptions.ClusterDownError("The cluster is down"),
        redis.exceptions.TryAgainError("Multiple keys request during rehashing of slot"),
        redis.ResponseError("Error running script: @user_script:2: -READONLY You can't write"),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
def test_a_refusal_that_passes_can_be_tried_again(refusal: redis.RedisError) -> None:
    error = broker_error(refusal)
    assert isinstance(error, BrokerUnavailable)
    assert str(refusal) in str(error)


def test_a_connection_lost_while_a_refusal_was_handled_is_a_lost_connection() -> None:
    lost = redis.ConnectionError("reset by peer")
    lost.__context__ = redis.ResponseError("unknown command HELLO")
    assert isinstance(broker_error(lost), BrokerUnavailable)
