"""JSON schemas of answers: https://json-schema.org, draft 2020-12 where the schema names none.

Nothing is fetched: a `$ref` stays within its schema. Patterns are RE2's, whose time is linear in
what they search: the answer is a model's, and a model says what it is told.
"""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import re2

from modelyard.expression_terms import said


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise `ValueError` with what is wrong and where, if this is no schema that can be used."""
    _validator(json.dumps(schema, sort_keys=True))


def why_not(schema: Mapping[str, Any], value: Any) -> str:
    """Return '' if a JSON value fits, else which rule of the schema it breaks.

    Nothing of the value is in it.
    """
    try:
        broken = next(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value), None)
    except RecursionError:
        return "its JSON or the schema is nested too deep"
    except ArithmeticError:  # `multipleOf` of 1e999, or of an integer of 400 digits
        return "its JSON has a number that is too large"
    if broken is None:
        return ""
    return f"its JSON breaks {'.'.join(map(str, broken.absolute_schema_path))}"


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    """Return the validator of a schema. Raises `ValueError`."""
    # Only who has such schemas needs it, and it takes a tenth of a second.
    from jsonschema import SchemaError, validators  # noqa: PLC0415
    from jsonschema.validators import Draft202012Validator  # noqa: PLC0415
    from referencing import Registry, exceptions  # noqa: PLC0415
    from referencing.jsonschema import DRAFT202012, specification_with  # noqa: PLC0415

    read = json.loads(schema)
    if not isinstance(read.get("$schema", ""), str):
        raise ValueError("$.$schema: is no address")
    kind = validators.validator_for(read, default=Draft202012Validator)
    try:
        kind.check_schema(read)
    except SchemaError as error:
        raise ValueError(f"{'.'.join(map(str, ('$', *error.path)))}: {error.message}") from None
    # Without a registry of its own it would fetch what it does not know.
    nothing: Any = Registry()
    specification: Any = specification_with(read.get("$schema", ""), default=DRAFT202012)
    resolver = nothing.resolver_with_root(specification.create_resource(read))
    for at, reference in _references(read):
        try:
            resolver.lookup(reference)
        except exceptions.Unresolvable:
            raise ValueError(
                f"{at}: {reference!r} is not in this schema, and nothing is fetched"
            ) from None
    for at, pattern in _patterns(read):
        try:
            _compiled(pattern)
        except re2.error as error:
            raise ValueError(f"{at}: RE2 does not know {pattern!r}: {said(error)}") from None
    extend: Any = validators.extend
    linear = extend(kind, {"pattern": _pattern, "patternProperties": _pattern_properties})
    return linear(read, registry=nothing)


def _references(part: Any, at: str = "$") -> Iterator[tuple[str, str]]:
    """Yield where each `$ref` is, and what it refers to."""
    for where, key, value in _keys(part, at):
        if key in {"$ref", "$dynamicRef"} and isinstance(value, str):
            yield where, value


def _patterns(part: Any, at: str = "$") -> Iterator[tuple[str, str]]:
    """Yield where each regular expression is, and what it is."""
    for where, key, value in _keys(part, at):
        if key == "pattern" and isinstance(value, str):
            yield where, value
        elif key == "patternProperties" and isinstance(value, dict):
            yield from ((where, pattern) for pattern in value)


def _keys(part: Any, at: str) -> Iterator[tuple[str, str, Any]]:
    """Yield where it is, its name and its value, for each key at any depth."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield f"{at}.{key}", key, value
            if key not in {"const", "enum", "default", "examples"}:
                yield from _keys(value, f"{at}.{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from _keys(value, f"{at}.{number}")


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _found(pattern: str, text: str) -> bool:
    try:
        return _compiled(pattern).search(text) is not None
    except UnicodeEncodeError:  # half a surrogate pair: no pattern is about that
        return False


def _pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError  # noqa: PLC0415

    if validator.is_type(value, "string") and not _found(pattern, value):
        yield ValidationError("no match")


def _pattern_properties(validator: Any, patterns: Any, value: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(value, "object"):
        return
    for pattern, part in patterns.items():
        for key, each in value.items():
            if _found(pattern, key):
                yield from validator.descend(each, part, path=key, schema_path=pattern)
