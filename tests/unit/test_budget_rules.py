"""Budgets: whose requests count, what is told to Redis, and what is decided once they are spent."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from modelyard.budgets import Budget, bill, concerned, spent_key
from modelyard.catalog import Catalog, Model
from modelyard.messages import Attempt, DeadReason, Request
from modelyard.plan import Decision, Plan, Step, Strategy
from modelyard.routes import Route
from router_worker.budgets import OverBudget
from router_worker.forward import Refused, forward
from router_worker.knowledge import Knowledge
from router_worker.policy import Unroutable, decide
from router_worker.spending import Spending

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
MODELS = (
    Model(name="cheap", provider="extractive", regions=("eu",)),
    Model(name="dear", provider="extractive", regions=("eu", "us")),
)


def budget(**fields: Any) -> Budget:
    return Budget.model_validate({"usd_per_day": 1.0, **fields})


def catalog(*budgets: Budget, **route: Any) -> Catalog:
    routes = {"default": Route.model_validate({"otherwise": ["dear", "cheap"], **route})}
    return Catalog(models=MODELS, routes=routes, budgets=budgets)


def spent(**usd: float) -> Knowledge:
    return Knowledge(spent_usd={name.replace("__", "/"): each for name, each in usd.items()})


def request(tenant: str = "acme", **fields: Any) -> Request:
    return Request.of("hello", metadata={"tenant": tenant}, **fields)


DOWN = budget(tenant="acme", over="downgrade", downgrade_to=["cheap"])
STOP = budget(tenant="acme", route="default")


# -- the catalog


@pytest.mark.parametrize(
    "wrong",
    [
        {"usd_per_day": -1},
        {"over": "downgrade"},
        {"downgrade_to": ["cheap"]},
        {"tenant": ""},
    ],
)
def test_a_budget_that_says_nothing_of_use_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        budget(**wrong)


@pytest.mark.parametrize(
    ("budgets", "why"),
    [
        ((budget(), budget(usd_per_day=2.0)), r"two budgets are for \*/\*"),
        ((budget(route="defalt"),), "unknown route 'defalt'"),
        ((budget(over="downgrade", downgrade_to=["chaep"]),), "unknown model 'chaep'"),
    ],
)
def test_a_catalog_with_budgets_that_do_not_fit_is_refused(
    budgets: tuple[Budget, ...], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        catalog(*budgets)


@pytest.mark.parametrize(
    ("tenant", "route", "labels"),
    [
        ("acme", "default", ["*/*", "acme/*", "*/default", "acme/default"]),
        ("acme", "other", ["*/*", "acme/*"]),
        ("", "default", ["*/*", "*/default"]),
    ],
)
def test_a_request_counts_against_all_that_it_fits(
    tenant: str, route: str, labels: list[str]
) -> None:
    every = (
        budget(),
        budget(tenant="acme"),
        budget(route="default"),
        budget(tenant="acme", route="default"),
    )
    assert [each.label for each in concerned(every, tenant, route)] == labels


# -- the bill


def decision(*budgets: str) -> Decision:
    return Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        decided_at=NOON,
        budgets=budgets,
        plan=Plan(steps=(Step(model="dear"),)),
    )


def attempt(usd: float) -> Attempt:
    return Attempt(model="dear", endpoint="", started_at=NOON, duration_ms=1.0, cost_usd=usd)


def test_a_bill_is_in_billionths_and_of_the_day_in_utc() -> None:
    told = json.loads(bill(decision("a/b", "*/*"), [attempt(0.1), attempt(0.2)], NOON))
    assert told["nano_usd"] == "300000000"
    assert told["budgets"] == ["a/b", "*/*"]
    assert told["key"] == "modelyard:spent:2026-11-23"
    assert told["keep_s"] == 8 * 24 * 3600
    assert spent_key(NOON + 12 * 3600) == "modelyard:spent:2026-11-24"


def test_what_costs_nothing_or_counts_against_nothing_has_no_bill() -> None:
    assert bill(decision("a/b"), [attempt(0.0)], NOON) == ""
    assert bill(decision(), [attempt(1.0)], NOON) == ""
    assert bill(None, [attempt(1.0)], NOON) == ""


# -- what is decided


def test_what_is_left_changes_nothing_but_says_what_it_counts_against() -> None:
    found = decide(request(), catalog(STOP), NOON, knowledge=spent(acme__default=0.99))
    assert found.plan.steps[0].model == "dear"
    assert found.budgets == ("acme/default",)
    assert decide(request("other"), catalog(STOP), NOON).budgets == ()


def test_a_budget_that_is_spent_stops_its_tenant_alone() -> None:
    knowledge = spent(acme__default=1.0)
    with pytest.raises(OverBudget, match=r"the budget acme/default of \$1 a day \(UTC\) is spent"):
        decide(request(), catalog(STOP), NOON, knowledge=knowledge)
    assert decide(request("other"), catalog(STOP), NOON, knowledge=knowledge)


def test_nothing_may_be_spent_where_the_budget_is_zero() -> None:
    with pytest.raises(OverBudget):
        decide(request(), catalog(budget(usd_per_day=0.0)), NOON)


def test_what_is_stopped_is_refused_and_not_invalid() -> None:
    payload = request().encode()
    outcome = forward("1", payload, catalog(budget(usd_per_day=0)), NOON)
    assert isinstance(outcome, Refused)
    assert outcome.letter.reason is DeadReason.REFUSED
    assert outcome.letter.request == payload


@pytest.mark.parametrize("models", [(), ("dear",)])
def test_a_budget_that_downgrades_takes_its_own_models(models: tuple[str, ...]) -> None:
    known = catalog(
        DOWN,
        otherwise={
            "models": ["dear", "cheap"],
            "strategy": "cascade",
            "accept": {"expression": "len(text) > 1"},
            "quality_floor": 0.9,
        },
        after=["trim"],
        if_none="otherwise",
    )
    found = decide(request(models=models), known, NOON, knowledge=spent(**{"acme__*": 1.5}))
    assert [step.model for step in found.plan.steps] == ["cheap"]
    assert found.plan.strategy is Strategy.SINGLE
    assert [step.name for step in found.plan.after] == ["trim"]
    assert "the budget acme/* of $1 a day (UTC) is spent" in found.why


def test_what_the_downgrade_s_models_can_t_take_does_not_go_to_the_dear_ones() -> None:
    known = catalog(DOWN, if_none="otherwise")
    asked = request(limits={"region": "us"})
    assert decide(asked, known, NOON).plan.steps[0].model == "dear"
    with pytest.raises(Unroutable, match="budget"):
        decide(asked, known, NOON, knowledge=spent(**{"acme__*": 1.5}))


def test_of_several_that_are_spent_one_that_stops_decides() -> None:
    with pytest.raises(OverBudget):
        decide(
            request(),
            catalog(DOWN, STOP),
            NOON,
            knowledge=spent(**{"acme__*": 1.0, "acme__default": 1.0}),
        )


# -- what the router knows


class Sums:
    """A Redis that knows the sums of days, and can be away."""

    def __init__(self) -> None:
        self.days: dict[str, dict[bytes, bytes]] = {}
        self.reads = 0
        self.is_away = False

    def hgetall(self, key: str) -> dict[bytes, bytes]:
        self.reads += 1
        if self.is_away:
            raise redis.ConnectionError("away")
        return self.days.get(key, {})


def test_sums_are_read_once_a_second_and_of_the_day() -> None:
    sums, now = Sums(), NOON
    spending = Spending(catalog(STOP), lambda: sums, clock=lambda: now)  # type: ignore[arg-type, return-value]
    sums.days[spent_key(NOON)] = {b"acme/default": b"1500000000"}

    def known() -> Any:
        return spending.added(Knowledge()).spent_usd

    assert known() == {"acme/default": 1.5}
    now += 0.9
    sums.days[spent_key(NOON)] = {b"acme/default": b"2000000000"}
    assert known() == {"acme/default": 1.5}
    now += 0.2
    assert known() == {"acme/default": 2.0}
    sums.is_away = True
    now += 2
    assert known() == {"acme/default": 2.0}, "what was known stays"
    sums.is_away = False
    now += 24 * 3600
    assert known() == {}, "a new day"
    now -= 3600
    assert known() == {}, "and a clock that was set back"
    assert sums.reads == 5


def test_without_budgets_nothing_is_read() -> None:
    sums = Sums()
    knowledge = Knowledge()
    spending = Spending(catalog(), lambda: sums)  # type: ignore[arg-type, return-value]
    assert spending.added(knowledge) is knowledge
    assert sums.reads == 0
