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
IsPeople = Callable[[str], bool]
"""Whether a model is people."""
Divide = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Returns which of these models, as those of the target, take the request in pieces, in order."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A choice as experiments change it, the arms that it is in, a shadow, and notes on them."""

    choice: Choice
    arms: tuple[Arm, ...] = ()
    shadow: str | None = None
    notes: tuple[str, ...] = ()


def tried(
    choice: Choice,
    strategy: Strategy,
    trial: Variants,
    weigh: Weigh,
    may_see: MaySee,
    is_people: IsPeople,
) -> Tried:
    """Return what is tried with the models that were chosen, in order; there may be none.

    An experiment counts where both of its models can be called, in both of its arms: where limits
    keep `to` from the request, or `to` is called before `of` anyway, its treatment would be the
    control by another name.
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
        if each.to not in pair.models or not differs(each, choice.models, strategy, is_people):
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


def differs(
    experiment: Experiment, models: Sequence[str], strategy: Strategy, is_people: IsPeople
) -> bool:
    """Return whether a plan of this kind with `to` makes sense, and is another one than without."""
    of, to = experiment.of, experiment.to
    assert of is not None
    assert to is not None
    if strategy is Strategy.ENSEMBLE:
        # One that asks both would be one answer short, and people answer alone.
        return to not in models and not is_people(to)
    if strategy is Strategy.CASCADE:
        return True
    return not comes_first(to, of, models)


def comes_first(one: str, other: str, models: Sequence[str]) -> bool:
    """Return whether one model is among the models, and before another one if that is there."""
    return one in models and (other not in models or models.index(one) < models.index(other))


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


def left_in_pieces(trial: Variants, candidates: tuple[str, ...], divide: Divide) -> Variants:
    """Return what is left of the variants for a request that `candidates` take in pieces.

    The same is asked in both arms: without the experiment `of` takes it, and with it `to`, before
    `of`, where it was not before. A shadow is never asked in pieces.
    """
    trial = relevant(trial, candidates)
    gone: set[str] = set()
    for name, each in trial.about.items():
        assert each.of is not None
        assert each.to is not None
        if each.kind == "shadow":
            gone.add(name)
            continue
        others = {of: to for of, to in trial.replace.items() if of != each.of}
        control = divide(treated(candidates, others, Strategy.SINGLE))
        changed = divide(treated(candidates, {**others, each.of: each.to}, Strategy.SINGLE))
        is_one = each.of in control and not comes_first(each.to, each.of, control)
        if not is_one or not comes_first(each.to, each.of, changed):
            gone.add(name)
    return without(trial, gone)


def tried_in_pieces(choice: Choice, left: Variants) -> Tried:
    """Return what is tried with models that take a request in pieces; `left` is what is left."""
    arms = tuple(arm for arm in left.arms if happens(arm, left.about, choice.models, None))
    counted = {arm.experiment for arm in arms}
    notes = tuple(note for name, note in left.notes.items() if name in counted)
    return Tried(choice, arms, notes=notes)
