"""A parameter that the provider of one endpoint lacks: another endpoint of the model takes it."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fakes.anthropic_api import AnthropicApi

from model_workers.caller import Answered, Caller, Failed
from model_workers.providers.anthropic import Anthropic
from model_workers.providers.over_http import OverHttp
from modelyard.advance import NextStep
from modelyard.catalog import Catalog
from modelyard.errors import FailureKind
from modelyard.messages import Call, Request
from modelyard.plan import Decision, Plan, Step
from modelyard.testing import FakeProvider, Reply

KEY = "sk-very-secret-0123456789"
SEEDED = {"seed": 1}
"""OpenAI's API has a seed, and Anthropic's has none."""


@pytest.fixture
def claude() -> Iterator[AnthropicApi]:
    with AnthropicApi(KEY) as api:
        yield api


@pytest.fixture
def gpt() -> Iterator[FakeProvider]:
    with FakeProvider(api_key=KEY) as provider:
        yield provider


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    caller = Caller()
    yield caller
    await caller.aclose()


def catalog(claude: AnthropicApi, *others: FakeProvider) -> Catalog:
    """A model that is nearly always called at `claude`, and one that a plan may go on to."""
    endpoints: list[dict[str, Any]] = [
        {"name": "claude", "base_url": claude.base_url, "provider": "anthropic", "weight": 1000},
        *({"name": "gpt", "base_url": each.base_url} for each in others),
    ]
    one = {
        "name": "m",
        "provider": "openai",
        "endpoints": [{"api_key": KEY, **each} for each in endpoints],
        "retry": {"base_s": 0.01, "cap_s": 0.02},
    }
    last = {"name": "last", "provider": "extractive", "model": "lead"}
    routes = {"default": {"otherwise": ["m", "last"]}}
    return Catalog.model_validate({"models": [one, last], "routes": routes})


async def called(caller: Caller, catalog: Catalog, request: Request) -> Answered | Failed:
    plan = Plan(steps=(Step(model="m"), Step(model="last")))
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=0.0, plan=plan
    )
    return await caller.call(catalog, "id", "", Call(request=request, decision=decision), request)


async def test_it_is_called_where_the_parameter_is_known_and_refused_nowhere(
    caller: Caller, claude: AnthropicApi, gpt: FakeProvider
) -> None:
    known = catalog(claude, gpt)
    plain = await called(caller, known, Request.of("hello"))
    assert [str(each.endpoint) for each in plain.attempts] == ["claude"]
    for _ in range(5):
        seeded = await called(caller, known, Request.of("hello", params=SEEDED))
        assert isinstance(seeded, Answered)
        assert [str(each.endpoint) for each in seeded.attempts] == ["gpt"]
    assert len(gpt.calls) == 5


async def test_where_that_endpoint_fails_the_request_goes_to_the_next_model(
    caller: Caller, claude: AnthropicApi, gpt: FakeProvider
) -> None:
    gpt.always("m", Reply(status=500))
    failed = await called(caller, catalog(claude, gpt), Request.of("hello", params=SEEDED))
    assert isinstance(failed, Failed) and isinstance(failed.move, NextStep)
    assert {(str(each.endpoint), each.kind) for each in failed.attempts} == {
        ("gpt", FailureKind.RETRYABLE)
    }


async def test_where_no_endpoint_knows_it_the_model_refuses_it_by_name(
    caller: Caller, claude: AnthropicApi
) -> None:
    failed = await called(caller, catalog(claude), Request.of("hello", params=SEEDED))
    assert isinstance(failed, Failed) and isinstance(failed.move, NextStep)
    (refusal,) = failed.attempts
    assert refusal.kind is FailureKind.PERMANENT and "'seed'" in refusal.message


async def test_a_bug_in_a_provider_is_a_failed_attempt_and_not_the_request_s_end(
    caller: Caller, claude: AnthropicApi, gpt: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(self: Any, request: Request) -> bytes:
        raise KeyError("a bug")

    monkeypatch.setattr(Anthropic.dialect, "encode", encode)
    failed = await called(caller, catalog(claude, gpt), Request.of("hello"))
    assert isinstance(failed, Failed) and isinstance(failed.move, NextStep)
    (attempt,) = failed.attempts
    assert attempt.endpoint == "claude" and "KeyError" in attempt.message


async def test_a_request_is_encoded_once_for_each_provider_to_learn_what_it_lacks(
    caller: Caller, claude: AnthropicApi, gpt: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[OverHttp] = []
    lacks = OverHttp.lacks

    def counted(self: OverHttp, request: Request) -> str | None:
        asked.append(self)
        return lacks(self, request)

    monkeypatch.setattr(OverHttp, "lacks", counted)
    gpt.always("m", Reply(status=500))
    failed = await called(caller, catalog(claude, gpt), Request.of("hello", params=SEEDED))
    assert len(failed.attempts) > 1
    assert len(asked) == 2
