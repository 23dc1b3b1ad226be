"""The provider `extractive`."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from model_workers.extractive import Sentence, lead_order
from model_workers.providers import extractive
from model_workers.providers.base import Provider
from model_workers.providers.extractive import Extractive
from modelyard.catalog import Model
from modelyard.errors import FailureKind, ProviderError
from modelyard.messages import Message, Request
from modelyard.tokens import estimate_tokens

STORY = "The cat sat on the mat. The dog ran. A bird sang in the tree. All of them slept."


def model(name: str) -> Model:
    return Model(name="local-small", provider="extractive", model=name)


@pytest.fixture
async def lead() -> AsyncIterator[Extractive]:
    provider = Extractive(model("lead"))
    yield provider
    await provider.aclose()


@pytest.mark.parametrize("name", ["lead", "centroid-mmr"])
async def test_an_answer_says_that_it_is_extractive(name: str) -> None:
    provider: Provider = Extractive(model(name))

    completion = await provider.complete(Request.model_validate({"text": STORY}))
    await provider.aclose()

    assert completion.extractive
    assert completion.provider_model == f"extractive/{name}"
    assert completion.finish_reason == "stop"
    assert completion.usage.input_tokens == estimate_tokens(STORY)
    assert 0 < completion.usage.output_tokens < estimate_tokens(STORY)


async def test_only_the_users_messages_are_summarized(lead: Extractive) -> None:
    request = Request(
        messages=(
            Message(role="system", content="You are a pirate. Talk like one."),
            Message(role="user", content=f"Summarize in one sentence:\n{STORY}"),
            Message(role="assistant", content="Aye."),
        )
    )

    assert (await lead.complete(request)).text == "The cat sat on the mat. [1]"


async def test_max_tokens_bounds_the_answer(lead: Extractive) -> None:
    request = Request.model_validate({"text": STORY, "params": {"max_tokens": 2}})

    completion = await lead.complete(request)

    assert completion.usage.output_tokens <= 2
    assert completion.text == "The cat"
    assert completion.finish_reason == "length"


async def test_the_models_own_limit_bounds_the_answer_if_the_request_names_none() -> None:
    provider = Extractive(model("lead").model_copy(update={"max_output_tokens": 9}))

    short = await provider.complete(Request.of(STORY))
    asked = await provider.complete(
        Request.model_validate({"text": STORY, "params": {"max_tokens": 90}})
    )
    await provider.aclose()

    assert short.text == "The cat sat on the mat. [1]"
    assert len(asked.text) > len(short.text)


@pytest.mark.parametrize("text", ["...", "Summarize the following document:"])
async def test_no_document_is_an_invalid_request(lead: Extractive, text: str) -> None:
    with pytest.raises(ProviderError, match="no document") as caught:
        await lead.complete(Request.of(text))

    assert caught.value.kind is FailureKind.INVALID


@pytest.mark.parametrize("value", [0, -1, "9", 1.5, True])
async def test_a_bad_max_tokens_is_an_invalid_request(lead: Extractive, value: object) -> None:
    with pytest.raises(ProviderError, match="max_tokens") as caught:
        await lead.complete(
            Request.model_validate({"text": STORY, "params": {"max_tokens": value}})
        )

    assert caught.value.kind is FailureKind.INVALID


def test_an_unknown_algorithm_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ProviderError, match=r"'gpt-9'.*lead.*centroid-mmr") as caught:
        Extractive(model("gpt-9"))

    assert caught.value.kind is FailureKind.PERMANENT


async def test_the_loop_keeps_running_during_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    ticked = threading.Event()
    started_on: list[threading.Thread] = []

    def slow_order(sentences: Sequence[Sentence]) -> Iterator[Sentence]:
        # Comes to an end only if the loop runs meanwhile.
        started_on.append(threading.current_thread())
        assert ticked.wait(timeout=30), "the loop stood still"
        yield from lead_order(sentences)

    monkeypatch.setattr(extractive, "ORDERS", {"lead": slow_order})
    provider = Extractive(model("lead"))
    call = asyncio.create_task(provider.complete(Request.model_validate({"text": STORY})))
    asyncio.get_running_loop().call_later(0.01, ticked.set)

    assert (await call).text
    assert started_on != [threading.current_thread()]
    await provider.aclose()


async def test_a_closed_provider_takes_no_calls_and_leaves_no_threads() -> None:
    provider = Extractive(model("lead"))
    await provider.complete(Request.model_validate({"text": STORY}))
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("extractive-")]

    await provider.aclose()
    await provider.aclose()

    for thread in mine:
        thread.join(timeout=30)
        assert not thread.is_alive()
    with pytest.raises(ProviderError, match="closed") as caught:
        await provider.complete(Request.model_validate({"text": STORY}))
    assert caught.value.kind is FailureKind.RETRYABLE


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"params": {"tools": [{"type": "function"}]}}, "params.tools"),
        ({"params": {"response_format": {"type": "json_object"}}}, "params.response_format"),
        (
            {
                "text": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "https://pictures.test/cat.png"}},
                ]
            },
            "images",
        ),
    ],
)
async def test_what_it_can_not_do_is_left_to_another_model(
    lead: Extractive, more: dict[str, Any], words: str
) -> None:
    request = Request.model_validate({"text": "Some text. And more of it.", **more})
    with pytest.raises(ProviderError, match=words) as caught:
        await lead.complete(request)
    assert caught.value.kind is FailureKind.PERMANENT
