"""Where calls of Gemini go to, by which right, and what their turns are."""

import json
from typing import Any

import httpx
import pytest
from fakes.requests import PNG
from fakes.vertex_api import Refused, check_call
from fakes.vertex_words import (
    FLASH,
    HERE,
    MODEL,
    NEWER,
    VERTEX,
    address,
    calls,
    dialect,
    encoded,
    endpoint,
    image,
    refused,
    request,
    told,
    user,
)

from model_workers.providers.gemini_call import UNSIGNED
from modelyard.errors import ProviderError


class TestAddress:
    def test_is_in_the_project_and_region(self) -> None:
        at = endpoint(project="p-1", region="europe-west4")
        assert address(at) == f"{VERTEX}/v1/{HERE}/{MODEL}:generateContent"
        assert (
            address(at, stream=True) == f"{VERTEX}/v1/{HERE}/{MODEL}:streamGenerateContent?alt=sse"
        )

    def test_takes_the_region_from_the_host_or_the_whole_world(self) -> None:
        assert f"/v1/{HERE}/" in address(endpoint(project="p-1"))
        everywhere = endpoint("https://aiplatform.googleapis.com", project="p-1")
        assert "/locations/global/" in address(everywhere)

    @pytest.mark.parametrize(
        ("name", "resource"),
        [
            ("google/gemini-2.5-flash", f"{HERE}/{MODEL}"),
            ("publishers/meta/models/llama", f"{HERE}/publishers/meta/models/llama"),
            ("endpoints/77", f"{HERE}/endpoints/77"),
            (
                "projects/9/locations/us-east1/endpoints/7",
                "projects/9/locations/us-east1/endpoints/7",
            ),
        ],
    )
    def test_a_name_with_a_slash_says_more(self, name: str, resource: str) -> None:
        at = endpoint(project="p-1", region="europe-west4")
        assert address(at, name) == f"{VERTEX}/v1/{resource}:generateContent"

    def test_a_key_needs_no_project(self) -> None:
        express = endpoint("https://aiplatform.googleapis.com", api_key="AIza-1")
        assert address(express) == f"https://aiplatform.googleapis.com/v1/{MODEL}:generateContent"
        host = "https://generativelanguage.googleapis.com"
        for base in (host, f"{host}/v1beta/"):
            at = endpoint(base, api_key="AIza-1")
            assert address(at) == f"{host}/v1beta/models/{FLASH}:generateContent"
            assert address(at, f"google/{FLASH}") == address(at)

    def test_a_model_optimizer_is_in_the_beta(self) -> None:
        at = endpoint(project="p-1", region="global")
        assert "/v1beta1/projects/" in address(at, "model-optimizer-exp-04-09")
        other = endpoint(project="p-1", region="global", api_version="v2")
        assert "/v2/projects/" in address(other, "model-optimizer-exp-04-09")

    @pytest.mark.parametrize("key", [None, "ya29.token"])
    def test_without_project_and_key_says_what_is_missing(self, key: str | None) -> None:
        with pytest.raises(ProviderError, match="give the endpoint `project`"):
            address(endpoint(api_key=key))

    def test_a_token_is_a_bearer_and_a_key_is_none(self) -> None:
        base = httpx.URL(VERTEX)
        token = dialect(endpoint(api_key="ya29.abc", project="p")).headers(base)
        key = dialect(endpoint(api_key="AIza-1", project="p")).headers(base)
        assert (token, key) == (
            {"authorization": "Bearer ya29.abc"},
            {"x-goog-api-key": "AIza-1"},
        )


class TestTurns:
    def test_system_turns_stand_apart(self) -> None:
        body = encoded(
            request(
                {"role": "system", "content": "Be brief."},
                user("Hi"),
                {"role": "assistant", "content": "Hello."},
                {"role": "developer", "content": "Be kind."},
                user([{"type": "text", "text": "How"}, {"type": "text", "text": "are you?"}]),
            )
        )
        assert body == {
            "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"text": "Hello."}]},
                {"role": "user", "parts": [{"text": "How"}, {"text": "are you?"}]},
            ],
        }

    def test_results_come_in_the_order_of_the_calls_and_before_what_is_said(self) -> None:
        body = encoded(
            request(
                user("Weather?"),
                calls(("a", "weather", '{"city": "Bern"}'), ("b", "now", "")),
                told("b", "noon"),
                told("a", "rain"),
                user("Well?"),
            )
        )
        assert body["contents"][1:] == [
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "weather", "args": {"city": "Bern"}}},
                    {"functionCall": {"name": "now", "args": {}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"output": "rain"}}},
                    {"functionResponse": {"name": "now", "response": {"output": "noon"}}},
                ],
            },
            {"role": "user", "parts": [{"text": "Well?"}]},
        ]

    def test_newer_models_get_a_word_for_the_signature_they_ask_for(self) -> None:
        asked = request(
            user("?"), calls(("a", "f", "{}"), ("b", "f", "{}")), told("a", "1"), told("b", "2")
        )
        parts = encoded(asked, NEWER)["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [UNSIGNED, None]
        assert "thoughtSignature" not in json.dumps(encoded(asked, FLASH))

    @pytest.mark.parametrize(
        ("messages", "why"),
        [
            ([user("?"), calls(("a", "f", "[1]")), told("a", "1")], "JSON object only"),
            ([user("?"), calls(("a", "f", '{"a": NaN}')), told("a", "1")], "can't take the arg"),
            ([user("?"), calls(("a", "1f", "{}")), told("a", "1")], "begin with a letter"),
            ([user("?"), calls(("a", "f", "{}"))], "answered by one tool turn"),
            ([calls(("a", "f", "{}")), told("a", "1")], "user turn before"),
            ([{"role": "system", "content": "Hi"}], "needs a user turn"),
        ],
    )
    def test_what_it_would_not_take_is_refused_here(self, messages: Any, why: str) -> None:
        assert why in refused(request(*messages))

    def test_images_are_bytes_or_addresses_with_a_type(self) -> None:
        body = encoded(
            request(
                user([image(PNG), image("gs://b/a.JPG"), image("https://x.example/a.webp?v=2")])
            )
        )
        assert body["contents"][0]["parts"] == [
            {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}},
            {"fileData": {"mimeType": "image/jpeg", "fileUri": "gs://b/a.JPG"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.example/a.webp?v=2"}},
        ]

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("https://x.example/picture", "told an image's type"),
            ("http://x.example/a.png", "https:// or gs://"),
            ("data:image/png;base64,?", "not base64"),
            ("data:image/bmp;base64,Qk0=", "image/bmp"),
            ("data:text/html;base64,Qk0=", "as data:image"),
        ],
    )
    def test_other_images_are_refused(self, url: str, why: str) -> None:
        assert why in refused(request(user([image(url)])))

    def test_one_detail_holds_for_all_images(self) -> None:
        low = request(user([image(PNG, detail="low"), image(PNG, detail="low")]))
        assert encoded(low)["generationConfig"] == {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
        mixed = request(user([image(PNG, detail="low"), image(PNG)]))
        assert "one detail for all images" in refused(mixed)


class TestFake:
    """The fake refuses what would pass a careless one."""

    @pytest.mark.parametrize(
        "broken",
        [
            {"contents": []},
            {"contents": [{"role": "assistant", "parts": [{"text": "a"}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "a", "inlineData": {}}]}]},
            {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "temperature": 1},
            {
                "contents": [{"role": "user", "parts": [{"text": "a"}]}],
                "generationConfig": {"maxOutputTokens": "5"},
            },
        ],
    )
    def test_refuses(self, broken: Any) -> None:
        with pytest.raises(Refused):
            check_call(broken)
