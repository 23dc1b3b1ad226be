"""How a call leaves its pool: one step in Redis, and what people are told."""

import json
from dataclasses import replace
from typing import Any

import pytest
from celery.exceptions import Ignore

from model_workers.exits import Exits
from model_workers.origin import Origin
from modelyard.advance import Die
from modelyard.catalog import Catalog
from modelyard.claims import Ack, Back, End, Hop, Join, Record
from modelyard.errors import RequestFailed
from modelyard.messages import Attempt, Call, DeadReason, Draft, Part, Request, Usage
from modelyard.plan import Decision, Plan, Step

MODEL = {"provider": "openai", "endpoints": [{"base_url": "http://localhost/v1"}]}
CATALOG = Catalog.model_validate(
    {
        "models": [
            {"name": "a", **MODEL},
            {"name": "b", **MODEL},
            {"name": "local", "provider": "extractive"},
        ],
        "routes": {"default": {"otherwise": ["a", "b"]}},
    }
)
NOW = 1_000.0
ORIGIN = Origin("id", "claim", "modelyard:answers:x", "id:route")
ATTEMPTS = (Attempt(model="a", endpoint="e", started_at=NOW, duration_ms=1.0),)
DIE = Die(DeadReason.EXHAUSTED, "a: HTTP 503")
DRAFT = Draft(model="a", text="A", usage=Usage(input_tokens=2, output_tokens=1), cost_usd=0.5)


def exits(entries: int = 10, *, keep_text: bool = False) -> Exits:
    return Exits(CATALOG, 60, entries, keep_text)


def call(part: Part = Part.ANSWER, **fields: Any) -> Call:
    plan = Plan(steps=(Step(model="a"), Step(model="b")), shadow="b")
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=NOW, plan=plan
    )
    return Call(request=Request.of("a secret"), decision=decision, part=part, **fields)


def result(end: End) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(end.result)
    return meta


def test_an_answer_is_the_end_and_an_entry_of_the_ledger() -> None:
    end = exits().answered(ORIGIN, call(), ATTEMPTS, DRAFT).settlement
    assert isinstance(end, End)
    assert result(end)["result"]["text"] == "A"
    assert (end.claim, end.channel, end.entries) == ("claim", "modelyard:answers:x", 10)
    assert json.loads(end.entry)["outcome"] == "answered"
    assert "a secret" not in end.entry


def test_text_is_in_the_ledger_only_if_that_was_asked_for() -> None:
    end = exits(keep_text=True).answered(ORIGIN, call(), ATTEMPTS, DRAFT).settlement
    assert isinstance(end, End)
    assert "a secret" in end.entry


def test_a_ledger_that_is_off_hears_of_nothing() -> None:
    off = exits(0)
    shadow = Origin("id:shadow", "claim", "", "id")
    member = Origin("id:1", "claim", "", "id")
    ends: list[Any] = [
        off.answered(ORIGIN, call(), ATTEMPTS, DRAFT).settlement,
        off.dead(ORIGIN, call(), ATTEMPTS, DIE).settlement,
        off.apart(shadow, call(Part.SHADOW), ATTEMPTS, DRAFT).settlement,
        off.apart(member, call(Part.MEMBER), ATTEMPTS, DRAFT).settlement,
    ]
    assert [type(end) for end in ends] == [End, End, Record, Join]
    assert {end.entry for end in ends} == {""}


def test_usage_and_cost_are_those_of_all_that_was_paid_for() -> None:
    other = DRAFT.model_copy(update={"model": "b", "verdict": "no"})
    paid = (other, DRAFT)
    settled = exits().answered(ORIGIN, call(), ATTEMPTS, DRAFT, paid=paid, others=(other,))
    assert isinstance(settled.settlement, End)
    answer = result(settled.settlement)["result"]
    assert (answer["cost_usd"], answer["usage"]["input_tokens"]) == (1.0, 4)
    assert [draft["verdict"] for draft in answer["drafts"]] == ["no"]


def test_an_answer_that_was_picked_from_the_input_says_so() -> None:
    local = DRAFT.model_copy(update={"model": "local"})
    end = exits().answered(ORIGIN, call(), ATTEMPTS, local).settlement
    assert isinstance(end, End)
    assert result(end)["result"]["extractive"] is True


def test_a_hop_keeps_the_id_and_who_waits() -> None:
    settled = exits().hop(ORIGIN, call(step=1), "step 2 after a: retryable")
    assert isinstance(settled.settlement, Hop)
    assert isinstance(settled.error, Ignore)
    assert settled.settlement.queue == "model.b"
    message = json.loads(settled.settlement.message)
    assert (message["headers"]["id"], message["properties"]["reply_to"]) == ("id", ORIGIN.reply_to)
    assert message["headers"]["argsrepr"] == "other, about 1 tokens, step 2 after a: retryable"


def test_a_member_s_failure_is_a_joining_and_no_dead_letter() -> None:
    settled = exits().apart(
        Origin("id:2", "claim", "", "id"), call(Part.MEMBER, step=1), ATTEMPTS, None, DIE
    )
    join = settled.settlement
    assert isinstance(join, Join)
    assert (join.id, join.number, join.answered, join.queue) == ("id", 2, False, "model.b")
    assert json.loads(join.ended)["reason"] == "exhausted"
    assert json.loads(join.entry)["outcome"] == "failed"
    assert isinstance(settled.error, RequestFailed)


def test_a_shadow_s_failure_is_recorded_and_no_error() -> None:
    shadow = Origin("id:shadow", "claim", "", "id")
    settled = exits().apart(shadow, call(Part.SHADOW, origin="id"), ATTEMPTS, None, DIE)
    assert isinstance(settled.settlement, Record)
    entry = json.loads(settled.settlement.entry)
    assert (entry["kind"], entry["id"], entry["outcome"]) == ("shadow", "id", "failed")
    assert settled.error is None


@pytest.mark.parametrize(
    ("id", "parent_id", "kind"),
    [
        ("id", "id:route", End),
        ("id:1", "id", Join),
        ("id:shadow", "id", Ack),
        ("job:1", "job:1:route", End),
    ],
)
def test_what_holds_no_call_ends_as_what_it_would_have_been(
    id: str, parent_id: str, kind: type[object]
) -> None:
    origin = Origin(id, "claim", "", parent_id)
    settled = exits().unreadable(origin, {"junk": 1}, Die(DeadReason.INVALID, "not a call"))
    assert type(settled.settlement) is kind


def test_what_is_put_back_remembers_how_many_workers_it_outlived() -> None:
    origin = replace(ORIGIN, deliveries=3)
    back = exits().later(origin, call(), 0.0, "full").settlement
    assert isinstance(back, Back)
    assert json.loads(back.message)["headers"]["modelyard-deliveries"] == 3
    hop = exits().hop(origin, call(step=1), "next").settlement
    assert isinstance(hop, Hop)
    assert "modelyard-deliveries" not in json.loads(hop.message)["headers"]


def test_budgets_are_told_of_the_calls_that_they_do_not_know_yet() -> None:
    """Those of pieces and members were counted as they ended."""
    known, new = (
        Attempt(model="a", endpoint="e", started_at=NOW, duration_ms=1.0, cost_usd=usd)
        for usd in (0.25, 0.5)
    )
    last = call(Part.REDUCE)
    last = last.model_copy(
        update={"decision": last.decision.model_copy(update={"budgets": ("*/*",)})}
    )
    ends = [
        exits().answered(ORIGIN, last, (known, new), DRAFT, billed=1).settlement,
        exits().dead(ORIGIN, last, (known, new), DIE, billed=1).settlement,
    ]
    for end in ends:
        assert isinstance(end, End)
        assert json.loads(end.bill)["nano_usd"] == "500000000"
        assert end.joined
