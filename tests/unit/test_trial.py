"""What the ledger says about an experiment, and when its treatment is taken back."""

from typing import Any

import pytest
from ledger_entries import arm, entry, failed

from modelyard.routes import Experiment
from router_worker.experiments.trial import Observation, Trial, observation

TREATED, CONTROL = (arm("try", treated=True),), (arm("try", treated=False),)


def experiment(rollback: dict[str, Any] | None = None, **fields: Any) -> Experiment:
    if "route" not in fields:
        fields = {"of": "small", "to": "large", **fields}
    return Experiment.model_validate({"name": "try", "percent": 10, "rollback": rollback, **fields})


def test_a_request_tells_of_the_model_that_its_arm_is_about() -> None:
    treated = observation(experiment(), entry(model="large", arms=TREATED))
    control = observation(experiment(), entry(arms=CONTROL))

    assert treated == Observation("treatment", error_rate=0.0, latency_s=0.2, cost_usd=0.01)
    assert control == Observation("control", error_rate=0.0, latency_s=0.2, cost_usd=0.01)


def test_what_another_model_did_after_it_failed_is_not_its_doing() -> None:
    calls = {
        "large": {"made": 2, "failed": 2, "answered_s": 0.0},
        "small": {"made": 1, "failed": 0, "answered_s": 9.0},
    }
    seen = observation(experiment(), entry(model="small", arms=TREATED, calls=calls))

    assert seen == Observation("treatment", error_rate=1.0)


@pytest.mark.parametrize("outcome", ["expired", "poison"])
def test_a_model_that_never_came_to_a_call_failed(outcome: str) -> None:
    lost = {"model": "", "calls": {}, "outcome": outcome, "cost_usd": 0.0, "stopped_at": "large"}

    treated = observation(experiment(), entry(arms=TREATED, **lost))
    other_s = observation(experiment(), entry(arms=TREATED, **lost | {"stopped_at": "small"}))
    of_a_route = observation(experiment(route="new"), entry(arms=TREATED, **lost))

    assert treated == of_a_route == Observation("treatment", error_rate=1.0)
    assert other_s is None


def test_one_call_that_went_well_does_not_hide_that_the_request_was_lost_there() -> None:
    calls = {"large": {"made": 2, "failed": 1, "answered_s": 1.0}}
    lost = entry(model="", calls=calls, outcome="expired", stopped_at="large", arms=TREATED)

    assert observation(experiment(), lost) == Observation("treatment", error_rate=1.0)


def test_a_shadow_that_nobody_called_failed() -> None:
    aside = entry(kind="shadow", model="large", calls={}, outcome="failed", arms=TREATED)

    assert observation(experiment(kind="shadow"), aside) == Observation("treatment", error_rate=1.0)


def test_retries_count_within_their_request() -> None:
    calls = {"large": {"made": 4, "failed": 3, "answered_s": 1.5}}
    seen = observation(experiment(), entry(model="large", arms=TREATED, calls=calls))

    assert seen is not None
    assert (seen.error_rate, seen.latency_s) == (0.75, 1.5)


@pytest.mark.parametrize(
    "other",
    [
        entry(),
        entry(arms=(arm("another", treated=True),)),
        entry(arms=TREATED, model="small"),
        entry(arms=TREATED, kind="member", model="large"),
        entry(arms=TREATED, kind="shadow", model="large"),
        entry(arms=TREATED, kind="feedback", model="small", score=0.1),
    ],
    ids=["no arm", "another's", "not called", "a member", "a shadow", "feedback on another"],
)
def test_what_says_nothing_about_it_is_not_counted(other: Any) -> None:
    assert observation(experiment(), other) is None


def test_feedback_is_a_score_of_the_model_that_answered() -> None:
    seen = observation(
        experiment(), entry(kind="feedback", model="large", arms=TREATED, calls={}, score=0.25)
    )
    assert seen == Observation("treatment", score=0.25)


def test_of_a_shadow_the_request_itself_is_the_control() -> None:
    shadow = experiment(kind="shadow")

    aside = observation(shadow, entry(kind="shadow", model="large", arms=TREATED))
    itself = observation(shadow, entry(model="small", arms=TREATED))

    assert aside is not None
    assert itself is not None
    assert (aside.arm, itself.arm) == ("treatment", "control")


def test_of_a_route_all_models_count() -> None:
    calls = {
        "a": {"made": 1, "failed": 1, "answered_s": 0.0},
        "b": {"made": 1, "failed": 0, "answered_s": 2.0},
    }
    seen = observation(experiment(route="new"), entry(model="b", arms=TREATED, calls=calls))

    assert seen == Observation("treatment", error_rate=0.5, latency_s=2.0, cost_usd=0.01)


def test_what_nobody_was_given_is_no_score_of_a_route() -> None:
    graded = {"kind": "feedback", "model": "draft", "arms": TREATED, "calls": {}, "score": 0.0}

    assert observation(experiment(route="new"), entry(**graded, given=False)) is None
    said = observation(experiment(route="new"), entry(**graded))
    assert said == Observation("treatment", score=0.0)
    # Of a model it is, whoever got it.
    of_draft = observation(experiment(to="draft"), entry(**graded, given=False))
    assert of_draft == Observation("treatment", score=0.0)


def trial(rollback: dict[str, Any] | None, *entries: Any) -> Trial:
    found = Trial(experiment(rollback))
    for each in entries:
        found.add(each)
    return found


def test_a_treatment_whose_calls_fail_is_taken_back_once_there_are_enough() -> None:
    rollback = {"max_error_rate": 0.1, "min_requests": 10}
    broken = failed("large", arms=TREATED)

    assert trial(rollback, *[broken] * 9).verdict() is None
    why = trial(rollback, *[broken] * 10).verdict()
    assert why == "100 % of its calls failed in 10 requests; at most 10 % may"


def test_a_control_that_fails_is_no_reason() -> None:
    rollback = {"max_error_rate": 0.1, "min_requests": 1}
    well = entry(model="large", arms=TREATED)
    assert trial(rollback, *[well, failed("small", arms=CONTROL)] * 100).verdict() is None


def test_without_a_rollback_nothing_is_taken_back() -> None:
    assert trial(None, *[failed("large", arms=TREATED)] * 100).verdict() is None


@pytest.mark.parametrize(
    ("bound", "bad", "good"),
    [
        ({"max_latency_s": 0.5}, {"answered_s": 5.0}, {"answered_s": 0.4}),
        ({"max_cost_usd": 0.02}, {"cost_usd": 0.2}, {"cost_usd": 0.019}),
        ({"min_score": 0.7}, {"score": 0.4}, {"score": 0.75}),
    ],
    ids=["latency", "cost", "score"],
)
def test_each_bound_is_enough(
    bound: dict[str, float], bad: dict[str, float], good: dict[str, float]
) -> None:
    rollback = {**bound, "min_requests": 1}

    def request(**said: float) -> list[Any]:
        calls = {"large": {"made": 1, "failed": 0, "answered_s": said.pop("answered_s", 0.2)}}
        score = said.pop("score", None)
        asked = entry(model="large", arms=TREATED, calls=calls, **said)
        if score is None:
            return [asked]
        graded = entry(kind="feedback", model="large", arms=TREATED, calls={}, score=score)
        return [asked, graded]

    assert trial(rollback, *(request(**bad) * 30)).verdict() is not None
    assert trial(rollback, *(request(**good) * 300)).verdict() is None


def test_several_bounds_share_what_may_go_wrong() -> None:
    """What is just enough with one bound is not enough where a second one is tested too."""
    one = {"max_error_rate": 0.5, "min_requests": 1}
    both = {**one, "max_latency_s": 60.0}
    broken = failed("large", arms=TREATED)
    enough = next(n for n in range(1, 50) if trial(one, *[broken] * n).verdict())

    assert trial(both, *[broken] * enough).verdict() is None
    assert trial(both, *[broken] * (enough + 5)).verdict() is not None


def test_the_statistics_have_both_arms_with_their_intervals() -> None:
    done = trial(
        None,
        *(entry(model="large", arms=TREATED, cost_usd=cost) for cost in (0.1, 0.2, 0.3)),
        failed("large", arms=TREATED),
        entry(arms=CONTROL),
    ).statistics()

    treated, control = done["treatment"], done["control"]
    assert (treated["requests"], control["requests"]) == (4, 1)
    assert (treated["error_rate"]["mean"], treated["cost_usd"]["count"]) == (0.25, 3)
    low, high = treated["error_rate"]["interval"]
    assert 0 < low < 0.25 < high < 1
    assert control["cost_usd"]["interval"] is None
