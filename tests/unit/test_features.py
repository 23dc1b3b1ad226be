"""What the router sees in a text."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.messages import Request
from router_worker.features import HEAD_CHARS, TAIL_CHARS, features
from router_worker.language import language


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("def add(a, b):\n    return a + b", {"code"}),
        ("Solve 3 * x = 12", {"math"}),
        ("Who wrote it?", {"question"}),
        ("- milk\n- bread", {"list"}),
        ("First boil it, then drain it", {"steps"}),
        ("red or blue, but not green", {"logic"}),
        ("see https://example.org/x", {"url"}),
        ("answer in JSON", {"json", "code"}),
        ("good morning", set()),
    ],
)
def test_traits(text: str, traits: set[str]) -> None:
    assert features(Request.of(text)).traits >= traits
    if not traits:
        assert not features(Request.of(text)).traits


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Where is my order, and when will it come?", "en"),
        ("Wo ist meine Bestellung und wann kommt sie?", "de"),
        ("Où est ma commande et pourquoi elle n'est pas là ?", "fr"),
        ("¿Dónde está mi pedido y cuál es el problema?", "es"),
        ("Dov'è il mio ordine e perché non arriva?", "it"),
        ("Onde está o meu pedido e por que não chega?", "pt"),
        ("Где мой заказ?", "ru"),
        ("Де моє замовлення і чому воно їде так довго?", "uk"),
        ("注文した商品はどこですか", "ja"),
        ("我的订单在哪里", "zh"),
        ("내 주문은 어디에 있나요", "ko"),
        ("أين طلبي", "ar"),
        ("Naïve café “quotes” – and the rest of it is in English", "en"),
        ("xyzzy", ""),
        ("", ""),
    ],
)
def test_languages(text: str, expected: str) -> None:
    assert language(text.casefold()) == expected


def test_harder_requests_look_harder() -> None:
    easy = features(Request.of("Hi there"))
    middle = features(Request.of("Compare tea and coffee for somebody who must not sleep badly."))
    hard = features(
        Request.of(
            "Design a rate limiter in Python step by step: first derive the formula, then prove "
            "that at most 10 of 100 requests per 60 seconds pass unless the burst is 20, compare "
            "it with a token bucket and optimize it. All tests must pass, and no lock is allowed "
            "except in Redis. Finally evaluate the trade-offs for Europe, Asia and America."
        )
    )

    assert easy.complexity == 1
    assert easy.complexity < middle.complexity < hard.complexity
    assert hard.complexity == 5


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("Write 500 words about rain", 600, 700),
        ("Is it raining? Answer yes or no", 1, 50),
        ("Give me 10 ideas for a party", 300, 300),
        ("Write a detailed report on tides", 800, 800),
    ],
)
def test_the_length_of_the_answer_is_read_off_the_request(text: str, low: int, high: int) -> None:
    assert low <= features(Request.of(text)).output_tokens <= high


def test_the_longest_answer_that_is_allowed_bounds_it() -> None:
    assert features(Request.of("Write an essay", params={"max_tokens": 50})).output_tokens == 50


def test_what_is_between_head_and_tail_is_only_counted() -> None:
    text = "a " * HEAD_CHARS + "```" + " b" * (TAIL_CHARS + 1)
    seen = features(Request.of(text))

    assert "code" not in seen.traits
    assert seen.input_tokens > len(seen.text) / 4


def conversation(*turns: tuple[str, str], **fields: Any) -> Request:
    messages = [{"role": role, "content": content} for role, content in turns]
    return Request.model_validate({"messages": messages, **fields})


def test_a_system_prompt_and_the_models_own_turns_ask_nothing() -> None:
    alone = features(Request.of("hi"))
    seen = features(
        conversation(
            ("system", "Escalate a complaint to a human. Answer in JSON. " * 100),
            ("user", "hi"),
            ("assistant", "I am not a human. Shall I write a story in Python?"),
            ("user", "hi"),
        )
    )

    assert seen.text == "hi\nhi"
    assert (seen.traits, seen.complexity) == (alone.traits, alone.complexity)
    assert seen.output_tokens == alone.output_tokens
    assert seen.input_tokens > 1_000


def test_the_turns_of_the_user_are_in_order_and_the_newest_are_those_that_fit() -> None:
    turns = ["a" * 1_000, "b" * 1_000, "c" * 1_000, "last"]
    seen = features(conversation(*(("user", turn) for turn in turns)))

    assert seen.text == "\n".join(turns[1:])


def test_the_last_turn_of_the_user_is_there_as_a_whole() -> None:
    document = "word " * HEAD_CHARS
    seen = features(
        conversation(
            ("user", "Solve 3 * x = 12"),
            ("assistant", "4"),
            ("user", f"{document} what is this about?"),
        )
    )
    short = features(conversation(("user", document), ("assistant", "Yes."), ("user", "bye")))

    assert seen.text.endswith("what is this about?")
    assert "math" not in seen.traits
    assert short.text == "bye"


def test_what_no_user_says_is_read_all_the_same() -> None:
    seen = features(conversation(("system", "Write a poem."), ("developer", "Solve 3 * x = 12")))
    assert "math" in seen.traits


@given(st.text(min_size=1).filter(str.strip), st.text())
def test_a_system_prompt_changes_nothing_but_the_tokens(text: str, system: str) -> None:
    alone = features(Request.of(text))
    seen = features(conversation(("system", system), ("user", text)))

    assert replace(seen, input_tokens=alone.input_tokens) == alone
    assert seen.input_tokens >= alone.input_tokens


@given(st.text(min_size=1, max_size=3_000).filter(str.strip))
def test_any_text_has_features(text: str) -> None:
    request = Request.model_construct(messages=(), params={})
    try:
        request = Request.of(text)
    except ValueError:
        return  # no Unicode
    seen = features(request)

    assert 1 <= seen.complexity <= 5
    assert seen.output_tokens > 0
    assert seen.language == "" or len(seen.language) == 2
