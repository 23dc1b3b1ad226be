"""JSON beside the shapes of AWS's own model of a service, which botocore carries."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any


def as_python(shape: Any, value: Any) -> Any:
    """Return a JSON value as botocore's callers have it: blobs are bytes."""
    if getattr(shape, "is_document_type", False) or value is None:
        return value
    if shape.type_name == "structure" and isinstance(value, dict):
        members = shape.members
        return {
            key: as_python(members[key], each) if key in members else each
            for key, each in value.items()
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [as_python(shape.member, each) for each in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: as_python(shape.value, each) for key, each in value.items()}
    if shape.type_name == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error:
            return None  # Not what any validator takes.
    return value


def problems(validator: Any, shape: Any, value: Any) -> str:
    """Return what is wrong with a JSON value; "" if nothing is.

    botocore's validator (`botocore.validate.ParamValidator`) knows members, unions and types, and
    leaves the words of an enumeration to the service.
    """
    python = as_python(shape, value)
    report = validator.validate(python, shape).generate_report()
    return "; ".join([*filter(None, [report]), *_unknown_words(shape, python)])


def _unknown_words(shape: Any, value: Any) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):
        return
    inner: list[tuple[Any, Any]] = []
    if shape.type_name == "structure" and isinstance(value, Mapping):
        inner = [(shape.members[key], each) for key, each in value.items() if key in shape.members]
    elif shape.type_name == "list" and isinstance(value, list):
        inner = [(shape.member, each) for each in value]
    elif shape.type_name == "map" and isinstance(value, Mapping):
        inner = [(shape.value, each) for each in value.values()]
    elif shape.type_name == "string" and shape.enum and value not in shape.enum:
        yield f"{value!r} is no {shape.name}"
    for member, each in inner:
        yield from _unknown_words(member, each)
