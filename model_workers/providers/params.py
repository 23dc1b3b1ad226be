"""The parameters of a request, one by one, for providers that have other ones than OpenAI.

A dialect takes what it can say to its provider. What is left at the end is refused by name: a
parameter that is quietly left out would change the answer, and nobody would know why.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from model_workers.providers.base import Unsupported
from model_workers.providers.openai import OURS

_NEUTRAL: Final[Mapping[str, Any]] = {
    "n": 1,
    "logprobs": False,
    "top_logprobs": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "store": False,
    "modalities": ["text"],
}
"""Values that ask for nothing: these may be left out."""

_ADVICE: Final[Mapping[str, str]] = {
    "n": "submit the request several times",
    "seed": "leave it out; its answers can't be made to repeat",
    "functions": "use tools",
    "function_call": "use tool_choice",
    "audio": "ask for text",
    "modalities": "ask for text",
    "store": "leave it out; nothing is stored there",
}

EFFORTS: Final = frozenset({"low", "medium", "high", "xhigh", "max"})
"""What Anthropic and Bedrock know of `reasoning_effort`."""

write_json: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode


class Params:
    """What a request asks for and was not taken yet. None is as if it were not there.

    All methods raise `Unsupported` for a value that `provider` can't be told.
    """

    def __init__(self, provider: str, given: Mapping[str, Any]) -> None:
        self.provider = provider
        self._left = {
            name: value
            for name, value in given.items()
            if value is not None and name not in OURS and not _is_neutral(name, value)
        }

    def __contains__(self, name: str) -> bool:
        """Whether it was given, and not taken yet."""
        return name in self._left

    def take(self, name: str) -> Any:
        """Return what was given, whatever it is, or None."""
        return self._left.pop(name, None)

    def number(self, name: str, low: float, high: float) -> float | None:
        """Return a number from `low` to `high`."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "it has to be a number")
        if not low <= value <= high:
            raise self.wrong(
                name, f"{self.provider}'s range is {low:g} to {high:g}, and it is {value:g}"
            )
        return value

    def output_limit(self) -> int | None:
        """Return `max_completion_tokens`, or `max_tokens`, its older name."""
        given = {name: self.take(name) for name in ("max_completion_tokens", "max_tokens")}
        for name, value in given.items():
            if value is not None and (type(value) is not int or value < 1):
                raise self.wrong(name, "it has to be a whole number from 1 on")
        new: int | None = given["max_completion_tokens"]
        old: int | None = given["max_tokens"]
        if new is not None and old is not None and new != old:
            raise self.wrong("max_tokens", "max_completion_tokens says otherwise: give one of them")
        return new if new is not None else old

    def text(self, name: str) -> str | None:
        """Return a string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "it has to be text")
        return value

    def flag(self, name: str) -> bool | None:
        """Return true or false."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "it has to be true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        """Return an object."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(name, "it has to be an object")
        return value

    def array(self, name: str) -> list[Any]:
        """Return an array, empty if none was given."""
        value = self.take(name)
        if value is not None and not isinstance(value, list | tuple):
            raise self.wrong(name, "it has to be an array")
        return list(value or ())

    def stop(self) -> list[str]:
        """Return the stop sequences, whether one was given or a list."""
        value = self.take("stop")
        words = [value] if isinstance(value, str) else value or []
        if not isinstance(words, list | tuple) or not all(isinstance(each, str) for each in words):
            raise self.wrong("stop", "it has to be text, or an array of texts")
        if not all(each.strip() for each in words):
            raise self.wrong("stop", f"{self.provider} takes no stop sequence of blanks only")
        return list(words)

    def strings(self, name: str) -> dict[str, str]:
        """Return an object of strings, empty if none was given."""
        value = self.mapping(name) or {}
        if not all(isinstance(each, str) for each in value.values()):
            raise self.wrong(name, "its values have to be texts")
        return value

    def schema(self) -> dict[str, Any] | None:
        """Return what `response_format` of type `json_schema` has under that name.

        Its `schema` is an object for sure. None if any text will do.
        """
        asked = self.mapping("response_format")
        kind = asked.get("type") if asked else "text"
        if asked is None or kind == "text":
            return None
        if kind == "json_object":
            raise self.wrong(
                "response_format",
                f"{self.provider} has no json_object: give a json_schema, or ask for JSON in the "
                "prompt",
            )
        inner = asked.get("json_schema")
        if kind != "json_schema" or not isinstance(inner, dict):
            raise self.wrong("response_format", "it has to be text or a json_schema")
        if not isinstance(inner.get("schema"), dict):
            raise self.wrong("response_format", "its json_schema has no schema")
        for name in ("name", "description"):
            if not isinstance(inner.get(name), str | None):
                raise self.wrong("response_format", f"the {name} of its schema has to be text")
        return inner

    def native(self, *names: str) -> dict[str, Any]:
        """Return those of the provider's own parameters that were given, as they are."""
        return {name: self.take(name) for name in names if name in self._left}

    def wrong(self, name: str, why: str) -> Unsupported:
        """Return the error for a value of `name` that can't be passed on."""
        return Unsupported(f"{self.provider} can't take this {name}: {why}")

    def end(self, advice: Mapping[str, str]) -> None:
        """Refuse what is left; `advice` says by name what to do about it."""
        for name in sorted(self._left):
            what = advice.get(name) or _ADVICE.get(name)
            what = what or "leave it out, or send the request to models that have it"
            raise Unsupported(f"{self.provider} has no parameter {name!r}: {what}")


def put(params: Params, body: dict[str, Any], path: tuple[str, ...], value: Any, by: str) -> None:
    """Write `value` into `body` at `path`, for the parameter `by`. None is not written.

    Raises `Unsupported` if the provider's own parameters say something there already.
    """
    if value is None:
        return
    for key in path[:-1]:
        inner = body.get(key, {})
        if not isinstance(inner, dict):
            raise params.wrong(key, "it has to be an object")
        body[key] = inner = dict(inner)  # What is in there is the request's.
        body = inner
    if path[-1] in body:
        raise params.wrong(by, f"{'.'.join(path)} says it, too: give one of them")
    body[path[-1]] = value


def _is_neutral(name: str, value: Any) -> bool:
    if name not in _NEUTRAL:
        return False
    neutral = _NEUTRAL[name]
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)
