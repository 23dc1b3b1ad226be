"""The entries of the decision ledger: what they have, and that they have no text by themselves."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.decision_ledger import (
    Calls,
    Entry,
    Kind,
    answered_entry,
    died_entry,
    entry_of,
    is_after,
    part_entry,
)
from modelyard.errors import FailureKind
from modelyard.messages import (
    Answer,
    Attempt,
    Call,
    DeadLetter,
    DeadReason,
    Draft,
    Part,
    Request,
    Timings,
    Usage,
)
from modelyard.plan import Accept, Arm, Decision, Plan, Step, Strategy

SECRET = "the secret plans of the yard"
ARM = Arm(experiment="try-large", arm="treatment")
DECISION = Decision(
    route="cheap",
    intent="summarize",
    why="rule 1",
    rule=0,
    confidence=0.9,
    input_tokens=10,
    complexity=2,
    arms=(ARM,),
    decided_at=1_000.5,
    plan=Plan(steps=(Step(model="small"), Step(model="large"))),
)
CALL = Call(
    request=Request.of(SECRET, metadata={"user": "ada"}, submitted_at=1_000.0), decision=DECISION
)
CASCADE = DECISION.model_copy(
    update={
        "plan": DECISION.plan.model_copy(
            update={"strategy": Strategy.CASCADE, "accept": Accept(min_confidence=0.5)}
        )
    }
)


def attempt(model: str, ms: float, kind: FailureKind | None = None) -> Attempt:
    return Attempt(model=model, endpoint="here", started_at=1_001.0, duration_ms=ms, kind=kind)


ATTEMPTS = (
    attempt("small", 100.0, FailureKind.RETRYABLE),
    attempt("small", 200.0, FailureKind.LIMITED),
    attempt("large", 400.0),
)
ANSWER = Answer(
    id="r1",
    text=SECRET,
    model="large",
    provider_model="provider-large",
    decision=DECISION,
    usage=Usage(input_tokens=11, output_tokens=22),
    cost_usd=0.5,
    attempts=ATTEMPTS,
    timings=Timings(calling_ms=750.0, total_ms=2_000.0),
)
LETTER = DeadLetter(
    id="r1",
    reason=DeadReason.EXHAUSTED,
    message=SECRET,
    request=CALL.request.encode(),
    decision=DECISION,
    attempts=ATTEMPTS[:2],
    died_at=1_003.0,
)


def read(written: str) -> Entry:
    """The entry as a reader has it."""
    entry = entry_of({b"e": written.encode()})
    assert entry is not None
    return entry


def test_an_answer_s_entry_tells_who_did_what_in_which_time_for_how_much() -> None:
    entry = read(answered_entry(ANSWER, CALL, keep_text=False))

    assert entry == Entry(
        kind=Kind.REQUEST,
        id="r1",
        at=1_002.0,
        route="cheap",
        intent="summarize",
        rule=0,
        confidence=0.9,
        plan=("small", "large"),
        model="large",
        arms=(ARM,),
        outcome="answered",
        cost_usd=0.5,
        latency_s=2.0,
        calling_s=0.75,
        calls={
            "small": Calls(made=2, failed=2),
            "large": Calls(made=1, failed=0, answered_s=0.4),
        },
        input_tokens=11,
        output_tokens=22,
        complexity=2,
    )
    assert entry.answered


def test_a_dead_letter_s_entry_has_its_reason_and_what_was_paid_on_the_way() -> None:
    drafts = (Draft(model="small", text=SECRET, cost_usd=0.25),)
    entry = read(died_entry(LETTER, CALL.model_copy(update={"drafts": drafts}), keep_text=False))

    assert (entry.outcome, entry.model, entry.answered) == ("exhausted", "", False)
    assert (entry.cost_usd, entry.drafts) == (0.25, 1)
    assert (entry.at, entry.latency_s) == (1_003.0, 3.0)
    assert entry.calling_s == pytest.approx(0.3)
    assert entry.calls == {"small": Calls(made=2, failed=2)}


def test_a_dead_letter_s_entry_says_whose_turn_it_was() -> None:
    assert read(died_entry(LETTER, CALL, keep_text=False)).stopped_at == "small"
    second = CALL.model_copy(update={"step": 1})
    assert read(died_entry(LETTER, second, keep_text=False)).stopped_at == "large"
    joins = CALL.model_copy(update={"part": Part.REDUCE})
    assert read(died_entry(LETTER, joins, keep_text=False)).stopped_at == ""


@pytest.mark.parametrize(("part", "text"), [(Part.SHADOW, SECRET), (Part.MEMBER, None)])
def test_a_shadow_s_answer_is_kept_where_text_is(part: Part, text: str | None) -> None:
    call, draft = CALL.model_copy(update={"part": part}), Draft(model="small", text=SECRET)

    assert read(part_entry("r1", call, draft, (), 1_003.0, keep_text=True)).text == text
    assert read(part_entry("r1", call, draft, (), 1_003.0, keep_text=False)).text is None


def test_where_its_session_was_escalated_to_is_there_for_a_replay() -> None:
    decision = DECISION.model_copy(update={"escalated": "large"})
    call = CALL.model_copy(update={"decision": decision})

    assert read(died_entry(LETTER, call, keep_text=False)).escalated == "large"
    assert read(died_entry(LETTER, CALL, keep_text=False)).escalated is None


def test_what_was_never_routed_has_an_entry_too() -> None:
    letter = LETTER.model_copy(update={"decision": None, "attempts": ()})
    entry = read(died_entry(letter, None, keep_text=True))

    assert (entry.outcome, entry.route, entry.plan) == ("exhausted", "", ())


@pytest.mark.parametrize(("part", "kind"), [(Part.SHADOW, "shadow"), (Part.MEMBER, "member")])
def test_a_part_has_the_id_of_its_request_and_its_own_model(part: Part, kind: str) -> None:
    plan = DECISION.plan.model_copy(update={"shadow": "other"})
    call = CALL.model_copy(
        update={
            "part": part,
            "origin": "r1",
            "decision": DECISION.model_copy(update={"plan": plan}),
        }
    )
    draft = Draft(
        model=call.model, text=SECRET, cost_usd=0.1, usage=Usage(input_tokens=1, output_tokens=2)
    )

    answered = read(
        part_entry("r1:2", call, draft, (attempt(call.model, 50.0),), 1_002.0, keep_text=False)
    )
    failed = read(
        part_entry(
            "r1:2",
            call,
            None,
            (attempt(call.model, 50.0, FailureKind.PERMANENT),),
            1_002.0,
            keep_text=False,
        )
    )

    assert (answered.kind, answered.id, answered.model) == (kind, "r1", call.model)
    assert (answered.cost_usd, answered.output_tokens, answered.answered) == (0.1, 2, True)
    assert (failed.outcome, failed.calls[call.model].failed) == ("failed", 1)
    assert answered.model == ("other" if part is Part.SHADOW else "small")


@pytest.mark.parametrize(("verdict", "accepted"), [("", True), ("too short", False)])
def test_a_cascade_s_entry_says_whether_an_answer_was_turned_down(
    verdict: str, accepted: bool
) -> None:
    draft = Draft(model="small", text=SECRET, verdict=verdict)
    answer = ANSWER.model_copy(update={"decision": CASCADE, "drafts": (draft,)})

    entry = read(answered_entry(answer, CALL, keep_text=False))

    assert (entry.strategy, entry.accepted, entry.drafts) == (Strategy.CASCADE, accepted, 1)
    assert read(answered_entry(ANSWER, CALL, keep_text=False)).accepted is None


def test_the_judge_s_score_of_the_answer_is_in_the_entry() -> None:
    drafts = (
        Draft(model="small", text="", score=0.2, verdict="wrong"),
        Draft(model="large", text="", score=0.4, verdict="wrong"),
        Draft(model="large", text="", score=0.8),
    )
    call = CALL.model_copy(update={"drafts": drafts})

    assert read(answered_entry(ANSWER, call, keep_text=False)).score == 0.8


def test_text_is_kept_only_where_it_was_asked_for() -> None:
    part = CALL.model_copy(update={"part": Part.SHADOW, "origin": "r1"})
    draft = Draft(model="small", text=SECRET)
    for keep in (False, True):
        for written in (
            answered_entry(ANSWER, CALL, keep_text=keep),
            died_entry(LETTER, CALL, keep_text=keep),
            part_entry("r1:shadow", part, draft, ATTEMPTS, 1_002.0, keep_text=keep),
        ):
            assert (SECRET in written) is keep
            assert ("ada" in written) is keep
            if keep:
                assert Request.decode(read(written).request or {}) == CALL.request


def test_the_text_of_a_piece_is_never_kept_as_if_somebody_had_asked_it() -> None:
    part = CALL.model_copy(update={"part": Part.MAP, "origin": "r1"})
    draft = Draft(model="small", text=SECRET)
    written = part_entry("r1:1", part, draft, ATTEMPTS, 1_002.0, keep_text=True)
    assert read(written).kind == "member"
    assert read(written).request is None


@given(
    text=st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40).filter(
        lambda text: bool(text.strip())
    ),
    metadata=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    cost=st.floats(0, 1e6),
    tokens=st.integers(0, 10**9),
    total_ms=st.floats(0, 1e9),
)
def test_whatever_is_written_can_be_read(
    text: str, metadata: dict[str, str], cost: float, tokens: int, total_ms: float
) -> None:
    request = Request.of(text, metadata=metadata)
    call = CALL.model_copy(update={"request": request})
    answer = ANSWER.model_copy(
        update={
            "id": text,
            "cost_usd": cost,
            "usage": Usage(output_tokens=tokens),
            "timings": Timings(total_ms=total_ms),
        }
    )

    entry = read(answered_entry(answer, call, keep_text=True))

    assert (entry.id, entry.cost_usd, entry.output_tokens) == (text, cost, tokens)
    assert entry.request == request.encode()
    assert Entry.decode(json.loads(json.dumps(entry.encode()))) == entry


@pytest.mark.parametrize(
    "fields", [{}, {b"e": b"{"}, {b"e": b'{"kind":"request"}'}, {b"other": b"{}"}]
)
def test_what_is_no_entry_is_none(fields: dict[bytes, bytes]) -> None:
    assert entry_of(fields) is None


def test_ids_are_compared_as_numbers() -> None:
    assert is_after("1000-0", "999-5")
    assert is_after("999-10", "999-9")
    assert not is_after("999-9", "999-9")
