"""Conditions of rules: what each of them holds for, and what the reasons say."""

from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelyard.catalog_doubts import never_reached
from modelyard.messages import Request
from modelyard.routes import Language, Route, Rule, When
from router_worker.features import features
from router_worker.language import _SCRIPTS, _SMALL_WORDS
from router_worker.rules import View, matches, prepare, why


def view(text: str = "hello", **fields: Any) -> View:
    return View(features(Request.of(text)), **fields)


def when(**conditions: Any) -> When:
    return When.model_validate(conditions)


@pytest.mark.parametrize(
    ("conditions", "text", "because"),
    [
        ({"keywords": ["tl;dr"]}, "TL;DR please", "keyword 'tl;dr'"),
        ({"pattern": r"order\s+#\d{4}"}, "Where is Order  #1234?", "pattern matches"),
        ({"has": ["code"]}, "```\nx = 1\n```", "has code"),
        ({"has": ["question"]}, "Why is it red?", "has question"),
        ({"languages": ["de"]}, "Wie kann ich mein Konto schließen?", "language de"),
        ({"languages": ["ja", "zh"]}, "注文はどこですか", "language ja"),
        ({"min_complexity": 1, "max_complexity": 1}, "hi", "complexity 1"),
        ({"any": [{"keywords": ["a"]}, {"keywords": ["hello"]}]}, "hello", "keyword 'hello'"),
        ({"all": [{"max_tokens": 9}, {"keywords": ["hello"]}]}, "hello", "at most 9 and keyword"),
        ({"not": {"keywords": ["bye"]}}, "hello", "what it excludes does not hold"),
    ],
)
def test_a_condition_holds_and_says_why(
    conditions: dict[str, Any], text: str, because: str
) -> None:
    assert because in (why(when(**conditions), view(text)) or "it did not match")


@pytest.mark.parametrize(
    ("conditions", "text"),
    [
        ({"keywords": ["cat"]}, "concatenate"),
        ({"pattern": r"^\d+$"}, "order 12"),
        ({"has": ["code", "math"]}, "print it in Python"),
        ({"languages": ["de"]}, "How can I close my account?"),
        ({"min_complexity": 4}, "hi"),
        ({"any": [{"keywords": ["a"]}, {"keywords": ["b"]}]}, "hello"),
        ({"all": [{"keywords": ["hello"]}, {"keywords": ["b"]}]}, "hello"),
        ({"not": {"keywords": ["hello"]}}, "hello"),
    ],
)
def test_a_condition_does_not_hold(conditions: dict[str, Any], text: str) -> None:
    assert why(when(**conditions), view(text)) is None


def test_metadata_has_one_of_the_values_or_any() -> None:
    tiers = when(metadata={"tier": ["gold", "silver"], "user": "*"})

    assert why(tiers, view(metadata={"tier": "gold", "user": "u1"})) is not None
    assert why(tiers, view(metadata={"tier": "bronze", "user": "u1"})) is None
    assert why(tiers, view(metadata={"tier": "gold"})) is None


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("moment", "holds"),
    [
        ("2026-11-23T22:00", True),  # a Monday
        ("2026-11-23T21:59", False),
        ("2026-11-24T05:59", True),  # the night that began on Monday
        ("2026-11-24T06:00", False),
        ("2026-11-24T23:00", False),
        ("2026-11-23T03:00", False),  # the night that began on Sunday
    ],
)
def test_a_night_belongs_to_the_day_on_which_it_begins(moment: str, holds: bool) -> None:
    monday_night = when(hours="22:00-06:00", days=["mon"])

    assert (why(monday_night, view(now=at(moment))) is not None) is holds


def test_hours_are_those_of_the_time_zone() -> None:
    office = when(hours="09:00-17:00", timezone="Asia/Tokyo")

    assert why(office, view(now=at("2026-11-23T00:30"))) == "it is Mon 09:30 in Asia/Tokyo"
    assert why(office, view(now=at("2026-11-23T12:00"))) is None


def test_an_escalated_session_is_a_condition() -> None:
    assert why(when(escalated=True), view(escalated=True)) is not None
    assert why(when(escalated=True), view()) is None
    assert why(when(escalated=False), view()) is not None


@pytest.mark.parametrize(
    ("conditions", "problem"),
    [
        ({}, "needs a condition"),
        ({"timezone": "UTC"}, "needs a condition"),
        ({"pattern": "(unclosed"}, "not a regular expression"),
        ({"pattern": r"(a)\1"}, "not a regular expression"),
        ({"hours": "9-17"}, "write hours as"),
        ({"hours": "09:00-09:00"}, "can never match"),
        ({"min_tokens": 2, "max_tokens": 1}, "can never match"),
        ({"min_complexity": 5, "max_complexity": 1}, "can never match"),
        ({"timezone": "Mars/Base", "hours": "01:00-02:00"}, "unknown time zone"),
    ],
)
def test_a_condition_that_can_not_be_is_told_at_once(
    conditions: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        when(**conditions)


def test_a_rule_behind_another_of_the_same_conditions_is_told_at_once() -> None:
    rule = Rule(when=when(keywords=["a"]), intent="x", models=("m",))
    with pytest.raises(ValidationError, match="rule 2 can never match"):
        Route(rules=(rule, rule), otherwise=("m",))
    with pytest.raises(ValidationError, match="rule 2 can never match"):
        Route(rules=(rule, rule), classifier="builtin", otherwise=("m",))


def test_in_a_hybrid_route_the_same_conditions_may_ask_the_classifier() -> None:
    one, two = (
        Rule(when=when(keywords=["a"]), intent=intent, models=("m",)) for intent in ("x", "y")
    )
    assert Route(rules=(one, two), classifier="builtin", otherwise=("m",)).rules == (one, two)
    with pytest.raises(ValidationError, match="rule 2 can never match"):
        Route(rules=(one, two), otherwise=("m",))


def test_a_pattern_that_is_catastrophic_elsewhere_is_not_here() -> None:
    # In a backtracking engine this takes some 2**40 steps.
    evil = when(pattern=r"^(a+)+$")

    assert why(evil, view("a" * 2_000 + "!")) is None


def test_all_that_match_are_told_in_order() -> None:
    route = Route(
        rules=(
            Rule(when=when(keywords=["hello"]), intent="x", models=("m",)),
            Rule(when=when(keywords=["bye"]), intent="y", models=("m",)),
            Rule(when=when(max_tokens=100), intent="z", models=("m",)),
        ),
        otherwise=("m",),
    )
    prepare(route)

    assert [(each.position, each.rule.intent) for each in matches(route, view())] == [
        (0, "x"),
        (2, "z"),
    ]


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1, max_size=5).filter(str.strip))
def test_not_is_the_opposite(text: str, keyword: str) -> None:
    plain, negated = when(keywords=[keyword]), when(**{"not": {"keywords": [keyword]}})

    try:
        seen = view(text)
    except ValidationError:
        return  # no Unicode
    assert (why(plain, seen) is None) is not (why(negated, seen) is None)


@pytest.mark.parametrize(
    "always",
    [
        {"min_tokens": 0},
        {"min_complexity": 1, "max_complexity": 5},
        {"any": [{"keywords": ["a"]}, {"min_tokens": 0}]},
        {"all": [{"min_tokens": 0}, {"min_complexity": 1}]},
    ],
)
def test_a_rule_after_one_that_always_matches_comes_too_late(always: dict[str, Any]) -> None:
    first = {"when": always, "intent": "x", "models": ["m"]}
    second = {"when": {"keywords": ["a"]}, "intent": "y", "models": ["m"]}

    assert never_reached(Route.model_validate({"rules": [first, second], "otherwise": ["m"]})) == [
        (2, 1)
    ]
    assert not never_reached(Route.model_validate({"rules": [second, first], "otherwise": ["m"]}))
    # Where several match, the classifier decides between them.
    both = {"rules": [first, second], "classifier": "builtin", "otherwise": ["m"]}
    assert not never_reached(Route.model_validate(both))


@pytest.mark.parametrize(
    "sometimes",
    [
        {"min_tokens": 0, "keywords": ["b"]},
        {"min_tokens": 0, "max_tokens": 9},
        {"min_tokens": 2},
        {"not": {"min_tokens": 0}},
        {"all": [{"min_tokens": 0}, {"has": ["code"]}]},
        {"min_complexity": 1, "escalated": False},
    ],
)
def test_a_rule_that_matches_sometimes_may_come_first(sometimes: dict[str, Any]) -> None:
    first = {"when": sometimes, "intent": "x", "models": ["m"]}
    second = {"when": {"keywords": ["a"]}, "intent": "y", "models": ["m"]}
    route = Route.model_validate({"rules": [first, second], "otherwise": ["m"]})
    assert not never_reached(route)


@pytest.mark.parametrize(
    "conditions",
    [
        {"keywords": []},
        {"metadata": {}},
        {"any": []},
        {"all": [], "timezone": "Europe/Berlin"},
        {"has": [], "not": {"languages": []}},
        {"languages": ["fi"]},
        {"languages": ["EN"]},
    ],
)
def test_conditions_that_always_or_never_hold_are_refused(conditions: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        when(**conditions)


def test_a_rule_may_ask_for_every_language_that_can_be_told_and_for_no_other() -> None:
    assert set(get_args(Language)) == {name for name, _, _ in _SCRIPTS} | _SMALL_WORDS.keys()


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("翻译", "请翻译这段话", True),
        ("แปล", "ช่วยแปลข้อความนี้", True),
        ("번역", "이 글을 번역해 주세요", True),
        ("tシャツ", "白いTシャツをください", True),
        ("translate", "これをtranslateして", True),
        ("シャツ", "きれいなシャッター", False),
        ("cat", "concatenate", False),
        ("straße", "Hauptstraße", False),
        ("सेवा", "सेवाएं", False),
        ("सेवा", "मुझे सेवा चाहिए", True),
    ],
)
def test_words_are_whole_where_the_script_has_spaces(keyword: str, text: str, found: bool) -> None:
    assert (why(when(keywords=[keyword]), view(text)) is not None) is found


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("speak to a person", "May I speak to\na person?"),
        ("speak to a person", "may i speak  to a\tperson"),
        ("speak  to a person", "speak to a person"),
        ("réclamation", "une re\u0301clamation"),
        ("re\u0301clamation", "Une RÉCLAMATION"),
        ("can't log in", "I can\u2019t log in"),
        ("can\u2019t log in", "I can't log in"),
        ("can't log in", "I can\u00b4t log in"),
        ("can\u00b4t log in", "I can\u2019t log in"),
        ("complaint", "a com\u00adplaint"),
        ("com\u00adplaint", "a complaint"),
        ("\u2116 5", "Chapter \u2116 5"),
        ("ｒｅｆｕｎｄ", "refund"),
        (".pdf", "see report.pdf"),
        ("?", "really?"),
        ("$", "US$5"),
        ("c++", "C++ or Rust"),
    ],
)
def test_a_keyword_is_found_however_it_is_typed(keyword: str, text: str) -> None:
    assert why(when(keywords=[keyword]), view(text)) is not None


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        (".pdf", "report.pdfs"),
        ("c++", "abc++"),
        ("#1", "#12"),
        ("?", "no"),
        ("\u2116", "No, thanks"),
    ],
)
def test_the_side_of_a_keyword_that_is_a_letter_stays_whole(keyword: str, text: str) -> None:
    assert why(when(keywords=[keyword]), view(text)) is None


def test_rules_hear_the_user_and_nobody_else() -> None:
    messages = [
        {"role": "system", "content": "Escalate a complaint to a human."},
        {"role": "assistant", "content": "I am not a human."},
        {"role": "user", "content": "hi"},
    ]
    seen = View(features(Request.model_validate({"messages": messages})))

    assert why(when(keywords=["human", "complaint"]), seen) is None
    assert why(when(pattern="human|complaint"), seen) is None
    assert why(when(min_tokens=10), seen) is not None
