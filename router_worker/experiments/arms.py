"""Experiments: which part of which one a request is in, and what that changes.

Who is in the treatment is told by a hash and not by dice: every router says the same, a user stays
where they are, and a ramp that grows only moves people from the control into the treatment.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Final

from modelyard.messages import Request
from modelyard.plan import Arm
from modelyard.routes import Experiment

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Key:
    """Whose requests stay together; `own` is False where the request does not say whose it is."""

    text: str
    own: bool


@dataclass(frozen=True, slots=True)
class Variants:
    """What the experiments of a route change about one request.

    `route` decides it in place of its own. `replace` and `shadow` are from a model to the one that
    is called in its place, or as well. `arms` are counted; `about` has the experiments of those
    that are about models and not about the whole route, and `notes` says for people what they
    should know of one; both by its name.
    """

    route: str | None = None
    replace: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    shadow: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    arms: tuple[Arm, ...] = ()
    about: Mapping[str, Experiment] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=lambda: NOTHING)


NONE: Final = Variants()


def variants(
    experiments: Sequence[Experiment],
    request: Request,
    id: str,
    now: float,
    taken_back: Collection[str] = (),
) -> Variants:
    """Return what the experiments of its route change about a request.

    `id` is the request's, `now` in seconds since the epoch. An experiment that was taken back, has
    not begun or has no share is not there. A request is in the treatment of one experiment about
    the same thing: of the first one in the catalog's order, and it is not counted in those after
    it. As each of them hashes on its own, their arms stay comparable.
    """
    live = [
        each for each in experiments if each.name not in taken_back and each.percent_at(now) > 0.0
    ]
    if not live:
        return NONE
    route: str | None = None
    changed: dict[str, str] = {}
    shadow: dict[str, str] = {}
    arms: list[Arm] = []
    about: dict[str, Experiment] = {}
    notes: dict[str, str] = {}
    # Once another route decides, there is nothing left to try in this one; and what is called in
    # place of a model is known before its shadow.
    for each in sorted(live, key=lambda each: (each.route is None, each.kind == "shadow")):
        if route is not None or each.of in changed or (each.kind == "shadow" and each.of in shadow):
            continue
        whose = key(request, id, each.by)
        arm = assign(each, whose.text, now)
        arms.append(arm)
        if not whose.own:
            notes[each.name] = f"experiment {each.name!r}: no metadata.{each.by}, so its id decides"
        if each.of is not None and each.to is not None:
            about[each.name] = each
        if arm.arm == "control":
            continue
        if each.of is None or each.to is None:
            route = each.route
        else:
            (shadow if each.kind == "shadow" else changed)[each.of] = each.to
    return Variants(route, changed, shadow, tuple(arms), about, notes)


def relevant(found: Variants, models: Collection[str]) -> Variants:
    """Return what is left of the variants for a request with these candidates.

    They are the candidates before anything was replaced. An experiment about a model that is not
    among them changes nothing, and its arms would only be noise in its figures.
    """
    return without(found, {name for name, each in found.about.items() if each.of not in models})


def without(found: Variants, gone: Collection[str]) -> Variants:
    """Return the variants without the experiments of these names."""
    if not gone:
        return found
    about = {name: each for name, each in found.about.items() if name not in gone}
    # Of several about one model, only one is in the treatment: its `to` says which.
    pairs = {(each.of, each.to, each.kind == "shadow") for each in about.values()}
    return replace(
        found,
        replace={of: to for of, to in found.replace.items() if (of, to, False) in pairs},
        shadow={of: to for of, to in found.shadow.items() if (of, to, True) in pairs},
        arms=tuple(arm for arm in found.arms if arm.experiment not in gone),
        about=about,
        notes={name: note for name, note in found.notes.items() if name not in gone},
    )


def assign(experiment: Experiment, key: str, now: float) -> Arm:
    """Return the arm of whoever has this key, at `now` in seconds since the epoch."""
    treated = place(experiment.name, key) < experiment.percent_at(now)
    return Arm(experiment=experiment.name, arm="treatment" if treated else "control")


def place(experiment: str, key: str) -> float:
    """Return where a key stands in an experiment: from 0 to below 100, always the same.

    The name is part of it: who is first in one experiment is not first in all of them.
    """
    seen = blake2b(f"{experiment}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    # 53 bits are what a float holds exactly: more could be rounded up to 100.
    return 100.0 * (int.from_bytes(seen, "big") >> 11) / 2**53


def key(request: Request, id: str, by: str) -> Key:
    """Return whose request it is, by its metadata's `user`, `session` or `tenant`.

    Without it, as with `by` request, each request stands for itself, by its id.
    """
    if by == "request":
        return Key(id, own=True)
    whose = request.metadata.get(by)
    return Key(whose, own=True) if whose else Key(id, own=False)
