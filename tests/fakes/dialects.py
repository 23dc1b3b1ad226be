"""A dialect as tests speak it: what it sends has to please its fake, what it reads is whole."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from model_workers.providers.base import Completion, Failure, Unsupported
from model_workers.providers.over_http import Dialect
from modelyard.messages import Request

NOW = 1_800_000_000.0


def asked(*messages: dict[str, Any], **params: Any) -> Request:
    """A request of these messages, or a short one."""
    told = list(messages) or [{"role": "user", "content": "Salve"}]
    return Request.model_validate({"messages": told, "params": params})


class Speaker:
    """`problem` says what the provider has against the body of a call, or None."""

    def __init__(self, dialect: Dialect, problem: Callable[[Any], str | None]) -> None:
        self._dialect = dialect
        self._problem = problem

    def sent(self, *messages: dict[str, Any], **params: Any) -> dict[str, Any]:
        """What goes over the wire; the fake has to have nothing against it."""
        body: dict[str, Any] = json.loads(self._dialect.encode(asked(*messages, **params)))
        assert self._problem(body) is None
        return body

    def refused(self, *messages: dict[str, Any], **params: Any) -> str:
        """Why nothing goes over the wire."""
        with pytest.raises(Unsupported) as caught:
            self._dialect.encode(asked(*messages, **params))
        return str(caught.value)

    def read(
        self, status: int, body: Any, headers: Mapping[str, str] | None = None
    ) -> Completion | Failure:
        """What a response means; `body` is JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self._dialect.read(status, headers or {}, content, NOW)

    def answered(self, body: Any, headers: Mapping[str, str] | None = None) -> Completion:
        """What a response of status 200 says, which has to be an answer."""
        outcome = self.read(200, body, headers)
        assert isinstance(outcome, Completion)
        return outcome

    def failed(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> Failure:
        """What a response means that has to be a failure."""
        outcome = self.read(status, body, headers)
        assert isinstance(outcome, Failure)
        return outcome
