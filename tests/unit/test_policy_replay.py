"""A policy tried on the past: who goes elsewhere, and what that would cost."""

from typing import Any

import pytest
from ledger_entries import entry

from modelyard.catalog import Catalog, Model, Price
from modelyard.decision_ledger import Entry
from modelyard.routes import Route
from producer.policy_replay import Comparison, Costs

CATALOG = Catalog(
    models=(
        Model(name="small", provider="extractive"),
        Model(name="large", provider="extractive"),
        Model(
            name="new",
            provider="extractive",
            price=Price(input_usd_per_mtok=1_000.0, output_usd_per_mtok=10_000.0),
        ),
    ),
    routes={"default": Route(otherwise=("small",))},
)


def decided(*plan: str, intent: str = "other", strategy: str = "single") -> dict[str, Any]:
    tokens = {"input_tokens": 100, "output_tokens": 77}
    return {"intent": intent, "strategy": strategy, "plan": list(plan), **tokens}


def compared(*pairs: tuple[Entry, dict[str, Any]]) -> dict[str, Any]:
    costs = Costs()
    for past, _ in pairs:
        costs.add(past)
    comparison = Comparison(CATALOG, costs)
    for past, now in pairs:
        comparison.add(past, now)
    return comparison.as_json()


def test_what_stays_where_it_was_costs_what_it_did() -> None:
    said = compared((entry(cost_usd=0.123), decided("small", "large")))

    assert (said["requests"], said["elsewhere"], said["moves"]) == (1, 0, [])
    assert said["old_cost_usd"] == said["new_cost_usd"] == 0.123


def test_a_request_that_failed_over_then_does_not_go_elsewhere_now() -> None:
    past = entry(plan=("small", "large"), model="large")
    assert compared((past, decided("small", "large")))["elsewhere"] == 0


def test_what_moves_costs_what_that_model_s_answers_to_the_same_intent_did() -> None:
    said = compared(
        (entry(model="large", plan=("large",), intent="code", cost_usd=0.5), decided("large")),
        (entry(model="large", plan=("large",), intent="chat", cost_usd=0.1), decided("large")),
        (entry(intent="code"), decided("large", intent="code")),
        (entry(intent="law"), decided("large", intent="law")),
    )

    assert said["moves"] == [{"from": "small", "to": "large", "requests": 2}]
    by_intent = {row["intent"]: row for row in said["by_intent"]}
    assert by_intent["code"]["new_cost_usd"] == pytest.approx(0.5 + 0.5)
    assert by_intent["law"]["new_cost_usd"] == pytest.approx(0.3)  # the mean over all intents


def test_a_model_that_never_answered_costs_what_the_catalog_says() -> None:
    said = compared((entry(input_tokens=90, output_tokens=50), decided("new")))
    assert said["new_cost_usd"] == pytest.approx((100 * 1_000 + 50 * 10_000) / 1e6)


def test_an_ensemble_costs_all_its_members() -> None:
    said = compared(
        (entry(cost_usd=0.01), decided("small")),
        (entry(model="large", plan=("large",), cost_usd=0.2), decided("large")),
        (entry(id="r2"), decided("small", "large", strategy="ensemble")),
    )
    assert said["moves"] == [{"from": "small", "to": "ensemble of small, large", "requests": 1}]
    assert said["new_cost_usd"] == pytest.approx(0.01 + 0.2 + 0.21)


def test_what_would_be_refused_is_told_with_the_reason() -> None:
    said = compared(
        (entry(), {"error": "no model can take it"}), (entry(), {"error": "no model can take it"})
    )
    assert said["refused"] == [{"why": "no model can take it", "requests": 2}]
    assert said["moves"] == [{"from": "small", "to": "(refused)", "requests": 2}]
    assert said["new_cost_usd"] == 0.0


def test_changed_intents_are_counted() -> None:
    said = compared((entry(intent="code"), decided("small")), (entry(), decided("small")))
    assert said["intents_changed"] == 1
