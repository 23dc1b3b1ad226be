"""Keys that are wrong and models that are unknown, as each provider says so."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from fakes import anthropic_api, bedrock_api, vertex_api
from fakes.anthropic_api import AnthropicApi
from fakes.bedrock_api import BedrockApi
from fakes.server import Canned
from fakes.vertex_api import VertexApi
from provider_calls import KEY, Kind, failed

from modelyard.errors import FailureKind
from modelyard.testing import FakeProvider

K = FailureKind


class TestKeysAndNames:
    """The fakes are as strict as their originals, whose words these are."""

    @pytest.fixture
    def open_api(self) -> dict[str, Callable[[], AbstractContextManager[Any]]]:
        def fake() -> FakeProvider:
            return FakeProvider(models=["other"], api_key=KEY)

        return {
            "openai": fake,
            "azure": fake,
            "anthropic": lambda: AnthropicApi(KEY),
            "bedrock": lambda: BedrockApi(KEY),
            "vertex": lambda: VertexApi(KEY),
        }

    def address(self, kind: Kind, api: Any) -> str:
        return str(api.azure_url if kind.name == "azure" else api.base_url)

    async def test_a_wrong_key_is_denied(
        self, kind: Kind, open_api: dict[str, Callable[[], AbstractContextManager[Any]]]
    ) -> None:
        with open_api[kind.name]() as api:
            attempt = await failed(kind, self.address(kind, api), key="wrong-key-0123456789")
        assert attempt.kind is K.DENIED
        assert attempt.status == (403 if kind.name == "bedrock" else 401)
        assert "wrong-key" not in attempt.message

    async def test_an_unknown_model_or_deployment_is_denied(
        self, kind: Kind, open_api: dict[str, Callable[[], AbstractContextManager[Any]]]
    ) -> None:
        unknown = {
            "anthropic": Canned(404, anthropic_api.error("not_found_error", "model: small")),
            "bedrock": bedrock_api.failed(
                400, "ValidationException", "The provided model identifier is invalid."
            ),
            "vertex": Canned(404, vertex_api.error(404, "NOT_FOUND", "Publisher Model small")),
        }
        words = {
            "openai": "model_not_found",
            "azure": "DeploymentNotFound",
            "anthropic": "not_found_error: model: small",
            "bedrock": "model identifier is invalid",
            "vertex": "NOT_FOUND: Publisher Model small",
        }
        with open_api[kind.name]() as api:
            if kind.name in unknown:
                api.script(unknown[kind.name])
            attempt = await failed(kind, self.address(kind, api))
        assert attempt.kind is K.DENIED
        assert attempt.status == (400 if kind.name == "bedrock" else 404)
        assert words[kind.name] in attempt.message
