"""By which names workers call a model's endpoints, where the environment here may not be theirs.

A worker leaves out an endpoint whose variable it does not have; so does who asks, and the two may
have others. What Redis knows was said by workers, and wins.
"""

from collections.abc import Collection
from dataclasses import dataclass

from modelyard.catalog import Endpoint, Model
from modelyard.catalog_file import UNSET_URL


@dataclass(frozen=True, slots=True)
class Named:
    """An endpoint and what workers call it. `known`: it can be called here, or workers told of it.

    Without a name and with an address that is not known here, it is `endpoint N` of its model
    until workers tell of it.
    """

    endpoint: Endpoint
    label: str
    known: bool


def named(model: Model, heard: Collection[str]) -> list[Named]:
    """Return a model's endpoints in order, given the labels that workers told of.

    Those that fit no address known here are taken for the endpoints whose address is not known;
    if there are more of them than that, all are told, as none of their alerts may be lost.
    """
    found = addressed(model, heard)
    left = sorted(set(heard) - set(found.values()))
    every: list[Named] = []
    last: Endpoint | None = None
    for number, endpoint in enumerate(model.endpoints):
        label = found.get(number)
        if label is None:
            last = endpoint
            label = left.pop(0) if left else place(number)
        every.append(Named(endpoint, label, endpoint.disabled is None or label in heard))
    if last is not None:
        every += [Named(last, label, known=True) for label in left]
    return every


def addressed(model: Model, heard: Collection[str]) -> dict[int, str]:
    """Return the labels of the endpoints whose name or address is known here, by their places.

    The endpoints of several keys may have one address, and have numbers then. Who lacks a key does
    not count its endpoint: where workers told of a higher number than ours, they count them all.
    """
    groups: dict[str, list[int]] = {}
    for number, endpoint in enumerate(model.endpoints):
        if not is_unknown(endpoint):
            groups.setdefault(endpoint.label, []).append(number)
    found: dict[int, str] = {}
    for label, places in groups.items():
        names = [label, *(f"{label} ({n})" for n in range(2, len(places) + 1))]
        off = [number for number in places if model.endpoints[number].disabled is not None]
        live = [number for number in places if number not in off]
        theirs = any(name in heard for name in names[len(live) :])
        found.update(zip(places if theirs else [*live, *off], names, strict=True))
    return found


def is_unknown(endpoint: Endpoint) -> bool:
    """Return whether its label can't be known here: its address has a variable that is not set."""
    return not endpoint.name and endpoint.base_url == UNSET_URL


def place(number: int) -> str:
    """Return what an endpoint is called that has neither name nor address, as in the log."""
    return f"endpoint {number + 1}"


def left_out(model: Model) -> list[tuple[str, str]]:
    """Return the label and the missing variables of each endpoint that can't be called here."""
    return [
        (each.label, each.endpoint.disabled)
        for each in named(model, ())
        if each.endpoint.disabled is not None
    ]
