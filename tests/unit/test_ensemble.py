"""What the members of an ensemble came to, and how the router spreads them."""

import json
from typing import Any

from model_workers.combine import Combined
from model_workers.ensemble import death, drafts_of, missing, without
from modelyard.claims import Ack, Claimed, End, Join
from modelyard.endings import buried
from modelyard.errors import FailureKind
from modelyard.member import Member, attempts_of, members_of, numbered
from modelyard.messages import Attempt, Call, DeadReason, Draft, Lane, Part, Request
from modelyard.names import CALL_TASK, member_of
from modelyard.plan import Combine, Decision, Pieces, Plan, Step, Strategy
from router_worker.spread import is_spread, spread

NOW = 1_000.0


def attempt(model: str, started_at: float, kind: FailureKind | None = None) -> Attempt:
    return Attempt(model=model, endpoint="e", started_at=started_at, duration_ms=1.0, kind=kind)


ONE = Member(draft=Draft(model="a", text="A"), attempts=(attempt("a", 3.0),))
TWO = Member(
    attempts=(attempt("b", 2.0, FailureKind.RETRYABLE),), reason=DeadReason.EXHAUSTED, message="no"
)


def test_members_are_in_the_plan_s_order_whoever_ended_first() -> None:
    fields = {b"m10": TWO, b"m2": ONE}
    stored = {name: member.model_dump_json().encode() for name, member in fields.items()}
    members = members_of({**stored, b"need": b"2", b"members": b"10", b"message": b"{}"})
    assert members == (ONE, TWO)
    assert drafts_of(members) == [ONE.draft]
    assert [each.model for each in attempts_of(members)] == ["b", "a"]


def test_a_death_has_the_reason_that_all_members_share() -> None:
    refused = TWO.model_copy(update={"reason": DeadReason.REFUSED})
    assert death([refused, refused], 2).reason is DeadReason.REFUSED
    assert death([refused, TWO], 2).reason is DeadReason.EXHAUSTED
    assert death([TWO, TWO], 2).message == "no member of the ensemble answered (no; no)"
    late = death([refused], 3)
    assert late.reason is DeadReason.EXHAUSTED
    assert "2 of 3 did not answer in time" in late.message


def test_a_request_in_pieces_dies_of_the_first_that_is_not_there() -> None:
    assert missing({1: ONE, 2: ONE}, 2) is None
    dead = missing({1: ONE, 2: TWO}, 3)
    assert dead is not None
    assert (dead.reason, dead.message) == (DeadReason.EXHAUSTED, "piece 2 of 3: no")
    late = missing({2: ONE}, 3)
    assert late is not None
    assert late.reason is DeadReason.EXPIRED
    assert late.message == "piece 1 and 1 more of 3 did not end in time"
    fields = {b"m2": TWO.model_dump_json().encode(), b"need": b"2"}
    assert numbered(fields) == {2: TWO}


def test_the_drafts_of_an_answer_are_those_that_were_not_taken() -> None:
    drafts = [Draft(model=model, text=text) for model, text in ("ax", "bx", "cy")]
    assert without(Combined.of(drafts[1]), drafts) == [drafts[0], drafts[2]]
    assert without(Combined("x\ny", "a+b+c", "", "stop"), drafts) == drafts


def call(plan: Plan, **request: Any) -> Call:
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=NOW, plan=plan
    )
    return Call(request=Request.of(request.pop("text", "hello"), **request), decision=decision)


STEPS = tuple(Step(model=model) for model in "abc")


def sent(of: Call) -> tuple[Any, list[tuple[str, dict[str, Any], Call]]]:
    """Return where the members meet, and of each message queue, headers and call."""
    found = spread(
        "claim",
        "id",
        of,
        words="words",
        reply_to="r",
        redelivered=False,
        now=NOW,
    )
    messages = []
    for queue, message in found.messages:
        envelope = json.loads(message)
        (payload,) = json.loads(envelope["body"])[0]
        messages.append((queue, envelope["headers"], Call.decode(payload)))
    return found.join, messages


def test_each_member_of_an_ensemble_is_a_message_of_its_own() -> None:
    asked = call(Plan(strategy=Strategy.ENSEMBLE, steps=STEPS), lane=Lane.BATCH)
    assert is_spread(asked)
    join, messages = sent(asked)
    assert [queue for queue, _, _ in messages] == [f"batch.model.{model}" for model in "abc"]
    assert [member_of(each["id"], each["parent_id"]) for _, each, _ in messages] == [
        ("id", 1),
        ("id", 2),
        ("id", 3),
    ]
    assert {(each.part, each.origin) for _, _, each in messages} == {(Part.MEMBER, "id")}
    assert [each.model for _, _, each in messages] == list("abc")
    assert (join.id, join.need, join.members, join.within_ms) == ("id", 3, 3, 60_000)
    assert (join.queue, join.anywhere) == ("batch.model.a", True)


def test_a_judge_combines_on_its_own_queue_when_the_quorum_is_there() -> None:
    combine = Combine(how="best", judge="j", quorum=2, deadline_s=5)
    plan = Plan(strategy=Strategy.ENSEMBLE, steps=STEPS, combine=combine)
    join, _ = sent(call(plan, deadline=NOW + 2))
    assert (join.need, join.within_ms) == (2, 2_000)
    assert (join.queue, join.anywhere) == ("model.j", False)
    envelope = json.loads(join.message)
    assert envelope["headers"]["id"] == "id"
    assert envelope["properties"]["reply_to"] == "r"


def test_each_piece_is_a_message_of_its_own_and_the_last_question_has_the_whole() -> None:
    pieces = Pieces(count=3, piece_tokens=200, asked_tokens=300, answer_tokens=80, final_tokens=400)
    plan = Plan(strategy=Strategy.MAP_REDUCE, steps=STEPS, pieces=pieces)
    text = "The pump was stopped at noon. " * 70
    asked = call(plan, text=text, lane=Lane.BATCH, deadline=NOW + 90)
    assert is_spread(asked)
    join, messages = sent(asked)
    assert [queue for queue, _, _ in messages] == ["batch.model.a"] * 3
    assert [member_of(each["id"], each["parent_id"]) for _, each, _ in messages] == [
        ("id", 1),
        ("id", 2),
        ("id", 3),
    ]
    assert {(each.part, each.step, each.origin) for _, _, each in messages} == {(Part.MAP, 0, "id")}
    assert all(
        f"part {at} of 3" in each.request.text for at, (_, _, each) in enumerate(messages, 1)
    )
    assert (join.need, join.members, join.needs_all, join.anywhere) == (3, 3, True, False)
    assert (join.within_ms, join.last_ms, join.queue) == (90_000, 90_000, "batch.model.a")
    (payload,) = json.loads(json.loads(join.message)["body"])[0]
    last = Call.decode(payload)
    assert (last.part, last.request) == (Part.REDUCE, asked.request)


def test_a_shadow_goes_beside_the_request() -> None:
    asked = call(Plan(steps=STEPS, shadow="s"))
    assert is_spread(asked)
    join, messages = sent(asked)
    assert join is None
    assert [(queue, of["id"], each.part) for queue, of, each in messages] == [
        ("model.a", "id", Part.ANSWER),
        ("model.s", "id:shadow", Part.SHADOW),
    ]
    assert not is_spread(call(Plan(steps=STEPS)))


def claimed(id: str, parent_id: str) -> Claimed:
    headers = {"task": CALL_TASK, "id": id, "parent_id": parent_id}
    return Claimed("claim", "model.a", json.dumps({"headers": headers}).encode())


def test_only_what_is_a_request_of_its_own_becomes_a_dead_letter() -> None:
    member = buried(claimed("id:2", "id"), "why")
    assert isinstance(member, Join)
    assert (member.id, member.number, member.answered) == ("id", 2, False)
    assert isinstance(buried(claimed("id:shadow", "id"), "why"), Ack)
    # A producer may call its requests as it likes.
    for id, parent_id in (("job:2", "job:2:route"), ("job:2", "other"), ("job", "job:route")):
        assert isinstance(buried(claimed(id, parent_id), "why"), End)
    assert isinstance(buried(Claimed("claim", "model.a", b"\xff"), "why"), End)
