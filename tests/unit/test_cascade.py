"""What follows an answer in a cascade, and which draft is the best."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.cascade import (
    AskJudge,
    Escalate,
    Sample,
    Stands,
    after_answer,
    after_grade,
    best,
    escalated_session,
    sampled,
    wants_confidence,
)
from modelyard.messages import Call, Draft, Request
from modelyard.plan import Accept, Decision, Plan, Step, Strategy

NOW = 1_000.0
GOOD = Draft(model="a", text="fine")


def call(
    *models: str,
    accept: Accept | None,
    step: int = 0,
    strategy: Strategy = Strategy.CASCADE,
    drafts: tuple[Draft, ...] = (),
    **request: Any,
) -> Call:
    plan = Plan(strategy=strategy, steps=tuple(Step(model=m) for m in models), accept=accept)
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=NOW, plan=plan
    )
    return Call(request=Request.of("hello", **request), decision=decision, step=step, drafts=drafts)


def everything(model: str) -> bool:
    return True


FINE = Accept(expression='text == "fine"')


def test_an_answer_that_meets_the_conditions_stands_and_another_escalates() -> None:
    asked = call("a", "b", accept=FINE)
    assert after_answer(asked, GOOD, None, everything, NOW) == Stands()
    move = after_answer(asked, Draft(model="a", text="bad"), None, everything, NOW)
    assert isinstance(move, Escalate)
    assert move.step == 1
    assert move.why.startswith("expression")


def test_the_last_model_s_answer_stands_whatever_it_is() -> None:
    bad = Draft(model="b", text="bad")
    last = call("a", "b", accept=FINE, step=1)
    assert after_answer(last, bad, None, everything, NOW) == Stands()


def test_models_that_nobody_serves_are_left_out() -> None:
    bad, asked = Draft(model="a", text="bad"), call("a", "b", "c", accept=FINE)
    move = after_answer(asked, bad, None, lambda model: model != "b", NOW)
    assert isinstance(move, Escalate)
    assert move.step == 2
    assert after_answer(asked, bad, None, lambda model: model == "a", NOW) == Stands()


def test_after_the_deadline_what_there_is_stands() -> None:
    bad = Draft(model="a", text="bad")
    late = call("a", "b", accept=FINE, deadline=NOW)
    assert after_answer(late, bad, None, everything, NOW) == Stands()
    assert isinstance(after_answer(late, bad, None, everything, NOW - 1), Escalate)


def test_a_plan_that_is_no_cascade_accepts_every_answer() -> None:
    bad = Draft(model="a", text="bad")
    single = call("a", "b", accept=None, strategy=Strategy.SINGLE)
    assert after_answer(single, bad, None, everything, NOW) == Stands()


def test_conditions_that_can_t_be_used_accept_nothing() -> None:
    asked = call("a", "b", accept=Accept.model_construct(expression="import os"))
    move = after_answer(asked, GOOD, None, everything, NOW)
    assert isinstance(move, Escalate)
    assert "can't be used" in move.why


def test_samples_are_asked_for_once_and_their_share_decides() -> None:
    asked = call("a", "b", accept=Accept(agreement=0.75, samples=4))
    assert after_answer(asked, GOOD, None, everything, NOW) == Sample(3)
    assert after_answer(asked, GOOD, ["fine", "Fine.", "no"], everything, NOW) == Stands()
    move = after_answer(asked, GOOD, ["fine", "no", "no"], everything, NOW)
    assert move == Escalate(1, "50% of 4 answers agree, fewer than 75%")


def test_a_sample_that_did_not_come_does_not_agree() -> None:
    asked = call("a", "b", accept=Accept(agreement=0.75, samples=4))
    assert isinstance(after_answer(asked, GOOD, ["fine"], everything, NOW), Escalate)


def test_what_costs_nothing_is_tried_before_samples_and_these_before_the_judge() -> None:
    accept = Accept(expression='text == "fine"', agreement=1.0, samples=2, judge="j")
    asked = call("a", "b", accept=accept)
    bad = Draft(model="a", text="bad")
    assert isinstance(after_answer(asked, bad, None, everything, NOW), Escalate)
    assert after_answer(asked, GOOD, None, everything, NOW) == Sample(1)
    assert isinstance(after_answer(asked, GOOD, ["other"], everything, NOW), Escalate)
    assert after_answer(asked, GOOD, ["fine"], everything, NOW) == AskJudge()


def test_a_judge_that_is_not_in_the_catalog_accepts_nothing() -> None:
    asked = call("a", "b", accept=Accept(judge="j"))
    move = after_answer(asked, GOOD, None, lambda model: model != "j", NOW)
    assert move == Escalate(1, "the judge 'j' is not in the catalog")


@pytest.mark.parametrize(
    ("grade", "move"),
    [
        (0.8, Stands()),
        (1.0, Stands()),
        (0.7, Escalate(1, "j graded it 0.7, below 0.8")),
        (None, Escalate(1, "it says nothing")),
    ],
)
def test_a_grade_from_the_floor_on_is_enough(grade: float | None, move: object) -> None:
    asked = call("a", "b", accept=Accept(judge="j", judge_floor=0.8))
    assert after_grade(asked, grade, "it says nothing", everything, NOW) == move


def test_a_seed_differs_from_sample_to_sample() -> None:
    seeded = Request.of("hello", params={"seed": 7, "temperature": 1})
    assert sampled(seeded, 2).params == {"seed": 9, "temperature": 1}
    assert sampled(Request.of("hello"), 2) == Request.of("hello")


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        (FINE, False),
        (Accept(min_confidence=0.5), True),
        (Accept(expression="confidence is None or confidence > 0.5"), True),
    ],
)
def test_probabilities_are_asked_for_only_if_a_condition_needs_them(
    accept: Accept | None, wanted: bool
) -> None:
    assert wants_confidence(accept) is wanted


fractions = st.none() | st.floats(0, 1)
drafts = st.lists(
    st.builds(Draft, model=st.just("a"), text=st.text(), score=fractions, confidence=fractions),
    min_size=1,
)


@given(drafts)
def test_the_best_draft_has_the_highest_score_else_confidence_else_is_the_latest(
    every: list[Draft],
) -> None:
    taken = best(every)
    scores = [draft.score for draft in every if draft.score is not None]
    confidences = [draft.confidence for draft in every if draft.confidence is not None]
    if scores:
        assert taken.score == max(scores)
    elif confidences:
        assert taken.confidence == max(confidences)
    else:
        assert taken is every[-1]


def test_a_session_is_escalated_by_a_later_answer_after_one_that_was_not_accepted() -> None:
    bad = Draft(model="a", text="bad", verdict="no")
    good = Draft(model="b", text="fine")
    of: dict[str, Any] = {"accept": FINE, "step": 1, "metadata": {"session": "s"}}
    assert escalated_session(call("a", "b", drafts=(bad, good), **of), good) == "s"
    assert escalated_session(call("a", "b", drafts=(bad,), **of), bad) is None, "the draft stands"
    assert escalated_session(call("a", "b", drafts=(good,), **of), good) is None, "a was down"
    first = call("a", "b", accept=FINE, drafts=(GOOD,), metadata={"session": "s"})
    assert escalated_session(first, GOOD) is None
