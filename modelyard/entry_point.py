"""Functions that the catalog or a setting names: `module:function`, or `module:Class.method`."""

import importlib
from collections.abc import Callable
from typing import Any

from modelyard.errors import ModelyardError


class EntryPointError(ModelyardError):
    """What is named can't be had. The message says why and not who named it: put that before it."""


class NotAFunction(EntryPointError):
    """What is named is there and can't be called. `found` is what it is."""

    def __init__(self, found: object) -> None:
        super().__init__(f"is no function but a {type(found).__name__}")
        self.found = found


def load_function(place: str) -> Callable[..., Any]:
    """Return what `module:function` names, importing the module.

    Raises `EntryPointError`, with whatever the module raised in its message and as its cause.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise EntryPointError("is not written as module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise EntryPointError(f"can't be imported: {type(error).__name__}: {error}") from error
    if not callable(found):
        raise NotAFunction(found)
    function: Callable[..., Any] = found
    return function
