"""What is read from a body of server-sent events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.events import Event, is_event_stream, read_events

LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
EVENT = st.builds(
    Event,
    LINE.filter(bool),
    st.lists(LINE, min_size=1, max_size=3).map("\n".join),
)


def write(events: list[Event], ends: list[str], remark: str) -> bytes:
    """Write events with these line ends, in turn, and remarks in between."""
    lines: list[str] = []
    for event in events:
        lines += [f": {remark}", "id: 7", "retry", f"event: {event.name}"]
        lines += [f"data: {line}" for line in event.data.split("\n")] + [""]
    return "".join(line + ends[number % len(ends)] for number, line in enumerate(lines)).encode()


class TestEvents:
    @pytest.mark.parametrize(
        ("body", "events"),
        [
            (b"", []),
            (b"data: a\n\n", [Event("message", "a")]),
            (b"data:a\r\rdata:  b\r\r", [Event("message", "a"), Event("message", " b")]),
            (b"data: a\r\ndata\r\ndata: b\r\n\r\n", [Event("message", "a\n\nb")]),
            (b"event: ping\ndata: {}\n\ndata: x\n\n", [Event("ping", "{}"), Event("message", "x")]),
            (b"event: ping\n\ndata: x\n\n", [Event("message", "x")]),
            (b"data: \n\n", [Event("message", "")]),
            (b": waiting\n\n:\n\ndata: x\n\n", [Event("message", "x")]),
            (b"dat: x\nDATA: x\nid: 1\nretry: 2\n\n", []),
            (b"\xef\xbb\xbfdata: x\n\n", [Event("message", "x")]),
            (b"data: \xff\n\n", [Event("message", "\N{REPLACEMENT CHARACTER}")]),
            ("data: a\u2028b\x0bc\x85d\n\n".encode(), [Event("message", "a\u2028b\x0bc\x85d")]),
            (b"data: a\n\ndata: half", [Event("message", "a")]),
            (b"data: a\n\ndata: no blank line\n", [Event("message", "a")]),
            (b"data: a: b\n\n", [Event("message", "a: b")]),
        ],
    )
    def test_the_rules_of_the_standard(self, body: bytes, events: list[Event]) -> None:
        assert read_events(body) == events

    @given(
        st.lists(EVENT, max_size=4),
        st.lists(st.sampled_from(["\n", "\r", "\r\n"]), min_size=1, max_size=3),
        LINE,
    )
    def test_line_ends_and_remarks_do_not_change_what_is_read(
        self, events: list[Event], ends: list[str], remark: str
    ) -> None:
        # CR before LF is one line end, so a mixture may lose the blank line that it should write.
        if "\r" in ends and "\n" in ends:
            ends = [end for end in ends if end != "\n"]
        assert read_events(write(events, ends, remark)) == events

    @given(st.lists(EVENT, min_size=1, max_size=4), st.data())
    def test_what_was_cut_off_is_missing_and_nothing_else_changes(
        self, events: list[Event], data: st.DataObject
    ) -> None:
        body = write(events, ["\n"], "")
        cut = data.draw(st.integers(0, len(body) - 1))
        read = read_events(body[:cut])
        assert read == events[: len(read)]
        assert len(read) < len(events)

    @given(st.binary())
    def test_any_bytes_can_be_read(self, body: bytes) -> None:
        assert all("\r" not in event.data for event in read_events(body))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("text/event-stream", True),
        ("Text/Event-Stream; charset=utf-8", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_the_content_type_tells_a_stream(kind: str, expected: bool) -> None:
    assert is_event_stream({"content-type": kind}) is expected
