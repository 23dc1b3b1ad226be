"""What an error of an OpenAI-compatible server says, and what it means for the request.

The table of meanings is in `providers.openai`.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.errors import FailureKind

_TOO_LONG_CODES: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"}
)
_TOO_LONG: Final = re.compile(
    r"context[ _](length|window|size)|(prompt|input|request) is too long|input token count"
    r"|reduce the length",
    re.IGNORECASE,
)
_REFUSED_CODES: Final = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "invalid_prompt",
        "data_inspection_failed",
        "ResponsibleAIPolicyViolation",
    }
)
_INVALID_CODES: Final = frozenset({"invalid_type", "missing_required_parameter"})
_UNPAID_CODES: Final = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_balance",
    }
)
_STATUS: Final[Mapping[str, int]] = {
    **dict.fromkeys(_TOO_LONG_CODES | _REFUSED_CODES | _INVALID_CODES, 400),
    **dict.fromkeys(_UNPAID_CODES, 429),
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "requests", "tokens"), 429),
    "invalid_api_key": 401,
    "authentication_error": 401,
    "model_not_found": 404,
    "invalid_request_error": 400,
}
"""The status that an error would have had outside of an answer that had begun already."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What an error response says, whichever server's form it has. `inner` is Azure's own code."""

    message: str
    code: str = ""
    type: str = ""
    inner: str = ""

    @property
    def words(self) -> str:
        """The code, if there is one, and the message."""
        return ": ".join(part for part in (self.code or self.type, self.message) if part)


def load(body: bytes | str) -> Any:
    """Return the JSON value, or None if there is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def read_complaint(body: bytes) -> Complaint:
    """Return what an error body says.

    Knows `{"error": {...}}` (OpenAI), a list around it (Gemini), `{"error": "..."}` (Ollama),
    `{"message": ...}` (vLLM, Mistral) and `{"detail": ...}` (FastAPI); anything else is text.
    """
    return complaint_in(load(body), body.decode("utf-8", "replace"))


def complaint_in(data: Any, text: str = "") -> Complaint:
    """Return what an error's JSON says; `text` is what was sent, if it is none of the forms."""
    if isinstance(data, list) and data:
        data = data[0]
    if isinstance(data, dict) and isinstance(data.get("error"), dict | str):
        data = data["error"]
    if not isinstance(data, dict):
        return Complaint(data if isinstance(data, str) else text)
    said = data.get("message") or data.get("detail") or ""
    inner = data.get("innererror")
    return Complaint(
        said if isinstance(said, str) else json.dumps(said, ensure_ascii=False),
        _string(data.get("code")),
        _string(data.get("type")),
        _string(inner.get("code")) if isinstance(inner, dict) else "",
    )


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def status_within(error: object) -> int:
    """Return the status that an error inside a 200 stands for: what its code says, or 502."""
    said = error if isinstance(error, dict) else {}
    for key in ("code", "type"):
        value = said.get(key)
        if isinstance(value, str):
            value = int(value) if re.fullmatch(r"[45]\d\d", value, re.ASCII) else _STATUS.get(value)
        if isinstance(value, int) and 400 <= value <= 599:
            return value
    return 502


def classify(status: int, complaint: Complaint) -> FailureKind:
    """Return what an error status and its body mean, by the table in `providers.openai`."""
    codes = {complaint.code, complaint.type, complaint.inner}
    kind = FailureKind.PERMANENT
    if status == 429:
        if complaint.message.lower().startswith("request too large"):
            kind = FailureKind.TOO_LONG  # More than a whole minute's limit: never goes through.
        else:
            kind = FailureKind.DENIED if codes & _UNPAID_CODES else FailureKind.LIMITED
    elif status in (408, 409, 425) or status >= 500:
        kind = FailureKind.RETRYABLE
    elif status == 413:
        kind = FailureKind.TOO_LONG
    elif status in (400, 403, 422) and codes & _REFUSED_CODES:
        kind = FailureKind.REFUSED
    elif status in (401, 402, 403, 404):
        kind = FailureKind.DENIED
    elif status in (400, 422):
        if codes & _TOO_LONG_CODES or _TOO_LONG.search(complaint.message):
            kind = FailureKind.TOO_LONG
        elif codes & _INVALID_CODES:
            kind = FailureKind.INVALID
    return kind
