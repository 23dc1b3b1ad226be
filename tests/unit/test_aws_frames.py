"""Frames of AWS's event streams: what is whole is read, what is not is never taken for it."""

from typing import Any
from zlib import crc32

import pytest
from fakes.bedrock_stream import event, frame
from hypothesis import given
from hypothesis import strategies as st

from model_workers.providers.aws_frames import (
    MAX_HEADERS_BYTES,
    MAX_PAYLOAD_BYTES,
    BadFrame,
    is_frame_stream,
    read_frames,
)

_headers = st.dictionaries(st.text("abc:-é", min_size=1, max_size=9), st.text(max_size=20))
_frames = st.lists(st.tuples(_headers, st.binary(max_size=40)), max_size=4)


def ascii_only(headers: dict[str, str]) -> bool:
    return all(text.isascii() for pair in headers.items() for text in pair)


class TestWholeFrames:
    def test_of_awss_own_examples(self) -> None:
        """https://github.com/awslabs/aws-c-event-stream: its smallest frames, byte by byte."""
        empty = bytes.fromhex("000000100000000005c248eb7d98c8ff")
        payload = bytes.fromhex("0000001d00000000fd528c5a") + b"{'foo':'bar'}"
        found = list(read_frames(empty + payload + bytes.fromhex("c3653936")))
        assert [(each.headers, each.payload) for each in found] == [
            ({}, b""),
            ({}, b"{'foo':'bar'}"),
        ]

    @given(_frames)
    def test_come_out_as_they_went_in(self, told: list[tuple[dict[str, str], bytes]]) -> None:
        told = [pair for pair in told if ascii_only(pair[0])]
        body = b"".join(frame(*pair) for pair in told)
        assert [(each.headers, each.payload) for each in read_frames(body)] == told

    def test_are_read_as_botocore_reads_them(self) -> None:
        eventstream = pytest.importorskip("botocore.eventstream")
        body = event("messageStart", {"role": "assistant"}) + event("metadata", {"usage": {}})
        buffer = eventstream.EventStreamBuffer()
        buffer.add_data(body)
        theirs: list[Any] = [(each.headers, each.payload) for each in buffer]
        assert [(each.headers, each.payload) for each in read_frames(body)] == theirs

    def test_headers_of_other_types_are_passed_over(self) -> None:
        values = {
            0: b"",
            1: b"",
            2: b"1",
            3: b"22",
            4: b"4444",
            5: b"8" * 8,
            6: b"\x00\x03abc",
            8: b"8" * 8,
            9: b"6" * 16,
        }
        raw = b"".join(b"\x01n" + bytes([kind]) + value for kind, value in values.items())
        raw += b"\x01t\x07\x00\x02ok"
        assert [each.headers for each in read_frames(raw_frame(raw))] == [{"t": "ok"}]


def raw_frame(headers: bytes) -> bytes:
    """A frame with these bytes for headers."""
    prelude = (len(headers) + 16).to_bytes(4, "big") + len(headers).to_bytes(4, "big")
    begin = prelude + crc32(prelude).to_bytes(4, "big") + headers
    return begin + crc32(begin).to_bytes(4, "big")


def claiming(total: int, headers: int) -> bytes:
    """A prelude that says so, with the right checksum."""
    prelude = total.to_bytes(4, "big") + headers.to_bytes(4, "big")
    return prelude + crc32(prelude).to_bytes(4, "big")


BODY = event("contentBlockDelta", {"delta": {"text": "Salve"}})


class TestBrokenFrames:
    @given(st.integers(1, len(BODY) - 1))
    def test_half_of_one_is_none(self, cut: int) -> None:
        with pytest.raises(BadFrame, match="half an answer"):
            list(read_frames(BODY[:cut]))

    @given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
    def test_a_byte_that_was_changed_does_not_pass(self, at: int, by: int) -> None:
        changed = BODY[:at] + bytes([BODY[at] ^ by]) + BODY[at + 1 :]
        with pytest.raises(BadFrame) as caught:
            list(read_frames(changed))
        assert not caught.value.is_too_large

    def test_those_before_it_are_read(self) -> None:
        frames = read_frames(BODY + BODY[:-1] + b"?")
        assert next(frames).payload
        with pytest.raises(BadFrame, match="does not match its checksum"):
            next(frames)

    @pytest.mark.parametrize(
        ("total", "headers"),
        [
            (2**32 - 1, 0),
            (MAX_PAYLOAD_BYTES + 17, 0),
            (MAX_HEADERS_BYTES + 17, MAX_HEADERS_BYTES + 1),
        ],
    )
    def test_one_that_is_too_large_is_known_by_its_first_bytes(
        self, total: int, headers: int
    ) -> None:
        with pytest.raises(BadFrame, match="too large") as caught:
            list(read_frames(claiming(total, headers)))
        assert caught.value.is_too_large

    @pytest.mark.parametrize(("total", "headers"), [(0, 0), (15, 0), (20, 5)])
    def test_lengths_have_to_add_up(self, total: int, headers: int) -> None:
        with pytest.raises(BadFrame, match="can't have"):
            list(read_frames(claiming(total, headers)))

    @pytest.mark.parametrize(
        "headers", [b"\x05ab", b"\x01n", b"\x01n\x07\x00", b"\x01n\x07\x00\x09ab", b"\x01n\x2a"]
    )
    def test_headers_have_to_end_where_they_should(self, headers: bytes) -> None:
        with pytest.raises(BadFrame, match="header"):
            list(read_frames(raw_frame(headers)))


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        ("application/vnd.amazon.eventstream", True),
        ("Application/Vnd.Amazon.EventStream; v=1", True),
        ("application/json", False),
        ("text/event-stream", False),
    ],
)
def test_a_stream_is_known_by_its_type(kind: str, is_one: bool) -> None:
    assert is_frame_stream({"content-type": kind}) is is_one
    assert not is_frame_stream({})
