"""The steps of `after`, one by one and together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_workers.post.process import Unfit, process, redacted
from model_workers.post.redact import luhn
from modelyard.after import After
from modelyard.errors import ModelyardError


def steps(*given: Any) -> tuple[After, ...]:
    return tuple(After.model_validate(each) for each in given)


def done(text: str, *given: Any) -> str:
    return process(steps(*given), text).text


# -- what can be written in a catalog


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ("tidy", "must be one of"),
        ({}, "a step is one of"),
        ({"trim": True, "strip": "x"}, "a step is one of"),
        ({"trim": False}, "a step is one of"),
        ({"strip": "("}, "RE2"),
        ({"strip": ""}, "at least 1"),
        ({"redact": {"patterns": {"staff": "["}}}, "RE2"),
        ({"redact": {"patterns": {"No Kind": "x"}}}, "pattern"),
        ({"redact": {"kinds": ["names"]}}, "email"),
        ({"json": {"schema": {"type": 7}}}, "type"),
        ({"function": "nowhere"}, "module:name"),
    ],
)
def test_a_step_that_can_t_be_done_is_refused(wrong: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        After.model_validate(wrong)


@pytest.mark.parametrize(
    "given",
    [
        "trim",
        "json",
        {"json": {"schema": {"type": "object"}}},
        {"strip": "^Sure"},
        {"redact": {"kinds": ["card"], "patterns": {"staff": "S[0-9]+"}}},
        {"function": "a:b"},
    ],
)
def test_a_step_travels_as_it_was_written(given: Any) -> None:
    step = After.model_validate(given)
    sent = step.encode()
    assert After.decode(sent) == step
    assert "json_" not in sent
    assert "schema_" not in sent.get("json", {})


# -- steps


def test_steps_are_done_in_order_and_those_that_changed_something_are_told() -> None:
    text = "<think>hm, a@b.org?</think>\n Sure! {'to': 'a@b.org',} "
    made = process(steps("strip_reasoning", {"strip": "^Sure! "}, "trim", "json", "redact"), text)
    assert made.text == '{"to": "[email]"}'
    assert made.by == ("strip_reasoning", "strip", "trim", "json", "redact")

    made = process(steps("trim", "strip_reasoning", "json", "redact"), '{"to": "nobody"}')
    assert (made.text, made.by) == ('{"to": "nobody"}', ())


def test_a_pattern_takes_linear_time() -> None:
    assert done("a" * 100_000 + "!", {"strip": "(a+)+$"}).endswith("!")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>one\ntwo</think>\n\nYes.", "Yes."),
        ("<reasoning>one</reasoning>Yes. <Think>two</THINK> No.", "Yes. No."),
        ("<think>it never ends", ""),
        ("  <reasoning>\nit never ends", ""),
        ("begun in the prompt\n</think>\n\nYes.", "Yes."),
        ("Write <think> before you think.", "Write <think> before you think."),
        ("Write </think> at the end.", "Write </think> at the end."),
        ("Yes.", "Yes."),
    ],
)
def test_reasoning_goes(text: str, left: str) -> None:
    assert done(text, "strip_reasoning") == left


def test_json_must_fit_its_schema() -> None:
    schema = {"type": "object", "required": ["total"]}
    assert done("{'total': 1}", {"json": {"schema": schema}}) == '{"total": 1}'
    with pytest.raises(Unfit, match="breaks required") as refused:
        done('{"sum": "secret"}', {"json": {"schema": schema}})
    assert "secret" not in str(refused.value)
    with pytest.raises(Unfit, match="no JSON"):
        done("no", "json")


# -- redacting


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Write to jane.o'neil+x@mail.example.co.uk.", "Write to [email]."),
        ("müller@bücher.example, please", "[email], please"),
        ("a@b or @handle", "a@b or @handle"),
        ("Call +49 30 1234567 now", "Call [phone] now"),
        ("Call +1 (415) 555-0132.", "Call [phone]."),
        ("Call (415) 555-0132 or 415-555-0132", "Call [phone] or [phone]"),
        ("Call 030/12345678 or 0044 20 7946 0958", "Call [phone] or [phone]"),
        ("On 2026-11-23 and 01.12.2026 at 192.168.100.200", None),
        ("1000000 of 12345678 cost $415-555-0132", None),
        ("Order A4155550132 of version 1.2.3", None),
        ("Card 4111 1111 1111 1111, thanks", "Card [card], thanks"),
        ("Card 4111-1111-1111-1111 or 378282246310005", "Card [card] or [card]"),
        ("1234 4111 1111 1111 1111 5", "1234 [card] 5"),
        ("Not one: 4111 1111 1111 1112", None),
        ("0000 0000 0000 0000", None),
    ],
)
def test_what_nobody_should_see_is_named_by_its_kind(text: str, left: str | None) -> None:
    assert done(text, "redact") == (text if left is None else left)


def test_kinds_and_patterns_can_be_chosen() -> None:
    text = "S1234 wrote a@b.org from 4111111111111111"
    chosen = {"redact": {"kinds": ["email"], "patterns": {"staff": r"\bS[0-9]{4}\b"}}}
    assert done(text, chosen) == "[staff] wrote [email] from 4111111111111111"
    assert done("abc", {"redact": {"patterns": {"nothing": "x*"}}}) == "abc"


@given(st.text(alphabet="0123456789", min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_every_card_number_is_found_however_it_is_grouped(digits: str, gap: str) -> None:
    number = next(f"{digits}{last}" for last in range(10) if luhn(f"{digits}{last}") or last == 9)
    if not luhn(number):
        return  # all zeros
    grouped = gap.join(number[at : at + 4] for at in range(0, len(number), 4))
    assert done(f"<{grouped}>", {"redact": {"kinds": ["card"]}}) == "<[card]>"


def test_the_texts_beside_an_answer_are_redacted_and_no_more() -> None:
    every = steps("trim", "redact", {"function": f"{__name__}:fails"}, "json")
    assert redacted(every, " a@b.org ") == " [email] "


# -- functions


def shout(text: str) -> str:
    return text.upper()


def fails(text: str) -> str:
    raise LookupError(text)


def leaves(text: str) -> str:
    raise SystemExit(text)


def counts(text: str) -> Any:
    return len(text)


def breaks(text: str) -> str:
    return "\ud800"


async def waits(text: str) -> str:
    return text


def test_a_function_makes_the_text() -> None:
    made = process(steps({"function": f"{__name__}:shout"}), "hello")
    assert (made.text, made.by) == ("HELLO", ("function",))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fails", "failed: LookupError"),
        ("leaves", "failed: SystemExit"),
        ("counts", "returned no text but a int"),
        ("breaks", "no valid Unicode"),
        ("waits", "is async"),
        ("missing", "can't be imported"),
    ],
)
def test_a_function_that_fails_is_named_without_the_text(name: str, why: str) -> None:
    with pytest.raises(ModelyardError, match=why) as failed:
        done("private", {"function": f"{__name__}:{name}"})
    assert f"{__name__}:{name}" in str(failed.value)
    assert "private" not in str(failed.value)
