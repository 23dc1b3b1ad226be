"""A request in pieces: each fits, nothing is lost, and what is put together fits, too."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelyard.messages import ImagePart, ImageUrl, Message, Request, TextPart, ToolCall
from modelyard.pieces import (
    LEAST_TOKENS,
    SAFETY,
    TooLong,
    around,
    cut_of,
    final_request,
    holds,
    piece_requests,
    planned,
    texts_of,
)
from modelyard.tokens import estimate_tokens

SENTENCE = "The pump was stopped at noon, and the night shift found the valve open. "
REPORT = "\n\n".join(f"Day {day}. " + SENTENCE * 4 for day in range(60))
WINDOW = {"context_tokens": 2_000, "reserve_tokens": 400, "most_answer_tokens": 400}

words = st.sampled_from(["word", "why?", "日本語", "。", "\n", "\n\n", " ", "x" * 90, "🙂", "é"])
texts = st.builds(
    lambda some, times: "".join(some) * times,
    st.lists(words, min_size=10, max_size=30),
    st.integers(40, 400),
)
short = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Draw a request with one long text, in whatever company."""
    text = draw(texts)
    content: str | tuple[TextPart, ...] = text
    if draw(st.booleans()):
        content = (TextPart(type="text", text=draw(short)), TextPart(type="text", text=text))
    messages = [Message(role="user", content=content)]
    if draw(st.booleans()):
        messages.insert(0, Message(role="system", content=draw(short)))
    if draw(st.booleans()):
        messages.append(Message(role="user", content=draw(short)))
    assume(any(each.text.strip() for each in messages))
    return Request(messages=tuple(messages), params=draw(st.sampled_from([{}, {"stop": ["\n"]}])))


def ink(text: str) -> str:
    """All that is not white space."""
    return "".join(text.split())


@given(
    requests(),
    st.integers(500, 8_000),
    st.integers(1, 400),
    st.integers(60, 3_000),
    st.lists(st.text(max_size=50).map(lambda text: text * 400), min_size=1, max_size=5),
)
def test_each_piece_fits_the_window_and_so_does_the_end_whatever_was_answered(
    request: Request, context: int, reserve: int, most: int, answers: list[str]
) -> None:
    try:
        pieces = planned(
            request, context_tokens=context, reserve_tokens=reserve, most_answer_tokens=most
        )
    except TooLong:
        return
    asked = piece_requests(request, pieces)

    assert len(asked) == pieces.count
    for each in asked:
        assert each.params["max_tokens"] == pieces.answer_tokens <= most
        assert estimate_tokens(each.text) <= pieces.asked_tokens
    assert pieces.asked_tokens + pieces.answer_tokens <= SAFETY * context + 1
    assert pieces.answer_tokens >= LEAST_TOKENS
    many = [answers[at % len(answers)] for at in range(pieces.count)]
    final = final_request(request, pieces, many)
    assert estimate_tokens(final.text) <= pieces.final_tokens
    assert pieces.final_tokens + reserve <= SAFETY * context + 1
    assert holds(pieces, context_tokens=context, reserve_tokens=reserve, most_answer_tokens=most)
    assert final.params == request.params


@given(requests())
def test_the_pieces_hold_all_of_the_text_in_order_and_all_else_goes_with_each(
    request: Request,
) -> None:
    try:
        pieces = planned(request, context_tokens=1_500, reserve_tokens=200, most_answer_tokens=200)
    except TooLong:
        return
    cut = cut_of(request)
    asked = piece_requests(request, pieces)
    begins = [f"Part {at} of {len(asked)} of the text:" for at in range(1, len(asked) + 1)]
    seen = ""
    for at, (each, begin) in enumerate(zip(asked, begins, strict=True)):
        (found,) = [
            text
            for message in each.messages
            for _, text in texts_of(message.content)
            if begin in text and f"this is part {at + 1} of" in text
        ]
        inside = found.partition(begin)[2].rpartition("(The text is too long")[0]
        assert ink(found).startswith(ink(cut.head))
        assert ink(inside).endswith(ink(cut.tail))
        seen += ink(inside)[: len(ink(inside)) - len(ink(cut.tail))]
    assert seen == ink(cut.body)
    for number, message in enumerate(request.messages):
        if number != cut.message:
            assert all(message in each.messages for each in asked)
            assert message in final_request(request, pieces, ["a"] * len(asked)).messages
    # Together with what goes with each, the cut text is all of it.
    whole = dict(texts_of(request.messages[cut.message].content))[cut.part]
    assert ink(cut.head) + ink(cut.body) + ink(cut.tail) == ink(whole)


def test_what_is_wanted_of_a_document_goes_along_with_each_piece() -> None:
    request = Request.of(
        f"Which days were dry?\n\n{REPORT}\n\nAnswer with the days alone.",
        params={
            "temperature": 0,
            "max_tokens": 50,
            "response_format": {"type": "json_object"},
            "stop": ["."],
        },
    )
    pieces = planned(request, **WINDOW)
    first, *others = piece_requests(request, pieces)

    assert len(others) + 1 == pieces.count > 2
    for each in (first, *others):
        assert each.text.startswith("Which days were dry?\n\nPart ")
        assert "Answer with the days alone.\n\n(The text is too long" in each.text
        assert each.params == {"temperature": 0, "max_tokens": pieces.answer_tokens}
    assert f"Part 1 of {pieces.count} of the text:\n\nDay 0. The pump" in first.text
    final = final_request(request, pieces, [f"day {at}" for at in range(pieces.count)])
    assert final.params == request.params
    assert final.text.startswith("Which days were dry?\n\n")
    assert f"Part 2 of {pieces.count}:\nday 1\n\n" in final.text
    assert SENTENCE not in final.text


@pytest.mark.parametrize(
    ("text", "head", "tail"),
    [
        ("Do it:\n\nA\n\nB\n\nNow!", "Do it:", "Now!"),
        ("Do it:\nA\nB\nNow!", "Do it:", "Now!"),
        ("Do it:\n\nA", "Do it:", ""),
        (f"{SENTENCE * 40}\n\nA\n\nNow!", "", "Now!"),
        (f"Do it:\n\n{SENTENCE * 40}", "Do it:", ""),
        ("All in one line.", "", ""),
    ],
)
def test_an_instruction_is_a_short_paragraph_at_an_end(text: str, head: str, tail: str) -> None:
    found = around(text)
    assert (found[0], found[2]) == (head, tail)
    assert found[1]


def test_a_document_that_the_question_follows_in_a_message_of_its_own_has_no_instruction() -> None:
    messages = (
        Message(role="user", content=f"A title\n\n{REPORT}"),
        Message(role="user", content="Which days were dry?"),
    )
    cut = cut_of(Request(messages=messages))
    assert (cut.message, cut.head, cut.tail) == (0, "", "")


def test_images_are_in_the_last_question_only() -> None:
    picture = ImagePart(type="image_url", image_url=ImageUrl(url="https://a.example/b.png"))
    request = Request(
        messages=(
            Message(role="user", content=(picture,)),
            Message(role="user", content=(picture, TextPart(type="text", text=REPORT))),
        )
    )
    pieces = planned(request, **WINDOW)
    for each in piece_requests(request, pieces):
        assert [message.images for message in each.messages] == [()]
    final = final_request(request, pieces, ["a"] * pieces.count)
    assert [len(message.images) for message in final.messages] == [1, 1]


def test_a_limit_of_the_answer_keeps_its_newer_name() -> None:
    request = Request.of(REPORT, params={"max_completion_tokens": 30})
    pieces = planned(request, **WINDOW)
    assert piece_requests(request, pieces)[0].params == {
        "max_completion_tokens": pieces.answer_tokens
    }


@pytest.mark.parametrize(
    "request_",
    [
        Request.of(REPORT, params={"tools": [{"type": "function"}]}),
        Request(
            messages=(
                Message(role="user", content=REPORT),
                Message(role="assistant", tool_calls=(ToolCall.of("1", "f", "{}"),)),
                Message(role="tool", tool_call_id="1", content="7"),
            )
        ),
    ],
)
def test_a_request_with_tools_is_not_cut(request_: Request) -> None:
    with pytest.raises(TooLong, match="requests with tools are not cut"):
        planned(request_, **WINDOW)


def test_what_is_too_long_even_so_is_told_with_the_longest_that_is_not() -> None:
    with pytest.raises(TooLong) as told:
        planned(Request.of(REPORT * 10), **WINDOW)
    assert "the answers to 16 are the most that can be put together" in str(told.value)
    most = int(str(told.value).rpartition("about ")[2].replace(",", "").split()[0])
    fits = Request.of((SENTENCE * 10_000)[: 4 * most])
    assert planned(fits, **WINDOW).count in {15, 16}


def test_instructions_that_leave_no_room_are_told() -> None:
    messages = (
        Message(role="system", content=SENTENCE * 100),
        Message(role="user", content=SENTENCE * 110),
    )
    with pytest.raises(TooLong, match="no room for parts of it beside the 1,852"):
        planned(Request(messages=messages), **WINDOW)
    with pytest.raises(TooLong, match="and the 3,000 for the answer"):
        planned(Request.of(REPORT), **{**WINDOW, "reserve_tokens": 3_000})
