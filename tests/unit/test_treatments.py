"""What experiments make of each kind of plan, and which of them make no sense there."""

from typing import Any

import pytest
from test_policy import NOW, catalog, remote, steps

from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.messages import Request
from modelyard.plan import Decision, Strategy
from router_worker.knowledge import Knowledge
from router_worker.policy import Unroutable, decide

CASCADE = {"strategy": "cascade", "accept": {"expression": "len(text) > 3"}}
OFF = Endpoint(base_url="http://live.example/v1", disabled="NO_KEY")
ALL = ["cheap", "middle", "dear"]


def trial(of: str, to: str, **fields: Any) -> dict[str, Any]:
    return {"name": "try", "of": of, "to": to, "percent": 100, **fields}


def yard(otherwise: Any, *experiments: dict[str, Any], **route: Any) -> Catalog:
    return catalog({"otherwise": otherwise, "experiments": experiments, **route})


def ask(yard: Catalog, escalated: str | None = None, **fields: Any) -> Decision:
    request = Request.of("x", **{"metadata": {"user": "ada"}, **fields})
    return decide(request, yard, NOW, id="1", escalated=escalated)


def arms(found: Decision) -> dict[str, str]:
    return {each.experiment: each.arm for each in found.arms}


def test_a_dearer_treatment_is_called_first_where_the_cheapest_would_be() -> None:
    found = ask(yard({"models": ALL, "choose": "cheapest"}, trial("cheap", "dear")))

    assert steps(found) == ["dear", "cheap", "middle"]
    assert arms(found) == {"try": "treatment"}


@pytest.mark.parametrize("percent", [100, 0.001])
def test_a_treatment_that_limits_keep_away_is_counted_in_neither_arm(percent: float) -> None:
    target = {"models": ["cheap", "middle"], "max_cost_usd": 0.002}
    tried = yard(target, trial("cheap", "dear", percent=percent))

    found = ask(tried)
    assert (steps(found), found.arms) == (["cheap", "middle"], ())
    assert ("dear" in {each.model for each in found.excluded}) == (percent == 100)
    free = ask(tried, limits={"max_cost_usd": 1})
    assert arms(free) == {"try": "treatment" if percent == 100 else "control"}


def test_where_the_replaced_model_can_t_be_called_nothing_is_tried() -> None:
    target = {"models": ["cheap", "dear"], "quality_floor": 0.6}
    found = ask(yard(target, trial("cheap", "middle")))
    assert (steps(found), found.arms) == (["dear"], ())


def test_the_safe_choice_is_in_no_arm_of_what_it_does_not_call() -> None:
    rule = {"when": {"min_tokens": 0}, "intent": "i", "models": ["cheap"], "max_cost_usd": 1e-9}
    tried = catalog(
        {
            "rules": [rule],
            "otherwise": ["dear"],
            "if_none": "otherwise",
            "experiments": [trial("cheap", "middle")],
        }
    )
    found = ask(tried)
    assert (steps(found), found.arms) == (["dear"], ())


@pytest.mark.parametrize("strategy", [{}, CASCADE])
def test_a_session_stays_with_the_treatment_that_it_was_escalated_to(strategy: Any) -> None:
    sticky = yard({"models": ["cheap", "middle"], **strategy}, trial("middle", "dear"), sticky=True)

    later = ask(sticky, escalated="dear")

    assert steps(later)[0] == "dear"
    assert "cheap" not in steps(later)
    assert steps(ask(sticky))[0] == "cheap"
    assert steps(ask(sticky, escalated="gone"))[0] == "cheap"


@pytest.mark.parametrize(
    ("of", "to", "plan"),
    [
        ("cheap", "dear", ["dear"]),
        ("cheap", "middle", ["middle", "dear"]),
        ("middle", "cheap", ["cheap", "dear"]),
        ("dear", "cheap", ["cheap", "middle"]),
        ("dear", "support", ["cheap", "middle", "support"]),
    ],
)
def test_a_cascade_never_goes_back_to_what_was_replaced(of: str, to: str, plan: list[str]) -> None:
    found = ask(yard({"models": ALL, **CASCADE}, trial(of, to)))

    assert steps(found) == plan
    assert arms(found) == {"try": "treatment"}


def test_a_treatment_that_another_one_takes_out_of_the_plan_is_not_counted() -> None:
    both = (trial("cheap", "dear"), trial("middle", "support", name="other"))
    found = ask(yard({"models": ALL, **CASCADE}, *both))
    assert (steps(found), arms(found)) == (["dear"], {"try": "treatment"})


def test_an_ensemble_has_the_treatment_in_place_of_its_member() -> None:
    pair = {"models": ["cheap", "middle"], "strategy": "ensemble"}
    found = ask(yard(pair, trial("middle", "dear")))
    assert found.plan.words == "ensemble of cheap, dear by vote"


@pytest.mark.parametrize(
    ("experiment", "problem"),
    [
        (trial("middle", "support"), "people can't be one of an ensemble"),
        (trial("cheap", "support"), "people can't be one of an ensemble"),
        (trial("cheap", "middle"), "asks 'middle' already"),
        (trial("cheap", "dear", kind="shadow"), "an ensemble has no shadow"),
    ],
)
def test_what_makes_no_sense_of_an_ensemble_is_refused(
    experiment: dict[str, Any], problem: str
) -> None:
    pair = {"models": ["cheap", "middle"], "strategy": "ensemble"}
    with pytest.raises(ValueError, match=problem):
        yard(pair, experiment)


def test_people_are_tried_where_one_model_is_asked_and_not_in_an_ensemble() -> None:
    rule = {"when": {"keywords": ["all"]}, "intent": "i", "models": ["cheap", "middle"]}
    rule["strategy"] = "ensemble"
    tried = yard(["cheap"], trial("cheap", "support"), rules=[rule])

    found = decide(Request.of("ask all"), tried, NOW, id="1")
    assert (found.plan.words, found.arms) == ("ensemble of cheap, middle by vote", ())
    assert (steps(ask(tried)), arms(ask(tried))) == (["support", "cheap"], {"try": "treatment"})


@pytest.mark.parametrize("percent", [100, 0.001])
@pytest.mark.parametrize(
    "target",
    [["cheap", "middle"], {"models": ["middle", "cheap"], "choose": "cheapest"}, ["support", *ALL]],
)
def test_what_is_called_first_anyway_is_counted_in_neither_arm(target: Any, percent: float) -> None:
    found = ask(yard(target, trial("middle", "cheap", percent=percent)))

    assert steps(found) == steps(ask(yard(target)))
    assert found.arms == ()


@pytest.mark.parametrize("target", [{"strategy": "ensemble"}, CASCADE], ids=["ensemble", "cascade"])
def test_one_model_that_is_left_fails_over_from_its_treatment(target: dict[str, Any]) -> None:
    tried = {"models": ["cheap", "middle"], **target}
    other = remote("other", 1.0, 0.5, regions=("us",))
    models = (*yard(["cheap"]).models, other)

    def asked(experiment: dict[str, Any]) -> Decision:
        route = {"otherwise": tried, "experiments": [experiment]}
        whole = Catalog.model_validate({"models": models, "routes": {"default": route}})
        return ask(whole, limits={"region": "us"})

    found = asked(trial("cheap", "other"))
    assert found.plan.strategy is Strategy.SINGLE
    assert (steps(found), arms(found)) == (["other", "cheap"], {"try": "treatment"})


def test_one_of_an_ensemble_that_is_left_may_have_a_shadow() -> None:
    rule = {"when": {"keywords": ["all"]}, "intent": "i", "models": ["cheap", "middle"]}
    rule["strategy"] = "ensemble"
    fast = remote("fast", 1.0, 0.5, regions=("us",))
    route = {
        "rules": [rule],
        "otherwise": ["cheap"],
        "experiments": [trial("cheap", "fast", kind="shadow")],
    }
    models = (*yard(["cheap"]).models, fast)
    tried = Catalog.model_validate({"models": models, "routes": {"default": route}})
    request = Request.of("ask all", limits={"region": "us"}, metadata={"user": "ada"})

    found = decide(request, tried, NOW, id="1")
    assert (steps(found), found.plan.shadow) == (["cheap"], "fast")
    assert arms(found) == {"try": "treatment"}


def test_an_ensemble_that_asks_the_treatment_already_is_in_no_arm() -> None:
    rule = {"when": {"keywords": ["all"]}, "intent": "i", "models": ["cheap", "middle"]}
    rule["strategy"] = "ensemble"
    tried = yard(["cheap"], trial("cheap", "middle"), rules=[rule])

    found = decide(Request.of("ask all"), tried, NOW, id="1")
    assert (found.plan.words, found.arms) == ("ensemble of cheap, middle by vote", ())
    assert arms(ask(tried)) == {"try": "treatment"}


def test_a_shadow_that_is_not_called_is_not_counted() -> None:
    rule = {"when": {"keywords": ["all"]}, "intent": "i", "models": ["cheap", "middle"]}
    rule["strategy"] = "ensemble"
    handed = {"when": {"keywords": ["human"]}, "intent": "h", "models": ["support", "cheap"]}
    tried = yard(["cheap"], trial("cheap", "dear", kind="shadow"), rules=[rule, handed])

    for text in ("ask all", "a human"):
        found = decide(Request.of(text), tried, NOW, id="1")
        assert (found.plan.shadow, found.arms) == (None, ())
    assert ask(tried).plan.shadow == "dear"
    assert arms(ask(tried)) == {"try": "treatment"}
    # Nor may it see this one.
    assert ask(tried, limits={"region": "us"}).arms == ()


def test_why_says_where_a_request_is_nobody_s() -> None:
    tried = yard(["cheap"], trial("cheap", "dear"))

    told = "experiment 'try': no metadata.user, so its id decides"
    assert ask(tried, metadata={}).why.endswith(f"; {told}")
    assert told not in ask(tried).why


def test_pieces_are_tried_as_well() -> None:
    tight = {"context_tokens": 2_000, "max_output_tokens": 300}
    models = (remote("one", 1.0, 0.5, **tight), remote("two", 1.0, 0.5, **tight))
    route = {
        "otherwise": ["one"],
        "too_long": "map_reduce",
        "experiments": [trial("one", "two"), trial("one", "two", name="s", kind="shadow")],
    }
    tried = Catalog.model_validate({"models": models, "routes": {"default": route}})
    request = Request.of("The pump was stopped at noon, and the valve was open. " * 400)

    found = decide(request, tried, NOW, id="1")

    assert found.plan.strategy is Strategy.MAP_REDUCE
    assert (steps(found), arms(found)) == (["two", "one"], {"try": "treatment"})


@pytest.mark.parametrize("percent", [100, 0.001])
@pytest.mark.parametrize(
    ("otherwise", "of", "to", "region", "plan"),
    [
        (["one"], "one", "us", "eu", ["one"]),
        (["us", "one"], "us", "one", "eu", ["one"]),
        (["one", "two"], "two", "one", "eu", ["one", "two"]),
        (["one"], "one", "two", "eu", None),
    ],
    ids=["to is kept away", "of is kept away", "called first anyway", "counts"],
)
def test_in_pieces_the_same_is_counted_in_both_arms(
    otherwise: list[str], of: str, to: str, region: str, plan: list[str] | None, percent: float
) -> None:
    tight = {"context_tokens": 2_000, "max_output_tokens": 300}
    models = (
        remote("one", 1.0, 0.5, regions=("eu",), **tight),
        remote("two", 1.0, 0.5, regions=("eu",), **tight),
        remote("us", 1.0, 0.5, regions=("us",), **tight),
    )
    route = {
        "otherwise": otherwise,
        "too_long": "map_reduce",
        "experiments": [trial(of, to, percent=percent)],
    }
    tried = Catalog.model_validate({"models": models, "routes": {"default": route}})
    text = "The pump was stopped at noon, and the valve was open. " * 400
    request = Request.of(text, limits={"region": region}, metadata={"user": "ada"})

    found = decide(request, tried, NOW, id="1")

    assert found.plan.strategy is Strategy.MAP_REDUCE
    if plan is not None:
        assert (steps(found), found.arms) == (plan, ())
    elif percent == 100:
        assert (steps(found), arms(found)) == ([to, of], {"try": "treatment"})
    else:
        assert (steps(found), arms(found)) == ([of], {"try": "control"})


def test_people_are_no_bargain() -> None:
    target = {"models": ["support", "dear", "cheap"], "choose": "cheapest"}
    found = ask(yard(target))

    assert steps(found) == ["cheap", "dear", "support"]
    assert found.plan.strategy is Strategy.SINGLE


class TestDeadlines:
    CHEAPEST = yard({"models": ["dear", "cheap"], "choose": "cheapest"})
    SLOW = Knowledge(latency_s={"cheap": 60.0, "dear": 2.0})

    def test_who_would_be_late_is_called_last_and_estimates_tell_why(self) -> None:
        request = Request.of("x", deadline=NOW + 5)
        found = decide(request, self.CHEAPEST, NOW, knowledge=self.SLOW)

        assert (steps(found), found.excluded) == (["dear", "cheap"], ())
        assert {each.model: each.latency_s for each in found.estimates} == self.SLOW.latency_s
        request = Request.of("x", deadline=NOW + 90)
        assert steps(decide(request, self.CHEAPEST, NOW, knowledge=self.SLOW)) == ["cheap", "dear"]

    def test_an_estimate_refuses_nobody_and_hands_nothing_over(self) -> None:
        request = Request.of("x", deadline=NOW + 1)
        assert len(steps(decide(request, self.CHEAPEST, NOW, knowledge=self.SLOW))) == 2
        people = yard(["cheap", "support"])
        found = decide(request, people, NOW, knowledge=self.SLOW)
        assert steps(found) == ["cheap", "support"]

    def test_a_treatment_that_would_be_late_is_not_counted(self) -> None:
        tried = yard(["dear"], trial("dear", "cheap"))
        request = Request.of("x", deadline=NOW + 5)
        found = decide(request, tried, NOW, id="1", knowledge=self.SLOW)
        assert (steps(found), found.arms) == (["dear"], ())


def test_a_request_that_names_its_models_has_a_route_that_is_one() -> None:
    with pytest.raises(Unroutable, match="nope"):
        ask(yard(["cheap"]), models=("dear",), route="nope")
    assert steps(ask(yard(["cheap"]), models=("dear",))) == ["dear"]
    # Whose requests all name their models needs no route `default`.
    mine = Catalog(models=yard(["cheap"]).models, routes={"mine": yard(["cheap"]).route("default")})
    assert steps(ask(mine, models=("dear",))) == ["dear"]


@pytest.mark.parametrize(
    "target",
    [
        {"strategy": "cascade", "accept": {"judge": "judge"}},
        {"strategy": "ensemble", "combine": {"how": "best", "judge": "judge"}},
    ],
)
def test_nothing_is_sent_to_a_judge_that_is_off(target: dict[str, Any]) -> None:
    rule = {"when": {"min_tokens": 0}, "intent": "i", "models": ["cheap", "dear"], **target}

    def judged(endpoint: Endpoint, if_none: str) -> Catalog:
        judge = Model(name="judge", provider="openai", endpoints=(endpoint,))
        route = {"rules": [rule], "otherwise": ["middle"], "if_none": if_none}
        plain = catalog({"otherwise": ["cheap"]})
        return Catalog.model_validate(
            {"models": (*plain.models, judge), "routes": {"default": route}}
        )

    with pytest.raises(Unroutable, match="its judge 'judge' is off: NO_KEY is not set"):
        ask(judged(OFF, "refuse"))
    assert steps(ask(judged(OFF, "otherwise"))) == ["middle"]
    on = Endpoint(base_url="http://live.example/v1")
    assert steps(ask(judged(on, "refuse"))) == ["cheap", "dear"]
