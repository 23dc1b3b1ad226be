"""Which of LiteLLM's deployments are one model: pure.

LiteLLM balances over all entries of a model_name, whatever their providers. So they are endpoints
of one model here, unless a request would mean something else at one than at another: what a model
is chosen and billed by can't differ within it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from producer.litellm_deployment import ENDPOINT_NAME, Deployment

ONE: Final = ("price", "context_tokens", "max_output_tokens")
"""What deployments of different providers or names must have alike, where they say it."""


@dataclass
class Part:
    """The deployments that become one model, in the file's order. `order` is LiteLLM's."""

    order: float
    deployments: list[Deployment] = field(default_factory=list)

    def has_kind(self, other: Deployment) -> bool:
        """Return whether one of these has the provider and the name of another."""
        return any(each.kind == other.kind for each in self.deployments)

    def clash(self, other: Deployment) -> str | None:
        """Return why a deployment can't be an endpoint beside these, or None."""
        if other.order != self.order:
            return "is of another order than"
        if self.has_kind(other):
            return None
        if other.place.endpoint is None:
            return "has no api_base, and can't be an endpoint of"
        if any(each.place.endpoint is None for each in self.deployments):
            return "has an api_base, unlike"
        known: dict[str, Any] = {}
        for each in self.deployments:
            known = {**_said(each), **known}
        said = _said(other)
        differ = sorted(key for key in said.keys() & known.keys() if said[key] != known[key])
        return f"has another {', '.join(differ)} than" if differ else None


def parts_of(deployments: Sequence[Deployment], *, apart: bool = False) -> list[Part]:
    """Return the models that the deployments of one model_name become, in the order of their turns.

    `apart`: other providers and names are other models in any case.
    """
    parts: list[Part] = []
    # In the file's order, except where LiteLLM's `order` says another.
    for each in sorted(deployments, key=lambda each: each.order):
        same = [part for part in parts if part.order == each.order]
        part = next((part for part in same if part.has_kind(each)), None)
        if part is None and not apart:
            part = next((part for part in same if part.clash(each) is None), None)
        if part is None:
            part = Part(each.order)
            parts.append(part)
        part.deployments.append(each)
    return parts


def endpoints_of(deployments: Sequence[Deployment]) -> list[dict[str, Any]]:
    """Return the endpoints of the model that these are, which has the first one's provider and
    name.

    Several deployments at one address are told apart in logs and attempts by their names there.
    """
    found: list[dict[str, Any]] = []
    placed = [each for each in deployments if each.place.endpoint is not None]
    taken = {each.place.endpoint.get("name") for each in placed if each.place.endpoint}
    at = Counter(map(_address, placed))
    named = Counter(each.place.model for each in placed)
    for each in placed:
        endpoint = _endpoint(each, deployments[0])
        name = each.place.model
        # Two keys of one deployment have one name, and are numbered by their address.
        free = named[name] == 1 and name not in taken and ENDPOINT_NAME.fullmatch(name)
        if at[_address(each)] > 1 and free:
            endpoint.setdefault("name", name)
        found.append(endpoint)
    return found


def _address(each: Deployment) -> str:
    return str((each.place.endpoint or {}).get("base_url"))


def _endpoint(each: Deployment, first: Deployment) -> dict[str, Any]:
    own = {
        key: here
        for key, here, there in (
            ("provider", each.place.provider, first.place.provider),
            ("model", each.place.model, first.place.model),
        )
        if here != there
    }
    return {**own, **(each.place.endpoint or {})}


def _said(each: Deployment) -> Mapping[str, Any]:
    """Return what must not differ, as far as the config says it."""
    settings = {key: value for key, value in each.settings.items() if key in ONE}
    return {**settings, **each.abilities}
