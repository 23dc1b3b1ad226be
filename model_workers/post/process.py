"""Doing the steps of a plan's `after` to one text, in order. Functions run here and now: call it in
a thread.
"""

import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model_workers.post.redact import redact
from model_workers.post.repair import Unrepairable, repaired
from model_workers.post.strip import strip, strip_reasoning
from modelyard.after import After, AsJson
from modelyard.catalog import Catalog
from modelyard.entry_point import EntryPointError, load_function
from modelyard.errors import ModelyardError


class Unfit(ValueError):
    """The text is not the JSON that is wanted. The message says why, and not what it says."""


@dataclass(frozen=True, slots=True)
class Processed:
    """What a text became. `by` are the steps that changed it, in order, each once."""

    text: str
    by: tuple[str, ...] = ()


def process(steps: Sequence[After], text: str) -> Processed:
    """Return what the steps make of a text.

    Raises `Unfit`, and `ModelyardError` that names the function that failed.
    """
    by: list[str] = []
    for step in steps:
        made = do(step, text)
        if made != text:
            by.append(step.name)
        text = made
    return Processed(text, tuple(dict.fromkeys(by)))


def do(step: After, text: str) -> str:
    """Return what one step makes of a text. Raises as `process` does."""
    if step.strip is not None:
        return strip(text, step.strip)
    if step.json_ is not None:
        return as_json(step.json_, text)
    if step.redact is not None:
        return redact(text, step.redact)
    if step.function is not None:
        return call(step.function, text)
    return text.strip() if step.trim else strip_reasoning(text)


def as_json(wanted: AsJson, text: str) -> str:
    """Return the text as JSON that fits the schema. Raises `Unfit`."""
    try:
        made = repaired(text)
    except Unrepairable as error:
        raise Unfit(f"json: {error}") from None
    if wanted.schema_ is not None:
        # jsonschema takes a while to import, and only those with a schema need it.
        from modelyard.json_schema import why_not  # noqa: PLC0415

        why = why_not(wanted.schema_, json.loads(made))
        if why:
            raise Unfit(f"json: {why}")
    return made


def redacted(steps: Sequence[After], text: str) -> str:
    """Return the text with nothing done to it but what hides."""
    for step in steps:
        if step.redact is not None:
            text = redact(text, step.redact)
    return text


def call(function: str, text: str) -> str:
    """Return what a Python function makes of the text.

    Raises `ModelyardError` that says which function failed, without the text.
    """
    act = load(function)
    try:
        made = act(text)
    except (Exception, SystemExit) as error:  # sys.exit() would end the thread without a word
        raise ModelyardError(
            f"after.function {function!r} failed: {type(error).__name__}"
        ) from error
    if not isinstance(made, str):
        kind = type(made).__name__
        raise ModelyardError(f"after.function {function!r} returned no text but a {kind}")
    try:
        made.encode()
    except UnicodeEncodeError:
        raise ModelyardError(f"after.function {function!r} returned no valid Unicode") from None
    return made


def load(function: str) -> Callable[[str], str]:
    """Return the function that `module:name` names. Raises `ModelyardError` if there is none."""
    try:
        found = load_function(function)
    except EntryPointError as error:
        raise ModelyardError(f"after.function {function!r} {error}") from error
    if inspect.iscoroutinefunction(found):
        raise ModelyardError(f"after.function {function!r} is async: it must be a plain function")
    return found


def problems(catalog: Catalog) -> Iterable[str]:
    """Yield what is wrong with each function that the catalog's routes name, to tell at a start."""
    steps = [
        step
        for route in catalog.routes.values()
        for after in (route.after, *(target.after or () for target in route.targets))
        for step in after
    ]
    for function in sorted({step.function for step in steps if step.function is not None}):
        try:
            load(function)
        except ModelyardError as error:
            yield str(error)
