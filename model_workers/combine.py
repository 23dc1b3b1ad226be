"""How the answers of an ensemble become one, where no judge is asked."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model_workers.gist import gist
from modelyard.catalog import Catalog
from modelyard.entry_point import EntryPointError, load_function
from modelyard.errors import ModelyardError
from modelyard.messages import Draft
from modelyard.plan import Combine

Function = Callable[[Sequence[Draft]], str]


@dataclass(frozen=True, slots=True)
class Combined:
    """What the answers became. `model` is that of the answer that was taken, or all with a +."""

    text: str
    model: str
    provider_model: str
    finish_reason: str

    @classmethod
    def of(cls, draft: Draft) -> "Combined":
        """Return one of the answers as it is."""
        return cls(draft.text, draft.model, draft.provider_model, draft.finish_reason)


def combine(plan_combine: Combine, drafts: Sequence[Draft]) -> Combined:
    """Return one answer made of several; `drafts` are in the plan's order.

    For `best` a judge is asked first (`judge.picking_request`), and `Combined.of` is what it
    picked; what it does not decide is voted on here. A function of `entry_point` runs here and now:
    call this in a thread. Raises `ValueError` without drafts, and `ModelyardError` that names the
    function if that fails.
    """
    if not drafts:
        raise ValueError("there is no answer to combine")
    match plan_combine.how:
        case "vote" | "best":
            return Combined.of(vote(drafts))
        case "concatenate":
            return concatenate(drafts)
        case "entry_point":
            assert plan_combine.function is not None
            return call(plan_combine.function, drafts)


def vote(drafts: Sequence[Draft]) -> Draft:
    """Return the first of the answers that say what most say; a tie goes to the earliest.

    An answer without text has no vote while another has some. Raises `ValueError` without drafts.
    """
    gists = [gist(draft.text) for draft in drafts]
    votes = Counter(each for each in gists if each != ())
    most = max(votes.values(), default=0)
    for draft, each in zip(drafts, gists, strict=True):
        if votes[each] == most:
            return draft
    raise ValueError("there is no answer to vote on")


def concatenate(drafts: Sequence[Draft]) -> Combined:
    """Return all answers, each under its model's name."""
    return joined(
        "\n\n".join(f"## {draft.model}\n\n{draft.text.strip()}" for draft in drafts), drafts
    )


def call(function: str, drafts: Sequence[Draft]) -> Combined:
    """Return what a Python function makes of the answers.

    Raises `ModelyardError` that says which function failed, without what the models said.
    """
    act = load(function)
    try:
        text = act(tuple(drafts))
    except (Exception, SystemExit) as error:  # sys.exit() would end the loop of all calls
        raise ModelyardError(
            f"combine.function {function!r} failed: {type(error).__name__}"
        ) from error
    if not isinstance(text, str):
        raise ModelyardError(f"combine.function {function!r} returned no text but {kind(text)}")
    return joined(text, drafts, provider_model=function)


def joined(text: str, drafts: Sequence[Draft], provider_model: str = "") -> Combined:
    """Return an answer that all of these are part of."""
    unfinished = [draft.finish_reason for draft in drafts if draft.finish_reason != "stop"]
    return Combined(
        text,
        "+".join(draft.model for draft in drafts),
        provider_model or "+".join(draft.provider_model or draft.model for draft in drafts),
        unfinished[0] if unfinished else "stop",
    )


def load(function: str) -> Function:
    """Return the function that `module:name` names. Raises `ModelyardError` if there is none."""
    try:
        found = load_function(function)
    except EntryPointError as error:
        raise ModelyardError(f"combine.function {function!r} {error}") from error
    if inspect.iscoroutinefunction(found):
        raise ModelyardError(f"combine.function {function!r} is async: it must be a plain function")
    return found


def problems(catalog: Catalog) -> Iterable[str]:
    """Yield what is wrong with each function that the catalog's routes name, to tell at a start."""
    functions = {
        target.combine.function
        for route in catalog.routes.values()
        for target in route.targets
        if target.combine is not None and target.combine.function is not None
    }
    for function in sorted(functions):
        try:
            load(function)
        except ModelyardError as error:
            yield str(error)


def kind(value: object) -> str:
    """Return what a value is, for people."""
    return f"a {type(value).__name__}"
