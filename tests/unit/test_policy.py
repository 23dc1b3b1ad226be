"""What is decided: intent, candidates, order and plan; and what is told about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from modelyard.catalog import Catalog, Endpoint, Model, Price
from modelyard.messages import Limits, Request
from modelyard.plan import Decision, Strategy
from modelyard.routes import Route
from router_worker.knowledge import Knowledge
from router_worker.policy import Unroutable, decide

NOW = 1_000.0


def remote(name: str, usd_per_mtok: float, quality: float, **values: Any) -> Model:
    return Model(
        name=name,
        provider="openai",
        endpoints=(Endpoint(base_url="http://live.example/v1"),),
        price=Price(input_usd_per_mtok=usd_per_mtok, output_usd_per_mtok=usd_per_mtok),
        quality=quality,
        **values,
    )


MODELS = (
    remote("cheap", 1.0, 0.5, regions=("eu", "us"), tokens_per_s=1000.0, latency_s=0.1),
    remote("middle", 5.0, 0.7, regions=("eu",), data_classes=("personal",)),
    remote("dear", 20.0, 0.9),
    Model(name="support", provider="people"),
)


def catalog(route: Mapping[str, Any], **others: Mapping[str, Any]) -> Catalog:
    return Catalog(
        models=MODELS,
        routes={
            name: Route.model_validate(each) for name, each in {"default": route, **others}.items()
        },
    )


def steps(found: Decision) -> list[str]:
    return [step.model for step in found.plan.steps]


@dataclass(frozen=True)
class Said:
    intent: str
    confidence: float = 0.9
    unknown: bool = False


@dataclass(frozen=True)
class Fixed:
    """A classifier and a predictor that always say the same."""

    guess: Said | None = None
    quality: Mapping[str, float] | None = None

    def classify(self, text: str) -> Said | None:
        return self.guess

    def predict(self, text: str) -> Mapping[str, float]:
        return self.quality or {}


def knowing(guess: Said | None, **values: Any) -> Knowledge:
    return Knowledge(classifiers={"builtin": Fixed(guess)}, **values)


HYBRID = catalog(
    {
        "classifier": "builtin",
        "rules": [
            {"when": {"keywords": ["refund"]}, "intent": "refund", "models": ["middle"]},
            {"when": {"keywords": ["angry"]}, "intent": "escalate", "models": ["support"]},
            {"when": {"keywords": ["money"]}, "intent": "refund", "models": ["dear"]},
        ],
        "intents": {"code": ["dear"], "chat": ["cheap"]},
        "otherwise": ["middle"],
        "min_confidence": 0.5,
    }
)


class TestHybrid:
    def test_rules_that_agree_are_clear(self) -> None:
        found = decide(Request.of("refund my money"), HYBRID, NOW, knowledge=knowing(Said("code")))

        assert (found.intent, found.rule, steps(found)) == ("refund", 0, ["middle"])
        assert found.confidence is None

    def test_where_no_rule_matches_the_classifier_decides(self) -> None:
        found = decide(Request.of("hello"), HYBRID, NOW, knowledge=knowing(Said("code")))

        assert (found.intent, found.rule, steps(found)) == ("code", None, ["dear"])
        assert found.confidence == 0.9
        assert "the classifier says 'code', sure to 0.90" in found.why

    def test_where_rules_disagree_the_classifier_decides_between_them(self) -> None:
        text = Request.of("refund, or I am angry")

        found = decide(text, HYBRID, NOW, knowledge=knowing(Said("escalate")))
        assert (found.intent, found.rule) == ("escalate", 1)
        assert found.plan.strategy is Strategy.HANDOFF

        # It knows of something else altogether: what a rule saw is there all the same.
        found = decide(text, HYBRID, NOW, knowledge=knowing(Said("other things")))
        assert (found.intent, found.rule) == ("refund", 0)
        assert "the first of several" in found.why

    @pytest.mark.parametrize(
        ("guess", "reason"),
        [
            (Said("code", 0.3), "not sure enough"),
            (Said("code", 0.9, unknown=True), "like nothing it knows"),
        ],
    )
    def test_what_is_unknown_goes_to_the_safe_choice(self, guess: Said, reason: str) -> None:
        found = decide(Request.of("hello"), HYBRID, NOW, knowledge=knowing(guess))

        assert (found.intent, steps(found)) == ("unknown", ["middle"])
        assert reason in found.why

    def test_an_intent_without_a_place_goes_to_the_safe_choice(self) -> None:
        found = decide(Request.of("hello"), HYBRID, NOW, knowledge=knowing(Said("poetry")))

        assert (found.intent, steps(found)) == ("poetry", ["middle"])
        assert "has no place" in found.why

    @pytest.mark.parametrize("knowledge", [Knowledge(), knowing(None)])
    def test_without_the_classifier_rules_carry_on(self, knowledge: Knowledge) -> None:
        found = decide(Request.of("refund, or I am angry"), HYBRID, NOW, knowledge=knowledge)
        assert (found.intent, found.rule) == ("refund", 0)

        found = decide(Request.of("hello"), HYBRID, NOW, knowledge=knowledge)
        assert (found.intent, steps(found)) == ("other", ["middle"])
        assert "no classifier could be asked" in found.why

    def test_a_learned_route_asks_no_rule(self) -> None:
        learned = catalog(
            {
                "classifier": "builtin",
                "decide_by": "learned",
                "rules": [{"when": {"keywords": ["hi"]}, "intent": "x", "models": ["cheap"]}],
                "intents": {"code": ["dear"]},
                "otherwise": ["middle"],
            }
        )
        found = decide(Request.of("hi"), learned, NOW, knowledge=knowing(Said("code")))
        assert (found.intent, steps(found)) == ("code", ["dear"])


CHEAPEST = {"models": ["dear", "middle", "cheap"], "choose": "cheapest"}


class TestCost:
    def test_the_cheapest_comes_first_and_fails_over_to_the_next(self) -> None:
        found = decide(Request.of("hello"), catalog({"otherwise": CHEAPEST}), NOW)

        assert steps(found) == ["cheap", "middle", "dear"]
        costs = {each.model: each.cost_usd for each in found.estimates}
        assert costs["cheap"] < costs["middle"] < costs["dear"]

    def test_those_below_the_quality_floor_are_left_out_with_the_reason(self) -> None:
        floor = catalog({"otherwise": {**CHEAPEST, "quality_floor": 0.6}})

        found = decide(Request.of("hello"), floor, NOW)

        assert steps(found) == ["middle", "dear"]
        assert [(each.model, each.why) for each in found.excluded] == [
            ("cheap", "quality 0.50 is below 0.6")
        ]

    def test_what_was_learned_takes_the_place_of_the_catalog_s_quality(self) -> None:
        learned = catalog(
            {
                "otherwise": {**CHEAPEST, "quality_floor": 0.6},
                "predictor": "models/mine",
                "predicts": {"weak": "cheap"},
            }
        )
        knowledge = Knowledge(predictors={"models/mine": Fixed(quality={"weak": 0.8})})

        found = decide(Request.of("hello"), learned, NOW, knowledge=knowledge)

        assert steps(found) == ["cheap", "middle", "dear"]

    def test_a_request_s_own_limits_come_first(self) -> None:
        floor = catalog({"otherwise": {**CHEAPEST, "quality_floor": 0.6}})

        request = Request.of("hello", limits={"quality_floor": 0.8})
        assert steps(decide(request, floor, NOW)) == ["dear"]

        slow = catalog({"otherwise": {**CHEAPEST, "models": ["middle"], "quality_floor": 0.6}})
        request = Request.of("hello", limits={"max_latency_s": 0.5})
        with pytest.raises(Unroutable, match=r"middle: about \d+\.\d s is over 0.5 s"):
            decide(request, slow, NOW)

    def test_an_observed_latency_takes_the_place_of_the_catalog_s(self) -> None:
        request = Request.of("hello", limits={"max_latency_s": 1.0})
        route = catalog({"otherwise": ["cheap", "dear"]})

        assert steps(decide(request, route, NOW)) == ["cheap"]
        slow = Knowledge(latency_s={"cheap": 9.0, "dear": 0.5})
        assert steps(decide(request, route, NOW, knowledge=slow)) == ["dear"]

    def test_a_cost_limit_that_nobody_keeps_is_told_or_is_the_safe_choice(self) -> None:
        request = Request.of("hello", limits={"max_cost_usd": 1e-9})

        with pytest.raises(Unroutable, match=r"cheap: about \$0\.\d+ is over \$1e-09"):
            decide(request, catalog({"otherwise": ["cheap"]}), NOW)
        safe = catalog({"otherwise": ["cheap"], "if_none": "otherwise"})
        found = decide(request, safe, NOW)
        assert steps(found) == ["cheap"]
        assert "none keeps to the limits" in found.why

    def test_region_and_data_class_hold_even_for_the_safe_choice(self) -> None:
        safe = catalog({"otherwise": ["cheap", "middle", "dear"], "if_none": "otherwise"})

        assert steps(decide(Request.of("x", limits={"region": "us"}), safe, NOW)) == ["cheap"]
        private = Limits(region="eu", data_class="personal")
        assert steps(decide(Request.of("x", limits=private), safe, NOW)) == ["middle"]
        with pytest.raises(Unroutable, match="not listed for region 'mars'"):
            decide(Request.of("x", limits={"region": "mars"}), safe, NOW)


class TestPlans:
    def test_a_cascade_has_its_condition(self) -> None:
        target = {
            "models": ["cheap", "dear"],
            "strategy": "cascade",
            "accept": {"expression": "len(text) > 3"},
        }
        plan = decide(Request.of("x"), catalog({"otherwise": target}), NOW).plan

        assert plan.strategy is Strategy.CASCADE
        assert plan.accept is not None
        assert plan.words == "cascade cheap then dear"

    def test_an_ensemble_has_its_way_to_combine(self) -> None:
        target = {"models": ["cheap", "middle", "dear"], "strategy": "ensemble"}
        plan = decide(Request.of("x"), catalog({"otherwise": target}), NOW).plan

        assert plan.words == "ensemble of cheap, middle, dear by vote"

    def test_a_quorum_is_no_more_than_those_that_are_left(self) -> None:
        target = {
            "models": ["cheap", "middle", "dear"],
            "strategy": "ensemble",
            "combine": {"quorum": 3},
        }
        request = Request.of("x", limits={"region": "eu"})
        plan = decide(request, catalog({"otherwise": target}), NOW).plan

        assert plan.combine is not None
        assert plan.combine.quorum == 2

    def test_one_model_alone_is_no_ensemble(self) -> None:
        target = {"models": ["cheap", "dear"], "strategy": "ensemble"}
        request = Request.of("x", limits={"region": "us"})
        assert decide(request, catalog({"otherwise": target}), NOW).plan.strategy == "single"

    def test_people_are_handed_to(self) -> None:
        plan = decide(Request.of("x"), catalog({"otherwise": ["support"]}), NOW).plan
        assert plan.words == "handoff to support"

    def test_a_session_that_escalated_stays_so_where_the_route_is_sticky(self) -> None:
        route = catalog({"otherwise": ["cheap", "middle", "dear"], "sticky": True})

        assert steps(decide(Request.of("x"), route, NOW, escalated="middle")) == ["middle", "dear"]
        assert steps(decide(Request.of("x"), route, NOW, escalated="gone"))[0] == "cheap"


class TestExperiments:
    def route(self, **experiment: Any) -> Catalog:
        trial = {"name": "try", "of": "cheap", "to": "middle", "percent": 100, **experiment}
        return catalog({"otherwise": ["cheap", "dear"], "experiments": [trial]})

    def test_the_treatment_comes_first_and_fails_over_to_what_it_replaces(self) -> None:
        found = decide(Request.of("x"), self.route(), NOW, id="1")

        assert steps(found) == ["middle", "cheap", "dear"]
        assert [(arm.experiment, arm.arm) for arm in found.arms] == [("try", "treatment")]

    def test_what_was_taken_back_is_over(self) -> None:
        over = Knowledge(taken_back=frozenset({"try"}))
        found = decide(Request.of("x"), self.route(), NOW, id="1", knowledge=over)
        assert (steps(found), found.arms) == (["cheap", "dear"], ())

    def test_a_shadow_is_called_as_well(self) -> None:
        found = decide(Request.of("x"), self.route(kind="shadow"), NOW, id="1")

        assert steps(found) == ["cheap", "dear"]
        assert found.plan.words == "to cheap then dear, shadowed by middle"

    def test_another_policy_is_another_route(self) -> None:
        trial = {"name": "new", "route": "bold", "percent": 100}
        both = catalog(
            {"otherwise": ["cheap"], "experiments": [trial]}, bold={"otherwise": ["dear"]}
        )
        found = decide(Request.of("x"), both, NOW, id="1")

        assert (found.route, steps(found)) == ("default", ["dear"])
        assert found.arms[0].experiment == "new"


def test_a_classifier_and_its_catalog_agree_on_what_is_needed() -> None:
    for wrong in (
        {"decide_by": "learned", "otherwise": ["cheap"]},
        {"intents": {"code": ["dear"]}, "otherwise": ["cheap"]},
        {"predicts": {"weak": "cheap"}, "otherwise": ["cheap"]},
        {"otherwise": {"models": ["cheap"], "strategy": "cascade"}},
        {"otherwise": {"models": ["cheap"], "accept": {"expression": "True"}}},
        {"otherwise": {"models": ["cheap"], "combine": {"how": "vote"}}},
        {"otherwise": {"models": ["a", "b"], "strategy": "ensemble", "combine": {"quorum": 3}}},
    ):
        with pytest.raises(ValueError, match=r"needs|need|belongs|never comes"):
            Route.model_validate(wrong)


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        (
            {
                "otherwise": {
                    "models": ["cheap", "dear"],
                    "strategy": "cascade",
                    "accept": {"judge": "support"},
                }
            },
            "people can't be a judge",
        ),
        (
            {"otherwise": {"models": ["cheap", "support"], "strategy": "ensemble"}},
            "people can't be one of an ensemble",
        ),
        (
            {
                "otherwise": ["cheap"],
                "experiments": [
                    {"name": "s", "kind": "shadow", "of": "cheap", "to": "support", "percent": 1}
                ],
            },
            "people can't be a shadow",
        ),
    ],
)
def test_people_are_asked_for_answers_only(route: Mapping[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        catalog(route)


def test_an_experiment_belongs_to_one_route() -> None:
    trial = {"name": "try", "of": "cheap", "to": "dear", "percent": 1}
    one = {"otherwise": ["cheap"], "experiments": [trial]}
    with pytest.raises(ValueError, match="both have an experiment 'try'"):
        catalog(one, other=one)


class TestWhoMaySee:
    """A region and a class of data bind everybody who gets the text, not only who answers."""

    REQUEST = Request.of("x", limits=Limits(region="eu", data_class="personal"))

    def test_no_shadow_sees_what_it_may_not(self) -> None:
        shadow = {"name": "s", "kind": "shadow", "of": "middle", "to": "dear", "percent": 100}
        yard = catalog({"otherwise": ["middle"], "experiments": [shadow]})

        assert decide(Request.of("x"), yard, NOW).plan.shadow == "dear"
        assert decide(self.REQUEST, yard, NOW).plan.shadow is None

    @pytest.mark.parametrize(
        "target",
        [
            {"strategy": "cascade", "accept": {"judge": "dear"}},
            {"strategy": "ensemble", "combine": {"how": "best", "judge": "dear"}},
        ],
    )
    def test_no_judge_sees_what_it_may_not(self, target: Mapping[str, Any]) -> None:
        request = Request.of("x", limits=Limits(region="eu"))
        rule = {"when": {"min_tokens": 0}, "intent": "i", "models": ["cheap", "middle"], **target}
        strict = catalog({"rules": [rule], "otherwise": ["middle"]})
        safe = catalog({"rules": [rule], "otherwise": ["middle"], "if_none": "otherwise"})

        with pytest.raises(Unroutable, match="its judge 'dear' may not see the request"):
            decide(request, strict, NOW)
        assert steps(decide(request, safe, NOW)) == ["middle"]
        assert steps(decide(Request.of("x"), strict, NOW)) == ["cheap", "middle"]


class TestTooLong:
    """A request that no candidate holds, where the route has it cut."""

    TEXT = "The pump was stopped at noon, and the night shift found the valve open. " * 400
    LONG = Request.of(TEXT)

    @staticmethod
    def yard(target: Any = ("tight", "wide"), **route: Any) -> Catalog:
        models = (
            remote("tight", 1.0, 0.5, context_tokens=2_000, max_output_tokens=300),
            remote("tighter", 0.5, 0.5, context_tokens=1_000, max_output_tokens=300),
            remote("wide", 5.0, 0.7, context_tokens=4_000, max_output_tokens=300),
            remote("huge", 20.0, 0.9, context_tokens=100_000),
            Model(name="support", provider="people"),
        )
        given = {"too_long": "map_reduce", "otherwise": target, **route}
        return Catalog(models=models, routes={"default": Route.model_validate(given)})

    def test_its_models_take_it_in_pieces(self) -> None:
        found = decide(self.LONG, self.yard(), NOW)

        plan = found.plan
        assert (plan.strategy, steps(found)) == (Strategy.MAP_REDUCE, ["tight", "wide"])
        assert plan.pieces is not None
        assert plan.pieces.count > 3
        assert f"too long for its models: in {plan.pieces.count} pieces" in found.why
        assert plan.words == f"in {plan.pieces.count} pieces to tight then wide"
        assert [each.model for each in found.excluded] == ["tight", "wide"]
        assert "do not fit the 1,700" in found.excluded[0].why
        assert Decision.decode(found.encode()) == found

    def test_the_first_decides_the_pieces_and_who_can_t_hold_them_is_left_out(self) -> None:
        wide_first = decide(self.LONG, self.yard(("wide", "tight")), NOW)
        assert steps(wide_first) == ["wide"]
        with_tighter = decide(self.LONG, self.yard(("tight", "tighter", "wide")), NOW)
        assert steps(with_tighter) == ["tight", "wide"]
        # It is too long for this one even so: its answers would be too short.
        alone = self.yard(("tighter",))
        with pytest.raises(Unroutable, match=r"in pieces: tighter: it takes \d+ parts.* Use a mod"):
            decide(Request.of(self.TEXT * 2), alone, NOW)
        found = decide(Request.of(self.TEXT * 2), self.yard(("tighter", "wide")), NOW)
        assert steps(found) == ["wide"]

    def test_whoever_holds_it_whole_comes_first(self) -> None:
        assert decide(self.LONG, self.yard(("tight", "huge")), NOW).plan.pieces is None
        assert steps(decide(self.LONG, self.yard(("tight", "huge")), NOW)) == ["huge"]
        handed = decide(self.LONG, self.yard(("tight", "support")), NOW)
        assert handed.plan.strategy is Strategy.HANDOFF
        rule = {"when": {"min_tokens": 0}, "intent": "i", "models": ["tight"]}
        eased = self.yard(("huge",), rules=[rule], if_none="otherwise")
        assert steps(decide(self.LONG, eased, NOW)) == ["huge"]
        # Nor does the safe choice hold it: the route's own choice is cut, not that.
        both = self.yard(("wide",), rules=[rule], if_none="otherwise")
        assert steps(decide(self.LONG, both, NOW)) == ["tight"]

    def test_without_the_switch_it_is_refused_and_a_target_has_its_own(self) -> None:
        for yard in (
            self.yard(too_long="refuse"),
            self.yard({"models": ["tight"], "too_long": "refuse"}),
        ):
            with pytest.raises(Unroutable, match="do not fit") as refused:
                decide(self.LONG, yard, NOW)
            assert "pieces" not in str(refused.value)
        own = self.yard({"models": ["tight"], "too_long": "map_reduce"}, too_long="refuse")
        assert decide(self.LONG, own, NOW).plan.pieces is not None
        pinned = self.LONG.model_copy(update={"models": ("tight",)})
        assert decide(pinned, self.yard(), NOW).plan.pieces is not None

    def test_length_must_be_the_only_obstacle(self) -> None:
        europe = self.LONG.model_copy(update={"limits": Limits(region="eu")})
        with pytest.raises(Unroutable, match="not listed for region 'eu'"):
            decide(europe, self.yard(), NOW)
        good = self.LONG.model_copy(update={"limits": Limits(quality_floor=0.6)})
        assert steps(decide(good, self.yard(), NOW)) == ["wide"]

    def test_limits_are_those_of_all_its_calls(self) -> None:
        free = decide(
            self.LONG.model_copy(update={"limits": Limits(max_cost_usd=1)}), self.yard(), NOW
        )
        (one, _) = free.estimates
        pieces = free.plan.pieces
        assert pieces is not None
        tokens = pieces.count * (pieces.asked_tokens + pieces.answer_tokens) + pieces.final_tokens
        assert one.cost_usd == pytest.approx((tokens + found_output(free)) * 1e-6)
        poor = self.LONG.model_copy(update={"limits": Limits(max_cost_usd=0.9 * one.cost_usd)})
        with pytest.raises(Unroutable, match=r"tight: about \$.* is over .* in \d+ pieces"):
            decide(poor, self.yard(("tight",)), NOW)

    def test_the_cheapest_is_asked_first_where_that_is_chosen(self) -> None:
        yard = self.yard({"models": ["wide", "tight"], "choose": "cheapest"})
        assert steps(decide(self.LONG, yard, NOW)) == ["tight", "wide"]

    @pytest.mark.parametrize("strategy", ["cascade", "ensemble"])
    def test_it_is_neither_a_cascade_nor_an_ensemble(self, strategy: str) -> None:
        accept = {"accept": {"judge": "wide"}} if strategy == "cascade" else {}
        target = {"models": ["tight", "wide"], "strategy": strategy, **accept}
        found = decide(self.LONG, self.yard(target, after=["strip_reasoning"]), NOW)
        assert found.plan.strategy is Strategy.MAP_REDUCE
        assert (found.plan.accept, found.plan.combine) == (None, None)
        assert found.plan.after

    def test_a_request_with_tools_is_refused_with_the_reason(self) -> None:
        tools = self.LONG.model_copy(update={"params": {"tools": [{"type": "function"}]}})
        with pytest.raises(Unroutable, match="requests with tools are not cut"):
            decide(tools, self.yard(), NOW)


def found_output(found: Decision) -> int:
    return min(found.output_tokens, 300)


def test_where_the_classifier_fails_rules_carry_on_also_on_a_learned_route() -> None:
    rule = {"when": {"keywords": ["refund"]}, "intent": "refund", "models": ["dear"]}
    yard = catalog(
        {
            "decide_by": "learned",
            "classifier": "builtin",
            "rules": [rule],
            "intents": {"code": ["cheap"]},
            "otherwise": ["middle"],
        }
    )
    request = Request.of("refund")

    assert steps(decide(request, yard, NOW, knowledge=knowing(Said("code")))) == ["cheap"]
    assert steps(decide(request, yard, NOW, knowledge=knowing(None))) == ["dear"]
    assert steps(decide(request, yard, NOW)) == ["dear"]
    assert steps(decide(Request.of("hello"), yard, NOW)) == ["middle"]
