"""The types of a provider's own SDK, as checks that take what they name and nothing else.

The SDKs read what they do not know and pass it on, so that an older one serves a newer API. Here
that would hide each mistake: of each type the pydantic schema is taken, and every object in it is
closed.
"""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

_AS_IT_IS = ("metadata", "default", "serialization")


class Closed:
    """A check of one type, a TypedDict's or a model's: no other keys, and nothing is converted."""

    def __init__(self, kind: Any) -> None:
        adapter: TypeAdapter[Any] = TypeAdapter(kind)
        adapter.rebuild(force=True)  # The SDKs build their schemas at the first use.
        self._validator = SchemaValidator(_closed(adapter.core_schema))

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with a JSON value, or None."""
        try:
            self._validator.validate_python(value, strict=True)
        except ValidationError as error:
            return str(error)
        return None


def _closed(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(map(_closed, schema))
    if not isinstance(schema, dict):
        return schema
    closed = {
        key: value if key in _AS_IT_IS else _closed(value)
        for key, value in schema.items()
        if key != "extras_schema"
    }
    match closed.get("type"):
        case "typed-dict" | "model-fields":
            closed["extra_behavior"] = "forbid"
        case "model":
            more = {"extra_fields_behavior": "forbid", "strict": True}
            closed["config"] = {**closed.get("config", {}), **more}
        case "generator":  # An Iterable, whose items would be looked at by whoever takes them.
            closed["type"] = "list"
    return closed
