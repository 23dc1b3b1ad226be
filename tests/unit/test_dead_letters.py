"""Which dead letters are meant, and what a request becomes when it is replayed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.dead_entries import Entry, Filter, models_of, read_entry
from modelyard.dead_letters import Fate, near_limit
from modelyard.errors import FailureKind, InvalidRequest
from modelyard.messages import Attempt, DeadLetter, DeadReason, Lane, Request
from modelyard.plan import Decision, Plan, Step
from modelyard.replay import Edit, NotReplayable, edited, message_of, queue_of, replays
from producer.dead_display import IDS_KEPT, Tally, in_short, visible
from producer.dead_export import line, new_file
from producer.dead_options import chosen, key_values, reason, seconds, short_duration
from producer.output import UsageError

NOW = 1_000_000.0
SECRET = "the prompt that nobody must see"


def dead_letter(**fields: Any) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": "a",
            "reason": "exhausted",
            "message": f"small: I can't answer {SECRET}",
            "request": Request.of(SECRET).encode(),
            "died_at": NOW,
            **fields,
        }
    )


def entry(**fields: Any) -> Entry:
    letter = dead_letter(**fields)
    return read_entry(letter.id, letter.died_at, letter.model_dump_json().encode())


def attempt(model: str) -> Attempt:
    return Attempt(
        model=model,
        endpoint="e",
        started_at=1.0,
        duration_ms=1.0,
        kind=FailureKind.RETRYABLE,
        status=503,
        message=SECRET,
    )


def decision(*models: str) -> Decision:
    return Decision(
        route="default",
        intent="other",
        why="",
        input_tokens=1,
        decided_at=1.0,
        plan=Plan(steps=tuple(Step(model=model) for model in models)),
    )


@pytest.mark.parametrize(
    ("which", "is_meant"),
    [
        (Filter(), True),
        (Filter(ids=("a", "b")), True),
        (Filter(ids=("b",)), False),
        (Filter(reasons=frozenset({DeadReason.EXPIRED, DeadReason.EXHAUSTED})), True),
        (Filter(reasons=frozenset({DeadReason.POISON})), False),
        (Filter(models=frozenset({"large"})), True),
        (Filter(models=frozenset({"larger"})), False),
        (Filter(routes=frozenset({"cheap", "other"})), True),
        (Filter(routes=frozenset({"default"})), False),
        (Filter(metadata={"tenant": "acme"}), True),
        (Filter(metadata={"tenant": "acme", "job": "8"}), False),
        (Filter(since=NOW), True),
        (Filter(before=NOW), False),
        (Filter(since=math.nextafter(NOW, math.inf)), False),
        (Filter(before=math.nextafter(NOW, math.inf)), True),
        (Filter(reasons=frozenset({DeadReason.EXHAUSTED}), ids=("b",)), False),
    ],
)
def test_a_filter_means_the_letters_to_which_all_of_it_applies(
    which: Filter, is_meant: bool
) -> None:
    request = Request.of("hi", route="cheap", metadata={"tenant": "acme", "job": "7"}).encode()
    letter = entry(request=request, attempts=(attempt("small"), attempt("large")))
    assert which.matches(letter) is is_meant


def test_what_can_t_be_read_is_meant_by_its_id_and_age_only() -> None:
    odd = read_entry("a", NOW, b"{}")
    assert odd.letter is None
    assert "not a dead letter" in odd.problem
    assert Filter(ids=("a",), since=NOW).matches(odd)
    assert not Filter(reasons=frozenset(DeadReason)).matches(odd)


def test_a_request_that_has_no_metadata_to_speak_of_has_no_key_of_it() -> None:
    assert not Filter(metadata={"a": "b"}).matches(entry(request={"metadata": "a=b"}))


@pytest.mark.parametrize(
    ("why", "called", "plan", "models"),
    [
        ("exhausted", ["small", "small", "large"], ["small", "large"], ("small", "large")),
        ("refused", ["small"], ["small", "large"], ("small",)),
        ("expired", [], ["small", "large"], ("small",)),
        ("expired", ["small"], ["small", "large"], ("small", "large")),
        ("poison", ["small"], ["small", "large"], ("small", "large")),
        ("poison", [], ["small"], ("small",)),
        ("invalid", [], [], ()),
    ],
)
def test_the_models_of_a_letter_are_those_that_had_it(
    why: str, called: list[str], plan: list[str], models: tuple[str, ...]
) -> None:
    letter = dead_letter(
        reason=why,
        attempts=tuple(map(attempt, called)),
        decision=decision(*plan) if plan else None,
    )
    assert models_of(letter) == models


def test_a_replayed_request_says_the_same_and_remembers_what_it_died_of() -> None:
    request = Request.of("hi", lane=Lane.BATCH, metadata={"tenant": "acme"}, submitted_at=3.0)
    letter = dead_letter(request=request.encode(), attempts=(attempt("small"),))

    first = edited(letter, Edit(), NOW)
    again = edited(letter.model_copy(update={"request": first.encode()}), Edit(), NOW + 1)

    assert first.model_copy(update={"metadata": {}}) == request.model_copy(update={"metadata": {}})
    assert first.metadata == {
        "tenant": "acme",
        "modelyard.replays": "1",
        "modelyard.replayed_at": "1000000.0",
        "modelyard.died": "exhausted after 1 attempt",
    }
    assert replays(again.metadata) == 2
    assert queue_of(first) == "batch.requests"


def test_another_route_decides_even_if_the_request_named_its_models() -> None:
    letter = dead_letter(request=Request.of("hi", models=("small",)).encode())
    request = edited(letter, Edit(route="cheap"), NOW)
    assert (request.route, request.models) == ("cheap", ())


def test_models_are_pinned_in_their_order() -> None:
    request = edited(dead_letter(), Edit(models=("large", "small")), NOW)
    assert (request.route, request.models) == ("default", ("large", "small"))


@pytest.mark.parametrize("deadline", [NOW, NOW - 1, 0.0])
def test_a_deadline_that_has_passed_is_dropped_only_when_told(deadline: float) -> None:
    letter = dead_letter(request=Request.of("hi", deadline=deadline).encode())

    with pytest.raises(NotReplayable, match="--deadline 10m"):
        edited(letter, Edit(), NOW)
    assert edited(letter, Edit(no_deadline=True), NOW).deadline is None
    assert edited(letter, Edit(deadline_s=600), NOW).deadline == NOW + 600


def test_a_deadline_that_has_not_passed_is_kept() -> None:
    letter = dead_letter(request=Request.of("hi", deadline=NOW + 1).encode())
    assert edited(letter, Edit(), NOW).deadline == NOW + 1


@pytest.mark.parametrize("edit", [{"deadline_s": 1.0, "no_deadline": True}, {"deadline_s": 0.0}])
def test_an_edit_that_makes_no_sense_is_refused(edit: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="deadline"):
        Edit(**edit)


def test_what_was_no_request_is_refused_with_the_problem_and_without_the_content() -> None:
    letter = dead_letter(reason="invalid", request={"received": [SECRET]})
    with pytest.raises(NotReplayable, match="messages: Field required") as refused:
        edited(letter, Edit(), NOW)
    assert SECRET not in str(refused.value)


def test_an_edit_may_make_a_request_of_what_was_none() -> None:
    letter = dead_letter(reason="invalid", request={"text": "hi", "route": 7})
    with pytest.raises(NotReplayable, match="route"):
        edited(letter, Edit(), NOW)
    assert edited(letter, Edit(route="default"), NOW).route == "default"


ODD: list[Any] = [
    *(None, True, 0, -1, 1e400, math.nan, 2 * NOW, "", "hi", "batch", "\ud800", "\0"),
    *([], ["hi"], [["hi"]], {}, {"a": "b"}, {"a": 1}, [{"role": "user", "content": "hi"}]),
]


@given(
    st.dictionaries(
        st.sampled_from(["text", "messages", "route", "models", "metadata", "deadline", "lane"]),
        st.sampled_from(ODD),
    )
)
def test_whatever_was_submitted_is_replayed_or_refused_with_a_reason(raw: dict[str, Any]) -> None:
    letter = dead_letter(reason="invalid", request=raw)
    try:
        request = edited(letter, Edit(), NOW)
        message = json.loads(message_of("a", request, queue_of(request), "channel"))
    except NotReplayable as refused:
        assert str(refused)
    else:
        assert Request.decode(json.loads(message["body"])[0][0]) == request


def test_the_message_is_one_that_a_client_would_send() -> None:
    request = Request.of(SECRET)
    sent = message_of("a", request, "requests", "modelyard:answers:me")
    message = json.loads(sent)
    assert message["headers"]["id"] == "a"
    assert message["headers"]["task"] == "modelyard.route"
    assert message["properties"]["reply_to"] == "modelyard:answers:me"
    assert SECRET not in message["headers"]["argsrepr"]
    assert "modelyard-deliveries" not in message["headers"]


@pytest.mark.parametrize(
    ("count", "limit", "near"),
    [(0, 0, False), (10**9, 0, False), (79, 100, False), (80, 100, True), (101, 100, True)],
)
def test_a_store_is_nearly_full_from_four_fifths_on(count: int, limit: int, near: bool) -> None:
    assert near_limit(count, limit) is near


@pytest.mark.parametrize(
    ("written", "means_s"),
    [("90s", 90), ("15m", 900), ("2h", 7200), ("3d", 259200), ("1.5h", 5400)],
)
def test_a_duration_has_a_unit(written: str, means_s: float) -> None:
    assert seconds(written) == means_s


@pytest.mark.parametrize("written", ["", "90", "s", "-1s", "1w", "1h30m", "h2", "1e9s", "inf"])
def test_what_is_no_duration_is_told_how_to_write_one(written: str) -> None:
    with pytest.raises(UsageError, match="write 90s, 15m, 2h or 3d"):
        seconds(written)


@given(st.integers(min_value=0, max_value=10**6), st.sampled_from("smhd"))
def test_an_age_is_never_shown_as_more_than_it_is(count: int, unit: str) -> None:
    duration_s = seconds(f"{count}{unit}")
    assert seconds(short_duration(duration_s).replace(",", "")) <= duration_s


def test_an_unknown_reason_is_told_the_nearest() -> None:
    assert reason("Expired") is DeadReason.EXPIRED
    with pytest.raises(UsageError, match=r"unknown reason 'exausted' \(did you mean 'exhausted'\?"):
        reason("exausted")


def test_metadata_is_written_as_key_and_value() -> None:
    assert key_values(["a=b=c", "d="]) == {"a": "b=c", "d": ""}
    for wrong in (["a"], ["=b"], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="--metadata"):
            key_values(wrong)


def test_ages_become_moments() -> None:
    which = chosen(older_than="2h", newer_than="1d", now=NOW)
    assert (which.since, which.before) == (NOW - 86400, NOW - 7200)
    with pytest.raises(UsageError, match="nothing is both older than 2h and newer than 60s"):
        chosen(older_than="2h", newer_than="60s", now=NOW)


def test_a_letter_in_a_list_has_neither_its_prompt_nor_what_a_provider_said() -> None:
    letters = [
        entry(attempts=(attempt("small"),)),
        entry(traceback="...", message=f"KeyError: {SECRET}"),
        entry(request={"metadata": SECRET, "route": [SECRET]}, attempts=(attempt("small"),)),
        read_entry("a", NOW, json.dumps({"text": SECRET}).encode()),
    ]
    for letter in letters:
        assert SECRET not in json.dumps(in_short(letter))
    assert in_short(letters[0])["why"] == "1 attempt, last: small retryable 503"


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    assert visible("a\x1b[31mb\n\tc\x07é") == "a\N{REPLACEMENT CHARACTER}[31mb\n\tc�é"


def test_a_tally_keeps_the_reasons_apart_and_no_more_ids_than_it_needs() -> None:
    tally = Tally(dry_run=False)
    for number in range(IDS_KEPT + 50):
        tally.add(Fate(str(number), "refused", why="late"))
    tally.add(Fate("x", "refused", why="odd"))
    tally.add(Fate("y", "replayed", "requests"))
    told = tally.as_json()
    assert [(each["why"], each["count"]) for each in told["refused"]] == [
        ("late", IDS_KEPT + 50),
        ("odd", 1),
    ]
    assert len(told["refused"][0]["ids"]) == IDS_KEPT
    assert (told["replayed"], told["queues"]) == (1, {"requests": 1})


def test_an_exported_letter_is_one_line_from_which_the_letter_can_be_read() -> None:
    letter = dead_letter(request=Request.of("one\ntwo\u2028three\x85four").encode())
    written = line(read_entry("a", NOW, letter.model_dump_json().encode()))
    assert len(written.decode().splitlines()) == 1
    assert DeadLetter.model_validate_json(written) == letter


def test_an_unreadable_letter_is_exported_as_it_is() -> None:
    written = json.loads(line(read_entry("a", NOW, b"\xff{")))
    assert written["id"] == "a"
    assert written["unreadable"] == "\N{REPLACEMENT CHARACTER}{"


def test_a_new_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    with new_file(path) as file:
        file.write(b"whole\n")
        assert not path.exists()
    assert path.read_bytes() == b"whole\n"
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "dead.jsonl") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "dead.jsonl"
    with pytest.raises(UsageError, match="exists already"), new_file(path) as file:
        file.write(b"mine")
        path.write_bytes(b"another's")  # as if it came between
    with pytest.raises(UsageError, match="exists already"), new_file(path):
        raise AssertionError("it must not be opened")
    assert path.read_bytes() == b"another's"
    assert list(tmp_path.iterdir()) == [path]
