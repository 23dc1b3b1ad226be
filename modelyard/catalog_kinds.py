"""Which type belongs where in the catalog, read off its models: for the file, which knows none."""

from collections.abc import Collection
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelyard.catalog import Endpoint


def model_of(kind: object) -> type[BaseModel] | None:
    """Return the pydantic model that belongs there, or None if something else does."""
    kind = bare(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def bare(kind: object) -> object:
    """Return a type without its `| None` and without what `Annotated` adds."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in {Union, UnionType}:
        options = [each for each in get_args(kind) if each is not type(None)]
        return bare(options[0]) if len(options) == 1 else kind
    return kind


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model by the names that they have in the file."""
    return {found.alias or name: found for name, found in model.model_fields.items()}


def known_keys(kind: object) -> Collection[str]:
    """Return the keys that a user may write in a mapping of this type; none: any."""
    model = model_of(kind)
    if model is None:
        return ()
    return fields(model).keys() - ({"disabled", "key_name"} if model is Endpoint else set())


def kind_at(kind: object, key: str | int) -> object:
    """Return the type of what lies under `key` in a value of this type, or None."""
    model = model_of(kind)
    if model is not None:
        found = fields(model).get(str(key))
        return found.annotation if found else None
    kind = bare(kind)
    if kind is Any:
        return Any
    if get_origin(kind) is tuple and isinstance(key, int):
        return get_args(kind)[0]
    if get_origin(kind) is dict and isinstance(key, str):
        return get_args(kind)[1]
    return None
