"""What a fake provider does with a call: replies, and gates that hold them."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from modelyard.messages import ToolCall, Usage


class Gate:
    """Holds the calls whose `Reply` has it until `open` is called, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_open = False
        self._waiting: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}

    def open(self) -> None:
        """Let all calls pass, those that come later too."""
        with self._lock:
            self._is_open = True
            for event, loop in self._waiting.items():
                loop.call_soon_threadsafe(event.set)

    async def passed(self) -> None:
        """Return once the gate is open."""
        event = asyncio.Event()
        with self._lock:
            if self._is_open:
                return
            self._waiting[event] = asyncio.get_running_loop()
        try:
            await event.wait()
        finally:
            with self._lock:
                del self._waiting[event]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the fake does with one call, in this order.

    Waits for `gate`, then for `delay_s` seconds, then: hangs until the caller gives up (`hang`);
    closes the connection without a byte (`close="before"`); or answers with `status`, `headers`
    and a body, of which it sends half before it closes the connection (`close="half"`).

    The body is `body` if given; for a `status` from 300 on an error with `code` and `message`;
    otherwise a completion with `text` (None: a fixed function of model and question), `refusal`,
    `tool_calls`, `finish_reason` (None: `tool_calls` if there are some, or `stop`), `usage` (None:
    counted, a token per four characters) and `model`, which is what ran (None: what was asked for).
    A caller who asks for a stream gets the completion in pieces; `rest_gate` holds all but the
    first of them.
    """

    text: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    body: bytes | None = None
    close: Literal["before", "half"] | None = None
    hang: bool = False
    gate: Gate | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    code: str | None = None
    message: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    model: str | None = None
    rest_gate: Gate | None = None

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Self:
        """Return the reply that plain JSON describes (`body` as text, no gates).

        Raises `TypeError` for an unknown field.
        """
        fields = dict(data)
        if isinstance(fields.get("body"), str):
            fields["body"] = fields["body"].encode()
        if fields.get("usage") is not None:
            fields["usage"] = Usage.decode(fields["usage"])
        fields["tool_calls"] = tuple(map(ToolCall.decode, fields.get("tool_calls", ())))
        return cls(**fields)


Cue = Reply | Callable[[Mapping[str, Any]], Reply]
"""A reply, or a function from the body of the call to a reply (it runs in the fake's thread)."""
