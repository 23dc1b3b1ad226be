"""Where calls of Azure OpenAI go, with which key, and what its errors mean.

Bodies are of the shapes in https://learn.microsoft.com/azure/ai-foundry/openai/reference.
"""

import json
from typing import Any

import httpx
import pytest

from model_workers.providers.azure import Azure, AzureDialect
from modelyard.catalog import Endpoint, Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Request

K = FailureKind
KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJjb2duaXRpdmUifQ.c2lnbmF0dXJl-_"
RESOURCE = "https://yard.openai.azure.com"
HELLO = Request.of("Please greet the whole world in Latin.")


def model(endpoint: Endpoint, **changes: Any) -> Model:
    return Model(
        name="small", provider="azure", model="my deployment", endpoints=(endpoint,), **changes
    )


def azure(answer: httpx.Response, seen: list[httpx.Request] | None = None, **fields: Any) -> Azure:
    def handler(call: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(call)
        return answer

    endpoint = Endpoint(**{"base_url": RESOURCE, "api_key": KEY, **fields})
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler), timeout=5.0)
    return Azure(model(endpoint), endpoint, client, clock=lambda: 1_800_000_000.0)


def answered(name: str = "gpt-4o-mini-2024-07-18") -> httpx.Response:
    message = {"role": "assistant", "content": "Salve"}
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "message": message,
        "logprobs": None,
        "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}},
    }
    return httpx.Response(200, json={"model": name, "choices": [choice]})


def refused(status: int, error: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, json={"error": error}, headers=headers)


async def failure(provider: Azure) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.complete(HELLO)
    return caught.value


class TestAddress:
    DATED = f"{RESOURCE}/openai/deployments/my%20deployment/chat/completions?api-version="
    V1 = f"{RESOURCE}/openai/v1/chat/completions"

    @pytest.mark.parametrize(
        ("base_url", "api_version", "url"),
        [
            (RESOURCE, "2024-10-21", f"{DATED}2024-10-21"),
            (f"{RESOURCE}/", "2025-04-01-preview", f"{DATED}2025-04-01-preview"),
            (f"{RESOURCE}/openai", "2024-10-21", f"{DATED}2024-10-21"),
            (f"{RESOURCE}?api-version=2024-10-21", None, f"{DATED}2024-10-21"),
            (f"{RESOURCE}?api-version=2024-06-01", "2024-10-21", f"{DATED}2024-10-21"),
            (RESOURCE, None, V1),
            (f"{RESOURCE}/openai/", None, V1),
            (f"{RESOURCE}/openai/v1", None, V1),
            (f"{RESOURCE}/openai/v1/", None, V1),
            (f"{RESOURCE}/openai/v1/chat/completions", None, V1),
            (RESOURCE, "preview", f"{V1}?api-version=preview"),
            (f"{RESOURCE}/openai/v1", "2024-10-21", V1),
            (
                f"{RESOURCE}/openai/deployments/other%2Fone",
                "2024-10-21",
                f"{RESOURCE}/openai/deployments/other%2Fone/chat/completions?api-version=2024-10-21",
            ),
            (
                f"{RESOURCE}/openai/deployments/x/chat/completions?api-version=2024-10-21",
                None,
                f"{RESOURCE}/openai/deployments/x/chat/completions?api-version=2024-10-21",
            ),
            (
                "https://gate.example/llm?subscription=7",
                "2024-10-21",
                "https://gate.example/llm/openai/deployments/my%20deployment/chat/completions"
                "?subscription=7&api-version=2024-10-21",
            ),
        ],
    )
    async def test_it_follows_from_base_url_and_version(
        self, base_url: str, api_version: str | None, url: str
    ) -> None:
        seen: list[httpx.Request] = []
        provider = azure(answered(), seen, base_url=base_url, api_version=api_version)
        await provider.complete(HELLO)
        assert str(seen[0].url) == url

    def test_a_deployments_path_needs_a_version(self) -> None:
        with pytest.raises(ValueError, match="api_version"):
            azure(answered(), base_url=f"{RESOURCE}/openai/deployments/x")


class TestCall:
    async def test_the_deployment_is_the_model_and_the_answer_names_what_ran(self) -> None:
        seen: list[httpx.Request] = []
        answer = await azure(answered("gpt-4.1-nano-2025-04-14"), seen).complete(HELLO)
        assert json.loads(seen[0].content)["model"] == "my deployment"
        assert answer.provider_model == "gpt-4.1-nano-2025-04-14"

    @pytest.mark.parametrize(
        ("key", "headers"),
        [
            (KEY, {"api-key": KEY}),
            (TOKEN, {"authorization": f"Bearer {TOKEN}"}),
            ("a.b", {"api-key": "a.b"}),
            ("not.a token.at-all", {"api-key": "not.a token.at-all"}),
            ("", {}),
        ],
    )
    def test_keys_and_tokens_each_have_their_header(
        self, key: str, headers: dict[str, str]
    ) -> None:
        endpoint = Endpoint.model_validate({"base_url": RESOURCE, "api_key": key})
        dialect = AzureDialect(model(endpoint), endpoint)
        assert dialect.headers(httpx.URL(RESOURCE)) == headers

    def test_a_stream_is_asked_for_as_openai_does(self) -> None:
        endpoint = Endpoint(base_url=RESOURCE)
        body = json.loads(AzureDialect(model(endpoint, stream=True), endpoint).encode(HELLO))
        assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})

    async def test_a_stream_that_begins_with_a_look_at_the_prompt(self) -> None:
        chunks = [
            {
                "choices": [],
                "created": 0,
                "id": "",
                "model": "",
                "object": "",
                "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
            },
            {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Sal"}}]},
            {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "ve"}}]},
            {"model": "gpt-4o", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            # The asynchronous filter: a choice without a delta.
            {"model": "", "choices": [{"index": 0, "content_filter_offsets": {"end_offset": 5}}]},
        ]
        body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        headers = {"content-type": "text/event-stream; charset=utf-8"}
        answer = await azure(httpx.Response(200, text=body, headers=headers)).complete(HELLO)
        assert (answer.text, answer.provider_model) == ("Salve", "gpt-4o")


CALL_RATE = (
    "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-10-21 "
    "have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after "
    "{} seconds. Please go here: https://aka.ms/oai/quotaincrease"
)


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "error", "kind"),
        [
            (
                400,
                {
                    "message": "The response was filtered due to the prompt triggering Azure "
                    "OpenAI's content management policy.",
                    "type": None,
                    "param": "prompt",
                    "code": "content_filter",
                    "status": 400,
                    "innererror": {
                        "code": "ResponsibleAIPolicyViolation",
                        "content_filter_result": {"hate": {"filtered": True, "severity": "high"}},
                    },
                },
                K.REFUSED,
            ),
            (
                400,
                {
                    "message": "no",
                    "code": None,
                    "innererror": {"code": "ResponsibleAIPolicyViolation"},
                },
                K.REFUSED,
            ),
            (400, {"message": "no", "innererror": "odd"}, K.PERMANENT),
            (
                404,
                {
                    "code": "DeploymentNotFound",
                    "message": "The API deployment for this resource does not exist.",
                },
                K.DENIED,
            ),
            (404, {"code": "404", "message": "Resource not found"}, K.DENIED),
            (400, {"code": "BadRequest", "message": "API version not supported"}, K.DENIED),
            (401, {"code": "401", "message": "Access denied due to invalid key"}, K.DENIED),
            (400, {"code": "context_length_exceeded", "message": "too long"}, K.TOO_LONG),
            (408, {"code": "Timeout", "message": "The operation was timeout."}, K.RETRYABLE),
            (503, {"code": "503", "message": "busy"}, K.RETRYABLE),
        ],
    )
    async def test_each_has_its_meaning(self, status: int, error: Any, kind: FailureKind) -> None:
        caught = await failure(azure(refused(status, error)))
        assert (caught.kind, caught.status) == (kind, status)

    @pytest.mark.parametrize(
        ("message", "headers", "wait_s"),
        [
            (CALL_RATE.format(7), {}, 7.0),
            (CALL_RATE.format(86400), {}, 86400.0),
            (CALL_RATE.format(1).replace("seconds", "second"), {}, 1.0),
            ("Rate limit is exceeded. Try again in 2 seconds.", {}, 2.0),
            ("Please retry after 250 milliseconds.", {}, 0.25),
            (CALL_RATE.format(7), {"retry-after": "3"}, 3.0),
            (CALL_RATE.format(7), {"retry-after-ms": "1500"}, 1.5),
            (
                CALL_RATE.format(7),
                {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "0"},
                7.0,
            ),
            (CALL_RATE.format(7), {"x-ratelimit-remaining-requests": "-1"}, 7.0),
            ("Slow down.", {}, None),
            ("Retry after a while.", {"retry-after": "0"}, 0.0),
        ],
    )
    async def test_the_wait_is_in_the_text_where_no_header_names_it(
        self, message: str, headers: dict[str, str], wait_s: float | None
    ) -> None:
        caught = await failure(azure(refused(429, {"code": "429", "message": message}, headers)))
        assert (caught.kind, caught.retry_after_s) == (K.LIMITED, wait_s)

    async def test_a_text_names_no_wait_for_what_waiting_does_not_mend(self) -> None:
        error = {"code": "insufficient_quota", "message": "Please retry after 7 seconds."}
        caught = await failure(azure(refused(429, error)))
        assert (caught.kind, caught.retry_after_s) == (K.DENIED, None)

    async def test_the_key_is_never_told(self) -> None:
        caught = await failure(azure(refused(401, {"code": "401", "message": f"bad {KEY}"})))
        assert KEY not in str(caught)
