"""The fake provider by itself: as strict as the API, and failing on cue."""

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from fakes.over_sockets import ASKS, CALLS, TOKEN, K, calling, failure, image, parts

from model_workers.providers.azure import Azure
from modelyard.testing import ANY, FakeProvider, Gate, Reply, text_digest


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    with FakeProvider() as provider:
        yield provider


class TestFakeAzure:
    """What Azure OpenAI turns down, with its own words."""

    @pytest.mark.parametrize(
        ("path", "headers", "status", "code"),
        [
            ("/openai/deployments/small/chat/completions", {}, 404, "404"),
            ("/openai/deployments/small/chat/completions?api-version=1", {}, 400, "BadRequest"),
            ("/openai/v1/chat/completions?api-version=2024-10-21", {}, 400, "BadRequest"),
            ("/openai/deployments/small/completions?api-version=2024-10-21", {}, 404, "404"),
            (
                "/openai/deployments/big/chat/completions?api-version=2024-10-21",
                {"api-key": "right"},
                404,
                "DeploymentNotFound",
            ),
            ("/openai/v1/chat/completions", {}, 401, "401"),
            ("/openai/v1/chat/completions", {"api-key": "wrong"}, 401, "401"),
            (
                "/openai/deployments/small/chat/completions?api-version=2024-10-21",
                {"authorization": "Bearer right"},
                401,
                "401",
            ),
        ],
    )
    def test_addresses_and_keys(
        self, path: str, headers: dict[str, str], status: int, code: str
    ) -> None:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        with (
            FakeProvider(models=["small"], api_key="right") as fake,
            httpx.Client(base_url=fake.azure_url, trust_env=False) as http,
        ):
            answer = http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)

    def test_a_token_is_no_key(self) -> None:
        body = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
        with (
            FakeProvider(api_key=TOKEN) as fake,
            httpx.Client(base_url=fake.azure_url, trust_env=False) as http,
        ):
            answer = http.post("/openai/v1/chat/completions", json=body, headers={"api-key": TOKEN})
        assert answer.status_code == 401

    @pytest.mark.parametrize("version", ["2024-10-21", None])
    @pytest.mark.parametrize("key", ["right", "wrong"])
    async def test_its_errors_mean_what_they_mean_to_the_provider(
        self, key: str, version: str | None
    ) -> None:
        with FakeProvider(models=["other"], api_key="right") as fake:
            options: dict[str, Any] = {"kind": Azure, "api_key": key, "api_version": version}
            async with calling(fake.azure_url, **options) as provider:
                caught = await failure(provider)
        assert (caught.kind, caught.status) == (K.DENIED, 404 if key == "right" else 401)


class TestFake:
    """What the fake promises to those who test with it."""

    @pytest.fixture
    def http(self, fake: FakeProvider) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=fake.base_url, trust_env=False) as client:
            yield client

    def ask(self, http: httpx.Client, **body: Any) -> httpx.Response:
        full = {"model": "small", "messages": [{"role": "user", "content": "hi"}], **body}
        return http.post("/chat/completions", json=full)

    def test_a_script_is_played_once_in_order(self, fake: FakeProvider, http: httpx.Client) -> None:
        fake.script("small", [Reply(status=503), Reply(text="b")])
        fake.script(ANY, [Reply(text="c")])
        fake.always("small", Reply(text="d"))
        fake.always(ANY, Reply(text="e"))
        answers = [self.ask(http) for _ in range(4)] + [self.ask(http, model="other")]
        assert answers[0].status_code == 503
        texts = [a.json()["choices"][0]["message"]["content"] for a in answers[1:]]
        assert texts == ["b", "c", "d", "e"]
        fake.reset()
        assert self.ask(http).json()["choices"][0]["message"]["content"] == "small answers: hi"
        assert len(fake.calls) == 1

    @pytest.mark.parametrize(
        ("body", "code", "param"),
        [
            ({"messages": None}, "missing_required_parameter", "messages"),
            ({"messages": []}, "empty_array", "messages"),
            ({"messages": "hi"}, "invalid_type", "messages"),
            ({"messages": ["hi"]}, "invalid_type", "messages[0]"),
            ({"messages": [{"role": "user"}]}, "missing_required_parameter", "messages[0].content"),
            (
                {"messages": [{"content": "hi"}]},
                "missing_required_parameter",
                "messages[0].role",
            ),
            (
                {"messages": [{"role": "bot", "content": "hi"}]},
                "invalid_value",
                "messages[0].role",
            ),
            (
                {"messages": [{"role": "user", "content": 7}]},
                "invalid_type",
                "messages[0].content",
            ),
            (
                {"messages": [{"role": "tool", "content": "7"}]},
                "missing_required_parameter",
                "messages[0].tool_call_id",
            ),
            (
                {"messages": [{"role": "user", "content": "hi", "mood": "good"}]},
                "unknown_parameter",
                "messages[0].mood",
            ),
            ({"model": 7}, "invalid_type", "model"),
            ({"model": None}, None, None),
            ({"top_k": 5}, None, None),
            ({"temperature": "hot"}, "invalid_type", "temperature"),
            ({"temperature": 3}, "decimal_above_max_value", "temperature"),
            ({"max_tokens": 0}, "integer_below_min_value", "max_tokens"),
            ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
            ({"n": True}, "invalid_type", "n"),
            ({"stop": 7}, "invalid_type", "stop"),
            ({"stream_options": {"include_usage": True}}, None, "stream_options"),
            (
                {"stream": True, "stream_options": {"usage": True}},
                "unknown_parameter",
                "stream_options.usage",
            ),
            (
                {"stream": True, "stream_options": {"include_usage": 1}},
                "invalid_type",
                "stream_options.include_usage",
            ),
            ({"messages": parts()}, "empty_array", "messages[0].content"),
            ({"messages": parts("hi")}, "invalid_type", "messages[0].content[0]"),
            ({"messages": parts({})}, "missing_required_parameter", "messages[0].content[0].type"),
            ({"messages": parts({"type": "pic"})}, "invalid_value", "messages[0].content[0].type"),
            (
                {"messages": parts({"type": "text"})},
                "missing_required_parameter",
                "messages[0].content[0].text",
            ),
            (
                {"messages": parts({"type": "image_url", "image_url": "https://h/a.png"})},
                "invalid_type",
                "messages[0].content[0].image_url",
            ),
            (
                {"messages": parts(image("file:///a.png"))},
                "invalid_value",
                "messages[0].content[0].image_url.url",
            ),
            (
                {"messages": parts(image("https://h/a.png", detail="best"))},
                "invalid_value",
                "messages[0].content[0].image_url.detail",
            ),
            (
                {"messages": parts(image("https://h/a.png"), role="system")},
                "invalid_value",
                "messages[0].content[0]",
            ),
            ({"messages": [ASKS]}, None, "messages[1].role"),
            ({"messages": [ASKS, {"role": "user", "content": "?"}]}, None, "messages[1].role"),
            (
                {"messages": [{"role": "tool", "content": "7", "tool_call_id": "call_1"}]},
                None,
                "messages[0].role",
            ),
            (
                {"messages": [{"role": "assistant", "tool_calls": []}]},
                "empty_array",
                "messages[0].tool_calls",
            ),
            (
                {"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]},
                "missing_required_parameter",
                "messages[0].tool_calls[0].type",
            ),
            (
                {"tools": [{"type": "function", "function": {"name": "no spaces"}}]},
                "invalid_value",
                "tools[0].function.name",
            ),
            (
                {"tools": [{"type": "function", "name": "flat"}]},
                "missing_required_parameter",
                "tools[0].function",
            ),
            ({"tool_choice": "auto"}, None, "tool_choice"),
        ],
        ids=str,
    )
    def test_what_the_real_api_refuses_is_refused(
        self,
        fake: FakeProvider,
        http: httpx.Client,
        body: dict[str, Any],
        code: str | None,
        param: str | None,
    ) -> None:
        answer = self.ask(http, **body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == (code, param)
        assert error["type"] == "invalid_request_error"
        assert [call.outcome for call in fake.calls] == ["rejected"]

    def test_what_the_real_api_takes_is_taken(self, http: httpx.Client) -> None:
        messages = [
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            ASKS,
            {"role": "tool", "content": "7", "tool_call_id": "call_1"},
            {"role": "user", "content": [image("https://h/a.png"), {"type": "text", "text": "hi"}]},
        ]
        params = {"temperature": 0, "max_tokens": 5, "stop": ["x"], "user": "u", "seed": None}
        answer = self.ask(http, messages=messages, **params)
        assert answer.status_code == 200
        usage = answer.json()["usage"]
        assert usage == {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}

    def test_names_of_users_and_results_of_functions_are_taken(self, http: httpx.Client) -> None:
        messages = [
            {"role": "user", "content": "hi", "name": "ann"},
            {"role": "assistant", "content": None, "function_call": {"name": "f"}},
        ]
        assert self.ask(http, messages=messages).status_code == 200

    def test_broken_json_and_unknown_addresses(self, http: httpx.Client) -> None:
        assert http.post("/chat/completions", content=b"{").status_code == 400
        assert http.post("/completions", json={}).status_code == 404
        assert http.get("/chat/completions").status_code == 404

    def test_knows_only_its_models(self) -> None:
        with (
            FakeProvider(models=["small"]) as fake,
            httpx.Client(base_url=fake.base_url, trust_env=False) as http,
        ):
            assert [m["id"] for m in http.get("/models").json()["data"]] == ["small"]
            assert self.ask(http).status_code == 200
            answer = self.ask(http, model="big")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")

    def test_a_gate_holds_calls_until_it_opens(
        self, fake: FakeProvider, http: httpx.Client
    ) -> None:
        gate = Gate()
        fake.script("small", [Reply(text="held", gate=gate)])
        answers: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: answers.append(self.ask(http)))
        caller.start()
        fake.wait_until(lambda p: p.in_flight == 1)
        assert not answers
        gate.open()
        caller.join(10)
        assert answers[0].json()["choices"][0]["message"]["content"] == "held"

    def test_waiting_in_vain_says_what_is(self, fake: FakeProvider) -> None:
        with pytest.raises(TimeoutError, match="0 calls ended, 0 in flight"):
            fake.wait_until(lambda p: p.in_flight == 1, timeout_s=0.01)

    def test_stopping_ends_calls_in_flight(self, tmp_path: Path) -> None:
        log = tmp_path / "calls.jsonl"
        with FakeProvider(default=Reply(hang=True), log=log) as fake:
            url = f"{fake.base_url}/chat/completions"

            async def call_and_stop() -> None:
                async with aiohttp.ClientSession() as session:
                    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
                    call = asyncio.create_task(session.post(url, json=body))
                    await asyncio.to_thread(fake.wait_until, lambda p: p.in_flight == 1)
                    await asyncio.to_thread(fake.stop)
                    with pytest.raises(aiohttp.ClientConnectionError):
                        await call

            asyncio.run(call_and_stop())
            assert [call.outcome for call in fake.calls] == ["abandoned"]
        assert json.loads(log.read_text())["outcome"] == "abandoned"

    def test_a_taken_port_is_an_error(self, fake: FakeProvider) -> None:
        second = FakeProvider(port=int(fake.base_url.split(":")[2].split("/")[0]))
        with pytest.raises(OSError, match="in use"):
            second.start()

    def test_the_digest_is_the_begin_of_a_sha256(self) -> None:
        assert text_digest("a\nb") == hashlib.sha256(b"a\nb").hexdigest()[:16]

    def test_as_a_process_it_takes_cues_over_http_and_logs(self, tmp_path: Path) -> None:
        log = tmp_path / "calls.jsonl"
        process = subprocess.Popen(
            [sys.executable, "-m", "modelyard.testing", "--log", str(log)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            with httpx.Client(base_url=base_url, trust_env=False) as http:
                cues = {
                    "model": "small",
                    "replies": [
                        {"status": 429, "headers": {"retry-after": "2"}},
                        {"tool_calls": [call.encode() for call in CALLS]},
                    ],
                    "always": {"text": "hello", "usage": {"input_tokens": 5, "output_tokens": 6}},
                }
                control = base_url.removesuffix("/v1") + "/_fake"
                assert http.post(f"{control}/script", json=cues).status_code == 200
                assert http.post(f"{control}/script", json={"model": 1, "always": {"x": 1}})
                limited, called = self.ask(http), self.ask(http)
                answered = self.ask(http, metadata={"request_id": "r-9"})
                report = http.get(f"{control}/calls").json()
            assert limited.headers["retry-after"] == "2"
            assert called.json()["choices"][0]["finish_reason"] == "tool_calls"
            assert answered.json()["usage"]["completion_tokens"] == 6
            assert [call["status"] for call in report["calls"]] == [429, 200, 200]
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            assert lines == report["calls"]
            assert lines[2]["request_id"] == "r-9"
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
