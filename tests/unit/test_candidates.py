"""Who is called, in what order, where it is expected how long an answer takes."""

from typing import Any

import pytest
from ledger_entries import entry
from test_policy import NOW, catalog, steps

from modelyard.messages import Request
from modelyard.plan import Decision, Strategy
from router_worker.knowledge import Knowledge
from router_worker.observed import FRESH_S, Observer
from router_worker.policy import Unroutable, decide

CASCADE = {"strategy": "cascade", "accept": {"expression": "len(text) > 3"}}
ALL = ["cheap", "middle", "dear"]
FAST = 1.0
LATE = 12.0


def due(target: Any, *late: str, **fields: Any) -> Decision:
    """What is decided of a request with ten seconds left, if these models are late for it."""
    latency_s = {name: LATE if name in late else FAST for name in ALL}
    request = Request.of("x", **{"deadline": NOW + 10, **fields})
    return decide(
        request, catalog({"otherwise": target}), NOW, knowledge=Knowledge(latency_s=latency_s)
    )


def test_a_model_that_was_too_slow_is_tried_again() -> None:
    yard = catalog({"otherwise": ["cheap"]})
    request = Request.of("x", limits={"max_latency_s": 10})
    observer = Observer()
    slow = {"cheap": {"made": 1, "failed": 0, "answered_s": 30.0}}
    for _ in range(20):
        observer.add(entry(model="cheap", at=NOW, calls=slow))

    def ask(now: float) -> list[str]:
        seen = Knowledge(latency_s=observer.observed(now).latency_s)
        return steps(decide(request, yard, now, knowledge=seen))

    with pytest.raises(Unroutable, match=r"about 30\.0 s is over 10 s"):
        ask(NOW + FRESH_S)
    assert ask(NOW + FRESH_S + 1) == ["cheap"]
    # One answer that is slow still does not lock it out again, and some do.
    observer.add(entry(model="cheap", at=NOW + FRESH_S + 1, calls=slow))
    assert ask(NOW + FRESH_S + 2) == ["cheap"]


@pytest.mark.parametrize(
    ("late", "plan"),
    [
        ((), ["cheap", "middle", "dear"]),
        (("cheap",), ["middle", "dear", "cheap"]),
        (("cheap", "middle"), ["dear", "cheap", "middle"]),
        (("middle",), ["cheap", "dear", "middle"]),
        (tuple(ALL), ["cheap", "middle", "dear"]),
    ],
)
@pytest.mark.parametrize("choose", ["given", "cheapest"])
def test_who_is_late_is_called_last_and_by_nobody_left_out(
    choose: str, late: tuple[str, ...], plan: list[str]
) -> None:
    found = due({"models": ALL, "choose": choose}, *late)
    assert (steps(found), found.excluded) == (plan, ())
    # Where nobody is late, nothing is told that was not asked for.
    assert bool(found.estimates) is (choose == "cheapest" or bool(late))


@pytest.mark.parametrize("choose", ["given", "cheapest"])
@pytest.mark.parametrize("late", [("dear",), ("middle", "dear"), ("middle",), tuple(ALL)])
def test_a_cascade_keeps_its_steps_and_its_check(choose: str, late: tuple[str, ...]) -> None:
    found = due({"models": ALL, "choose": choose, **CASCADE}, *late)

    assert (steps(found), found.excluded) == (ALL, ())
    assert found.plan.strategy is Strategy.CASCADE
    assert found.plan.accept is not None


def test_a_cascade_begins_with_its_first_model_that_is_in_time() -> None:
    found = due({"models": ALL, **CASCADE}, "cheap")
    assert steps(found) == ["middle", "dear"]
    assert found.plan.accept is not None
    assert [(each.model, each.why) for each in found.excluded] == [
        ("cheap", "about 12.0 s is over the 10.0 s until its deadline")
    ]
    assert steps(due({"models": ALL, **CASCADE}, "cheap", "middle")) == ["dear"]


@pytest.mark.parametrize(
    ("target", "plan"),
    [
        ({"models": ["cheap", "middle", "support"]}, ["middle", "cheap", "support"]),
        ({"models": ["cheap", "support", "middle"]}, ["cheap", "support", "middle"]),
        (
            {"models": ["cheap", "support", "middle"], **CASCADE},
            ["cheap", "support", "middle"],
        ),
        ({"models": ["cheap", "support"], "choose": "cheapest"}, ["cheap", "support"]),
    ],
)
def test_an_estimate_hands_nothing_over_to_people(target: Any, plan: list[str]) -> None:
    found = due(target, "cheap")
    assert (steps(found), found.excluded) == (plan, ())


def test_a_limit_that_is_stated_excludes_as_before() -> None:
    found = due(ALL, "cheap", limits={"max_latency_s": 11})
    assert steps(found) == ["middle", "dear"]
    assert [each.model for each in found.excluded] == ["cheap"]


def test_an_ensemble_does_not_wait_for_who_is_late() -> None:
    found = due({"models": ALL, "strategy": "ensemble"}, "middle")
    assert steps(found) == ["cheap", "dear"]
