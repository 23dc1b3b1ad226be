"""What litellm is asked, and what its answers and exceptions mean. A stand-in has its place."""

import asyncio
import json
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

from model_workers.providers.litellm import LiteLLM
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request, Usage

NOW = 1_800_000_000.0
KEY = "sk-verysecret-0123456789"
HELLO = Request.of("Please greet the whole world in Latin.")


class ApiError(Exception):
    """As the openai package has it, above litellm's own."""

    def __init__(
        self, words: str, status: int = 400, headers: dict[str, str] | None = None, body: Any = None
    ) -> None:
        super().__init__(words)
        self.status_code = status
        self.body = body
        self.response = httpx.Response(status, headers=headers)


class BadRequestError(ApiError): ...


class ContextWindowExceededError(BadRequestError): ...


class ContentPolicyViolationError(BadRequestError): ...


class UnsupportedParamsError(BadRequestError): ...


class AuthenticationError(ApiError): ...


class PermissionDeniedError(ApiError): ...


class NotFoundError(ApiError): ...


class RateLimitError(ApiError): ...


class Timeout(ApiError): ...


class APIConnectionError(ApiError): ...


class InternalServerError(ApiError): ...


class ServiceUnavailableError(ApiError): ...


class MidStreamFallbackError(ServiceUnavailableError): ...


class APIResponseValidationError(ApiError): ...


class ModelResponse:
    """What is used of litellm's answers."""

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def model_dump_json(self, *, warnings: bool) -> str:
        assert warnings is False
        return json.dumps(self._data)


def answer(finish_reason: str = "stop", **message: Any) -> ModelResponse:
    return ModelResponse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "mistral-small-2506",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish_reason,
                    "message": {"role": "assistant", "tool_calls": None, **message},
                }
            ],
            "usage": {
                "prompt_tokens": 11,
                "completion_tokens": 7,
                "total_tokens": 18,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
        }
    )


class Stand:
    """The stand-in of the module: its calls, and what it does with them."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.act: Callable[[], ModelResponse] = lambda: answer(content="Salve, munde.")
        self.module = ModuleType("litellm")
        self.module.acompletion = self.acompletion  # type: ignore[attr-defined]

    async def acompletion(self, **given: Any) -> ModelResponse:
        self.calls.append(given)
        return self.act()

    def fails(self, error: BaseException) -> None:
        def act() -> ModelResponse:
            raise error

        self.act = act


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    made = Stand()
    monkeypatch.setitem(sys.modules, "litellm", made.module)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return made


def provider(at: Endpoint | None = None, **fields: Any) -> LiteLLM:
    model = Model(name="small", provider="litellm", model="mistral/mistral-small", **fields)
    return LiteLLM(model, at, clock=lambda: NOW)


async def failure(request: Request = HELLO, at: Endpoint | None = None) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider(at).complete(request)
    return caught.value


async def test_what_it_is_asked(stand: Stand) -> None:
    at = Endpoint(base_url="https://models.example/v1", api_key=KEY, api_version="2026-01-01")
    request = Request.model_validate(
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "a",
                            "type": "function",
                            "function": {"name": "weather", "arguments": "{}"},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "a", "content": "rain"},
            ],
            "params": {"temperature": 0, "max_tokens": 9, "stream": True, "model": "other"},
        }
    )
    await provider(at, timeout_s=33.0).complete(request)
    assert stand.calls == [
        {
            "model": "mistral/mistral-small",
            "messages": [
                {"role": "user", "content": "Weather?"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": request.messages[1].encode()["tool_calls"],
                },
                {"role": "tool", "tool_call_id": "a", "content": "rain"},
            ],
            "temperature": 0,
            "max_tokens": 9,
            "api_key": KEY,
            "api_base": "https://models.example/v1",
            "api_version": "2026-01-01",
            "num_retries": 0,
            "max_retries": 0,
            "timeout": 33.0,
            "stream": False,
        }
    ]


async def test_without_an_endpoint_litellm_finds_its_own_keys(stand: Stand) -> None:
    await provider().complete(HELLO)
    assert {"api_key", "api_base", "api_version"}.isdisjoint(stand.calls[0])


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "mock_response", "fallbacks"])
async def test_a_request_can_t_say_where_a_call_goes_to(stand: Stand, name: str) -> None:
    error = await failure(Request.of("Hello", params={name: "https://elsewhere.example"}))
    assert (error.kind, name in str(error)) == (FailureKind.PERMANENT, True)
    assert stand.calls == []


async def test_an_answer(stand: Stand) -> None:
    found = await provider().complete(HELLO)
    assert (found.text, found.provider_model) == ("Salve, munde.", "mistral-small-2506")
    assert found.usage == Usage(input_tokens=11, output_tokens=7, cached_input_tokens=4)


async def test_an_answer_that_calls_a_tool(stand: Stand) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    stand.act = lambda: answer("tool_calls", content=None, tool_calls=[call])
    found = await provider().complete(HELLO)
    assert (found.finish_reason, found.tool_calls[0].function.name) == ("tool_calls", "now")


async def test_what_litellm_wants_back_with_a_call_goes_back(stand: Stand) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": "{}"},
        "provider_specific_fields": {"thought_signature": "c2ln"},
    }
    blocks = [{"type": "thinking", "thinking": "So.", "signature": "EqQ"}]
    stand.act = lambda: answer("tool_calls", tool_calls=[call], thinking_blocks=blocks)
    said = await provider().complete(HELLO)
    asked = Request.model_validate(
        {
            "messages": [
                {"role": "user", "content": "Weather?"},
                {"role": "assistant", "tool_calls": [each.encode() for each in said.tool_calls]},
                {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
            ]
        }
    )
    await provider().complete(asked)
    told = stand.calls[-1]["messages"][1]
    assert (told["tool_calls"], told["thinking_blocks"]) == ([call], blocks)


async def test_an_answer_that_is_none(stand: Stand) -> None:
    stand.act = lambda: answer("content_filter", content=None)
    assert (await failure()).kind is FailureKind.REFUSED


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RateLimitError("slow", 429), "limited"),
        (RateLimitError("no money", 429, body={"code": "insufficient_quota"}), "denied"),
        (ContextWindowExceededError("too many tokens"), "too_long"),
        (ContentPolicyViolationError("no"), "refused"),
        (AuthenticationError("no", 401), "denied"),
        (PermissionDeniedError("no", 403), "denied"),
        (NotFoundError("no", 404), "denied"),
        (BadRequestError("unknown field"), "permanent"),
        (BadRequestError("bad key", 401), "denied"),
        (UnsupportedParamsError("no seed"), "permanent"),
        (Timeout("late", 408), "retryable"),
        (APIConnectionError("gone", 500), "retryable"),
        (InternalServerError("oh", 500), "retryable"),
        (ServiceUnavailableError("full", 503), "retryable"),
        (MidStreamFallbackError("cut", 400), "retryable"),
        (APIResponseValidationError("what", 200), "retryable"),
        (ApiError("teapot", 418), "permanent"),
        (ApiError("overloaded", 529), "retryable"),
        (KeyError("oh"), "permanent"),
    ],
)
async def test_exceptions(stand: Stand, error: Exception, kind: str) -> None:
    stand.fails(error)
    found = await failure()
    assert found.kind == kind
    status = getattr(error, "status_code", None)
    assert found.status == (status if status != 200 else None)


async def test_the_wait_that_was_asked_for(stand: Stand) -> None:
    stand.fails(RateLimitError("slow", 429, {"Retry-After": "7"}))
    assert (await failure()).retry_after_s == 7.0
    error = RateLimitError("slow", 429)
    error.litellm_response_headers = {"retry-after-ms": "1500"}  # type: ignore[attr-defined]
    stand.fails(error)
    assert (await failure()).retry_after_s == 1.5


async def test_neither_key_nor_prompt_is_in_an_error(stand: Stand) -> None:
    stand.fails(AuthenticationError(f"the key {KEY} may not say {HELLO.text}", 401))
    at = Endpoint(base_url="https://models.example/v1", api_key=KEY)
    said = str(await failure(at=at))
    assert said.startswith("models.example/v1: ")
    assert KEY not in said
    assert HELLO.text not in said


async def test_it_has_so_much_time(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(**_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(stand.module, "acompletion", hang)
    with pytest.raises(ProviderError, match=r"no answer within 0\.2 s") as caught:
        await provider(timeout_s=0.2).complete(HELLO)
    assert caught.value.kind is FailureKind.RETRYABLE


async def test_giving_up_is_passed_on(stand: Stand) -> None:
    stand.fails(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await provider().complete(HELLO)


async def test_litellm_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    error = await failure()
    assert (error.kind, "pip install litellm" in str(error)) == (FailureKind.DENIED, True)
