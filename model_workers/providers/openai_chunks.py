"""A streamed chat completion, put together to the one that would have come in a piece.

Format: https://platform.openai.com/docs/api-reference/chat-streaming
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from model_workers.providers.base import Failure
from model_workers.providers.complaint import classify, complaint_in, load, status_within
from model_workers.providers.events import Event, read_events
from model_workers.providers.vendor_fields import OF_CALL, OF_MESSAGE, add_piece
from modelyard.errors import FailureKind


def join_chunks(body: bytes, status: int) -> dict[str, Any] | Failure:
    """Return the completion whose pieces are the events of `body`, in the shape of a whole one.

    A failure is an error that was sent in the middle, what is no chunk, and a stream that ends
    before the answer does.
    """
    whole = _Whole()
    for event in read_events(body):
        if event.data.strip() == "[DONE]":
            break
        data = load(event.data)
        if failure := _error(event, data):
            return failure
        if not isinstance(data, dict):
            problem = f"the answer has an event that is no chunk: {event.data[:80]!r}"
            return Failure(FailureKind.RETRYABLE, problem, status)
        whole.add(data)
    if whole.finish_reason is None:
        problem = "half an answer: the stream ended without a finish_reason"
        return Failure(FailureKind.RETRYABLE, problem, status)
    return whole.encode()


def _error(event: Event, data: Any) -> Failure | None:
    said = data.get("error") if isinstance(data, dict) else None
    if isinstance(data, dict) and not said and data.get("object") == "error":
        said = data  # Older servers of vLLM.
    if event.name == "error" and not said:
        said = data if data else event.data
    if not said:
        return None
    status = status_within(said)
    complaint = complaint_in(said, event.data)
    words = f"error {status} in the middle of the answer: {complaint.words}"
    return Failure(classify(status, complaint), words, status)


@dataclass(slots=True)
class _Call:
    """A tool call that is still being written."""

    id: object = None
    type: object = None
    name: object = None
    arguments: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


class _Whole:
    """What came until now of the first choice."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._model = ""
        self._usage: object = None
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._logs: list[Any] = []
        self._calls: list[_Call] = []
        self._at: dict[object, _Call] = {}
        self._function: object = None
        self._more: dict[str, Any] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        model, choices = chunk.get("model"), chunk.get("choices")
        # Azure begins with a chunk about the prompt, which has neither a model nor choices.
        if not self._model and isinstance(model, str):
            self._model = model
        if chunk.get("usage") is not None:
            self._usage = chunk["usage"]
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):
                self._add_choice(choice)

    def _add_choice(self, choice: Mapping[str, Any]) -> None:
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self.finish_reason = reason
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict) and isinstance(logs := logprobs.get("content"), list):
            self._logs += logs
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return
        for key, pieces in (("content", self._text), ("refusal", self._refusal)):
            if isinstance(piece := delta.get(key), str):
                pieces.append(piece)
        add_piece(self._more, delta, OF_MESSAGE)
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            self._add_call(call if isinstance(call, dict) else {})
        self._function = self._function or delta.get("function_call")

    def _add_call(self, delta: Mapping[str, Any]) -> None:
        index, id = delta.get("index"), delta.get("id")
        place = index if isinstance(index, int) else None
        call = self._at.get(place)
        # Some servers number all calls 0, or none: there, another id is another call.
        if call is None or (id and call.id and id != call.id):
            call = _Call()
            self._calls.append(call)
            self._at[place] = call
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        call.id = call.id or id
        call.type = call.type or delta.get("type")
        call.name = call.name or function.get("name")
        add_piece(call.more, delta, OF_CALL)
        if isinstance(piece := function.get("arguments"), str):
            call.arguments.append(piece)
        elif isinstance(piece, dict):
            call.arguments.append(json.dumps(piece, ensure_ascii=False))

    def encode(self) -> dict[str, Any]:
        message: dict[str, Any] = {
            **self._more,
            "content": "".join(self._text) if self._text else None,
            "refusal": "".join(self._refusal),
            "function_call": self._function,
            "tool_calls": [
                {
                    **call.more,
                    "id": call.id,
                    "type": call.type,
                    "function": {"name": call.name, "arguments": "".join(call.arguments)},
                }
                for call in self._calls
            ],
        }
        choice = {
            "message": message,
            "finish_reason": self.finish_reason,
            "logprobs": {"content": self._logs},
        }
        return {"model": self._model, "choices": [choice], "usage": self._usage}
