"""The router's decisions: rules, candidates, and what becomes of bad input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog import Catalog, Model
from modelyard.messages import DeadReason, Request
from modelyard.routes import Route, Rule, When
from router_worker.features import HEAD_CHARS, features
from router_worker.forward import Forwarded, Refused, forward, summary
from router_worker.policy import Unroutable, decide
from router_worker.rules import View, why

NOW = 1_000.0


def local(name: str, context_tokens: int = 10_000) -> Model:
    return Model(name=name, provider="extractive", context_tokens=context_tokens)


CATALOG = Catalog(
    models=(
        local("small", 2_000),
        local("large"),
        Model.model_validate(
            {
                "name": "keyless",
                "provider": "openai",
                "endpoints": [{"base_url": "https://api.example/v1", "disabled": "SOME_KEY"}],
            }
        ),
    ),
    routes={
        "default": Route(
            rules=(
                Rule(
                    when=When(keywords=("summarize", "tl;dr")),
                    intent="summarize",
                    models=("small", "large"),
                ),
                Rule(when=When(min_tokens=600), intent="long", models=("large",)),
            ),
            otherwise=("keyless", "small", "large"),
        ),
        "dead": Route(otherwise=("keyless",)),
    },
)


def models_for(text: str, **fields: object) -> list[str]:
    decision = decide(Request.of(text, **fields), CATALOG, NOW)
    return [step.model for step in decision.plan.steps]


def test_the_first_rule_that_matches_wins() -> None:
    decision = decide(Request.of("Summarize this: " + "word " * 700), CATALOG, NOW)

    assert (decision.rule, decision.intent) == (0, "summarize")
    assert [step.model for step in decision.plan.steps] == ["small", "large"]


def test_without_a_match_the_route_s_own_order_holds() -> None:
    decision = decide(Request.of("hello"), CATALOG, NOW)

    assert (decision.rule, decision.intent) == (None, "other")
    assert "no rule of route 'default' matched" in decision.why


def test_a_model_without_its_key_is_left_out_and_said_so() -> None:
    decision = decide(Request.of("hello"), CATALOG, NOW)

    assert [step.model for step in decision.plan.steps] == ["small", "large"]
    assert [(each.model, each.why) for each in decision.excluded] == [
        ("keyless", "SOME_KEY is not set")
    ]


def test_a_model_whose_window_is_too_small_is_left_out() -> None:
    assert models_for("Summarize: " + "word " * 5_000) == ["large"]


def test_a_request_may_name_its_models_in_its_own_order() -> None:
    assert models_for("Summarize this", models=["large", "small"]) == ["large", "small"]


def test_what_nobody_can_take_is_refused_with_every_reason() -> None:
    with pytest.raises(Unroutable, match="keyless: SOME_KEY is not set"):
        decide(Request.of("hello", route="dead"), CATALOG, NOW)
    with pytest.raises(Unroutable, match="unknown route 'defaul'"):
        decide(Request.of("hello", route="defaul"), CATALOG, NOW)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("please SUMMARIZE it", True),
        ("TL;DR: what happened?", True),
        ("a summarizer", False),
        ("unsummarized", False),
        ("(summarize)", True),
        ("", False),
    ],
)
def test_a_keyword_is_a_whole_word_whatever_its_case(text: str, found: bool) -> None:
    seen = features(Request.of(text or "x"))
    assert (why(When(keywords=("summarize", "tl;dr")), View(seen)) is not None) is found


def test_a_keyword_deep_inside_a_document_is_not_what_is_asked() -> None:
    filler = "word " * HEAD_CHARS
    assert models_for(f"{filler} summarize {filler}"[: 9 * HEAD_CHARS]) == ["large"]
    assert "summarize" in features(Request.of(f"{filler} summarize")).gist


@given(st.text(min_size=1).filter(str.strip), st.integers(0, 50), st.integers(0, 50))
def test_token_bounds_include_their_ends(text: str, low: int, spread: int) -> None:
    seen = features(Request.of(text))
    when = When(min_tokens=low, max_tokens=low + spread)
    assert (why(when, View(seen)) is not None) is (low <= seen.input_tokens <= low + spread)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
        max_leaves=8,
    )
)
def test_any_payload_is_forwarded_or_refused_and_never_raises(payload: object) -> None:
    outcome = forward("id", payload, CATALOG, NOW)

    if isinstance(outcome, Refused):
        assert outcome.letter.reason is DeadReason.INVALID
        assert outcome.letter.id == "id"


def test_an_expired_request_goes_nowhere() -> None:
    outcome = forward("id", {"text": "hello", "deadline": NOW}, CATALOG, NOW)

    assert isinstance(outcome, Refused)
    assert outcome.letter.reason is DeadReason.EXPIRED
    assert outcome.letter.request == {"text": "hello", "deadline": NOW}


def test_a_decision_in_a_few_words() -> None:
    outcome = forward("id", {"text": "tl;dr of this"}, CATALOG, NOW)

    assert isinstance(outcome, Forwarded)
    assert summary(outcome.call.decision) == "summarize, about 4 tokens, to small then large"


def test_what_is_refused_does_not_repeat_what_was_sent() -> None:
    outcome = forward("id", {"text": 7, "secret": "hunter2"}, CATALOG, NOW)

    assert isinstance(outcome, Refused)
    assert "hunter2" not in outcome.letter.message
