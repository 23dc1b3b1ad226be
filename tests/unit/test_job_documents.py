"""One document's way from requests to its line."""

from dataclasses import replace

from modelyard.errors import RequestFailed
from modelyard.messages import Answer, Attempt, Timings, Usage
from modelyard.plan import Decision, Plan, Step
from producer.document_summary import DocumentSummary, Question
from producer.documents import Document, Unreadable
from producer.window import Door, Window

QUESTION = Question(
    "Summarize this.",
    Window((Door(None, 300),)),
    1_000_000,
    models=("small",),
    params={"max_tokens": 50},
)

ATTEMPT = Attempt(model="small", endpoint="one.example", started_at=1.0, duration_ms=5.0)


def unit(text: str) -> DocumentSummary:
    return DocumentSummary("/here/a.txt", Document("a.txt", text, "digest"), QUESTION)


def answer(id: str, *, decided_at: float = 100.0) -> Answer:
    """An answer that was submitted a second before `decided_at` and took three in all."""
    return Answer(
        id=id,
        text=f"summary {id}",
        model="small",
        provider_model="s",
        decision=Decision(
            route="default",
            intent="pinned",
            why="because",
            input_tokens=1,
            decided_at=decided_at,
            plan=Plan(steps=(Step(model="small"),)),
        ),
        usage=Usage(input_tokens=10, output_tokens=2),
        cost_usd=0.5,
        attempts=(ATTEMPT,),
        timings=Timings(routing_ms=1000, queued_ms=500, calling_ms=1500, total_ms=3000),
    )


def test_a_short_document_is_asked_once_as_the_options_say() -> None:
    document = unit("Once upon a time.")
    (asked,) = document.begin()

    assert asked.request.text == "Summarize this.\n\nOnce upon a time."
    assert asked.request.lane == "batch"
    assert asked.request.models == ("small",)
    assert asked.request.params == {"max_tokens": 50}
    assert asked.request.metadata == {"path": "a.txt"}
    assert not document.ended
    assert document.heard(asked.part, "1", answer("1")) == []
    assert document.ended
    assert document.record() == {
        "path": "a.txt",
        "file": "/here/a.txt",
        "sha256": "digest",
        "options": QUESTION.digest,
        "id": "1",
        "status": "answered",
        "summary": "summary 1",
        "model": "small",
        "intent": "pinned",
        "why": "because",
        "usage": {"input_tokens": 10, "output_tokens": 2},
        "cost_usd": 0.5,
        "attempts": [
            {"model": "small", "endpoint": "one.example", "started_at": 1.0, "duration_ms": 5.0}
        ],
        "timings_ms": {"routing": 1000.0, "queued": 500.0, "calling": 1500.0, "total": 3000.0},
        "extractive": False,
        "parts": 1,
    }


def test_the_line_of_a_long_one_adds_up_all_its_requests() -> None:
    document = unit("word " * 600)
    asked = document.begin()
    assert len(asked) == 3
    for at, part in enumerate(asked):
        more = document.heard(part.part, f"map {at}", answer(f"map {at}"))
    (last,) = more
    document.heard(last.part, "last", answer("last", decided_at=103.0))

    record = document.record()
    assert (record["id"], record["summary"], record["parts"]) == ("last", "summary last", 3)
    assert record["usage"] == {"input_tokens": 40, "output_tokens": 8}
    assert record["cost_usd"] == 2.0
    assert len(record["attempts"]) == 4
    # The maps ran side by side: from the first submit at 99 s to the last answer at 105 s.
    assert record["timings_ms"]["total"] == 6000.0
    assert record["timings_ms"]["calling"] == 6000.0


def test_a_part_that_failed_fails_the_document_with_what_was_paid() -> None:
    document = unit("word " * 600)
    first, *rest = document.begin()
    failed = RequestFailed("declined", "1", "refused", [ATTEMPT.encode()])
    document.heard(first.part, "1", failed)
    assert not document.ended
    for part in rest:
        document.heard(part.part, "2", answer("2"))

    record = document.record()
    assert record["status"] == "failed"
    assert record["error"] == {"reason": "refused", "message": "declined"}
    assert record["cost_usd"] == 1.0
    assert len(record["attempts"]) == 3


def test_a_document_that_could_not_be_read_says_why() -> None:
    document = DocumentSummary("/here/a.txt", Unreadable("a.txt", "it is empty"), QUESTION)

    assert document.begin() == ()
    assert document.ended
    record = document.record()
    assert record["error"] == {"reason": "unreadable", "message": "it is empty"}
    assert record["id"] is None


def test_other_options_are_another_question() -> None:
    others = [
        replace(QUESTION, instruction="Translate this."),
        replace(QUESTION, route="cheap"),
        replace(QUESTION, models=("small", "large")),
        replace(QUESTION, params={"max_tokens": 51}),
    ]
    digests = {question.digest for question in others}
    assert len(digests) == 4
    assert QUESTION.digest not in digests
    assert replace(QUESTION, message_bytes=5).digest == QUESTION.digest
