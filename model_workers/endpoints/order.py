"""Which endpoint comes first: one pure function for each way to balance."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from modelyard.catalog import Balance, Endpoint

FORGET_S: Final = 30.0
"""What is known of an endpoint's latency counts for e times less after so long: a slow one gets a
call now and then, and is found to be fast again."""


@dataclass(frozen=True, slots=True)
class View:
    """One endpoint as all workers together see it.

    `in_flight`: calls that run there; `latency_s`: decaying mean of its answers' times, 0 if there
    was none, as of `latency_age_s` ago; `used`: which share of its quota the last minute took, or
    how many calls it had if it has no quota; `label` tells it from others at the same address.
    """

    endpoint: Endpoint
    in_flight: int = 0
    latency_s: float = 0.0
    latency_age_s: float = 0.0
    used: float = 0.0
    label: str = ""


def order(
    views: Sequence[View], how: Balance, *, sticky: str, region: str, draws: Sequence[float]
) -> list[int]:
    """Return the positions of the endpoints, the one to be called first.

    `sticky` is what a caller keeps to one endpoint by, '' for nothing; `region` is where this
    worker is, whose endpoints come before others; `draws` are random numbers from 0 to 1, one for
    each endpoint.
    """
    if how == "sticky" and sticky:
        draws = [hashed(sticky, view.label or view.endpoint.label) for view in views]
    costs = [cost(view, how) for view in views]

    def rank(at: int) -> tuple[bool, float, float]:
        far = bool(region) and views[at].endpoint.region not in (None, region)
        return far, costs[at], weighted(draws[at], views[at].endpoint.weight)

    return sorted(range(len(views)), key=rank)


def cost(view: View, how: Balance) -> float:
    """Return what an endpoint is ranked by before chance is: less is better."""
    weight = view.endpoint.weight
    if how == "least_in_flight":
        return view.in_flight / weight
    if how == "lowest_latency":
        # With the calls that it has ("peak EWMA"): the fastest one is not fast under all of them.
        faded = view.latency_s * math.exp(-view.latency_age_s / FORGET_S)
        return faded * (1 + view.in_flight) / weight
    if how == "lowest_used":
        return view.used / weight
    return 0.0


def weighted(draw: float, weight: float) -> float:
    """Return a sort key by which each is first in proportion to its weight.

    P. Efraimidis, P. Spirakis, "Weighted random sampling with a reservoir" (2006). With a hash in
    place of chance it is weighted rendezvous hashing.
    """
    return -math.log(max(draw, 1e-300)) / weight


def hashed(sticky: str, label: str) -> float:
    """Return a number from 0 to 1 that is the same whenever these two meet."""
    digest = hashlib.blake2b(f"{sticky}\0{label}".encode("utf-8", "replace"), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") + 1) / 2.0**64
