"""A request goes past models that were taken out of the catalog: nobody serves their queue."""

from typing import Any, cast

import pytest

from model_workers.answering import left
from model_workers.exits import Exits
from model_workers.origin import Origin
from model_workers.work import Work
from modelyard.advance import NextStep
from modelyard.catalog import Catalog
from modelyard.claims import End, Hop
from modelyard.messages import Call, Request
from modelyard.plan import Decision, Plan, Step

ORIGIN = Origin("id", "claim", "", None)


def work(*models: str) -> Work:
    catalog = Catalog.model_validate(
        {
            "models": [{"name": name, "provider": "extractive"} for name in models],
            "routes": {"default": {"otherwise": [models[0]]}},
        }
    )
    nothing = cast("Any", None)
    return Work(nothing, catalog, nothing, Exits(catalog, 60, 0, keep_text=False))


def call(*models: str) -> Call:
    plan = Plan(steps=tuple(Step(model=name) for name in models))
    decision = Decision(
        route="default", intent="other", why="a test", input_tokens=1, decided_at=0.0, plan=plan
    )
    return Call(request=Request.of("hello"), decision=decision)


@pytest.mark.parametrize(
    ("plan", "queue"),
    [(("a", "b", "c"), "model.b"), (("a", "gone", "c"), "model.c"), (("a", "b"), "model.b")],
)
def test_the_next_model_is_one_that_the_catalog_has(plan: tuple[str, ...], queue: str) -> None:
    settled = left(work("a", "b", "c"), ORIGIN, call(*plan), (), NextStep(1, "a: down"))
    hop = settled.settlement  # type: ignore[union-attr]
    assert isinstance(hop, Hop) and hop.queue == queue


def test_where_none_is_left_the_request_is_a_dead_letter_that_says_so() -> None:
    gone = call("a", "gone", "gone-too")
    settled = left(work("a"), ORIGIN, gone, (), NextStep(1, "a: down"))
    end = settled.settlement  # type: ignore[union-attr]
    assert isinstance(end, End)
    assert "a: down; the catalog has no later model of its plan" in str(settled.error)  # type: ignore[union-attr]
