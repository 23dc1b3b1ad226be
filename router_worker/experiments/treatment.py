"""What experiments about models make of a choice: who is called first, and which arms count."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from modelyard.plan import Arm, Strategy
from modelyard.routes import Experiment
from router_worker.candidates import Choice
from router_worker.experiments.arms import Variants, relevant, without

Weigh = Callable[[tuple[str, ...]], Choice]
"""Chooses among these models as it was chosen among the target's."""
MaySee = Callable[[str], bool]
"""Whether a model can take the request at all, whatever it costs."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice as experiments change it, the arms that it is in, a shadow, and notes on them."""

    choice: Choice
    arms: tuple[Arm, ...] = ()
    shadow: str | None = None
    notes: tuple[str, ...] = ()


def tried(
    choice: Choice, strategy: Strategy, trial: Variants, weigh: Weigh, may_see: MaySee
) -> Tried:
    """Return what is tried with the models that were chosen, in order; there may be none.

    An experiment counts where both of its models can be called, in both of its arms: where limits
    keep `to` from the request, its treatment would be the control by another name.
    """
    trial = relevant(trial, choice.models)
    gone: set[str] = set()
    for name, each in trial.about.items():
        assert each.of is not None
        assert each.to is not None
        if each.kind == "shadow":
            if strategy not in {Strategy.SINGLE, Strategy.CASCADE} or not may_see(each.to):
                gone.add(name)
            continue
        pair = weigh((each.of, each.to))
        # An ensemble that asks both would be one answer short.
        twice = strategy is Strategy.ENSEMBLE and each.to in choice.models
        if twice or each.to not in pair.models:
            gone.add(name)
        if trial.replace.get(each.of) == each.to:
            choice = with_news(choice, pair, each.to)
    trial = without(trial, gone)
    shadow = next((trial.shadow[name] for name in choice.models if name in trial.shadow), None)
    models = treated(choice.models, trial.replace, strategy)
    choice = Choice(models, choice.excluded, choice.estimates)
    arms = tuple(arm for arm in trial.arms if happens(arm, trial.about, models, shadow))
    counted = {arm.experiment for arm in arms}
    notes = tuple(note for name, note in trial.notes.items() if name in counted)
    return Tried(choice, arms, shadow, notes)


def happens(
    arm: Arm, about: Mapping[str, Experiment], models: Sequence[str], shadow: str | None
) -> bool:
    """Return whether what the arm stands for is what will be done."""
    each = about.get(arm.experiment)
    if each is None or arm.arm == "control":
        return True
    return each.to == shadow if each.kind == "shadow" else each.to in models


def with_news(choice: Choice, pair: Choice, to: str) -> Choice:
    """Return the choice with what was found out about `to`, if that is new."""
    known = {each.model for each in choice.excluded} | {each.model for each in choice.estimates}
    if to in known:
        return choice
    return Choice(
        choice.models,
        (*choice.excluded, *(each for each in pair.excluded if each.model == to)),
        (*choice.estimates, *(each for each in pair.estimates if each.model == to)),
    )


def treated(
    models: Sequence[str], replace: Mapping[str, str], strategy: Strategy
) -> tuple[str, ...]:
    """Return the models, in order, with each one's replacement before it, to fail over to it.

    In an ensemble the replacement has the place alone. So it has in a cascade, where nobody is
    asked for less than what was not good enough: where the replacement is a later model of it,
    those between are left out.
    """
    if not replace:
        return tuple(models)
    if strategy in {Strategy.SINGLE, Strategy.HANDOFF}:
        both = [
            each
            for name in models
            for each in ((replace[name],) if name in replace else ()) + (name,)
        ]
        return tuple(dict.fromkeys(both))
    left: list[str] = []
    for name in models:
        new = replace.get(name, name)
        if new not in left:
            left.append(new)
        elif new == name and strategy is Strategy.CASCADE:
            del left[left.index(new) + 1 :]
    return tuple(left)


def tried_in_pieces(choice: Choice, candidates: Sequence[str], trial: Variants) -> Tried:
    """Return what is tried with models that take a request in pieces; a shadow never is.

    `candidates` are the target's, before anything was replaced.
    """
    shadows = {name for name, each in trial.about.items() if each.kind == "shadow"}
    trial = without(relevant(trial, candidates), shadows)
    arms = tuple(arm for arm in trial.arms if happens(arm, trial.about, choice.models, None))
    counted = {arm.experiment for arm in arms}
    return Tried(choice, arms, notes=tuple(trial.notes[name] for name in counted & {*trial.notes}))
