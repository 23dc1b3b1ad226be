"""The frames of an `application/vnd.amazon.eventstream` body, in which Bedrock streams.

    total length (4) | headers length (4) | CRC32 of both (4) | headers | payload | CRC32 (4)

Numbers are big-endian. A header is a name (1 byte of length), the type of its value (1 byte) and
the value; all that Bedrock sends are texts (type 7, 2 bytes of length).

botocore has a parser, and it is not used: botocore is an extra that a call with a Bedrock API key
does without, and its parser hands out what botocore's own model of the service knows.

Format: https://smithy.io/2.0/aws/amazon-eventstream.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"

MAX_HEADERS_BYTES: Final = 128 * 1024
MAX_PAYLOAD_BYTES: Final = 24 * 1024 * 1024
"""What AWS's own clients take at most, in one frame."""

_PRELUDE: Final = 12
_CRC: Final = 4
_TEXT: Final = 7
_WIDTHS: Final[Mapping[int, int]] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of a value, by its type: true, false, four integers, a time, a UUID."""
_MEASURED: Final = frozenset({6, _TEXT})
"""Types whose value has its length before it: bytes and text."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; of its headers those that are text."""

    headers: Mapping[str, str]
    payload: bytes


class BadFrame(ValueError):
    """What follows in the body can't be read. `is_too_large`: it could, and is not."""

    def __init__(self, problem: str, *, is_too_large: bool = False) -> None:
        super().__init__(problem)
        self.is_too_large = is_too_large


def is_frame_stream(headers: Mapping[str, str]) -> bool:
    """Whether a response's content type says that its body is frames."""
    kind = headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == CONTENT_TYPE


def read_frames(body: bytes) -> Iterator[Frame]:
    """Yield the frames of a whole body, in order, each after its checksums.

    Raises `BadFrame` where the first one is that is cut off, broken or too large.
    """
    view, at = memoryview(body), 0
    while at < len(body):
        prelude = view[at : at + _PRELUDE]
        if len(prelude) < _PRELUDE:
            raise BadFrame("half an answer: it ends within a frame")
        total, headers_bytes, checksum = (_number(prelude, place) for place in (0, 4, 8))
        if crc32(prelude[:8]) != checksum:
            raise BadFrame("a frame's lengths do not match their checksum")
        begin = at + _PRELUDE
        end = at + total - _CRC
        payload_bytes = end - begin - headers_bytes
        if payload_bytes < 0:
            raise BadFrame(f"a frame of {total} bytes can't have {headers_bytes} of headers")
        if headers_bytes > MAX_HEADERS_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
            problem = f"answer too large: a frame of {total} bytes"
            raise BadFrame(problem, is_too_large=True)
        if end + _CRC > len(body):
            raise BadFrame("half an answer: it ends within a frame")
        if crc32(view[at:end]) != _number(view, end):
            raise BadFrame("a frame does not match its checksum")
        split = begin + headers_bytes
        yield Frame(_headers(bytes(view[begin:split])), bytes(view[split:end]))
        at = end + _CRC


def _number(view: memoryview, at: int, width: int = 4) -> int:
    return int.from_bytes(view[at : at + width], "big")


def _headers(raw: bytes) -> dict[str, str]:
    """Raises `BadFrame` for headers that do not end where they should."""
    found: dict[str, str] = {}
    at = 0
    while at < len(raw):
        name_end = at + 1 + raw[at]
        kind = raw[name_end] if name_end < len(raw) else -1
        value = name_end + 1
        if kind in _MEASURED:
            width = int.from_bytes(raw[value : value + 2], "big")
            value += 2
        elif kind in _WIDTHS:
            width = _WIDTHS[kind]
        else:
            raise BadFrame(f"a frame has a header of the unknown type {kind}")
        if value + width > len(raw):
            raise BadFrame("a frame's headers are cut off")
        if kind == _TEXT:
            name = raw[at + 1 : name_end].decode("utf-8", "replace")
            found[name] = raw[value : value + width].decode("utf-8", "replace")
        at = value + width
    return found
