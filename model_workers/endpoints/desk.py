"""A model's endpoints as one worker sees them, and what follows from that for a call."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from model_workers.endpoints import circuit as circuits
from model_workers.endpoints.board import Load
from model_workers.endpoints.circuit import CLOSED, Circuit, Hold, Reason
from model_workers.endpoints.order import View
from model_workers.endpoints.quota import Scope
from model_workers.lines import Broken, Line
from modelyard.catalog import Catalog, Model
from modelyard.messages import Request
from modelyard.tokens import estimate_tokens

PROBE_WAIT_S: Final = 0.2
"""How long a call waits for a probe of another to come to its end."""

MINUTE_S: Final = 60.0


@dataclass(eq=False, slots=True)
class Post:
    """An endpoint as this worker sees it."""

    line: Line
    scopes: tuple[Scope, ...]
    circuit: Circuit = CLOSED
    told: float = 0.0
    """Until when the others know that it is left alone; 0 if they do not."""
    closed_at: float = 0.0
    """When a probe from here was answered last: what others said before that is no news."""
    probes: int = 0
    silences: int = 0
    """How many of the last questions whether it lives had no answer."""
    in_flight: int = 0
    latency_s: float = 0.0
    latency_at: float = 0.0
    used: float = 0.0
    used_at: float = 0.0
    elsewhere: tuple[Load, ...] = ()

    def load(self, now: float) -> Load:
        """Return what the others are told."""
        return Load(self.in_flight, self.latency_s, self.latency_at, self.used_by(now))

    def used_by(self, now: float) -> float:
        """Return about how many calls it had from here in the last minute."""
        return self.used * max(0.0, 1.0 - max(0.0, now - self.used_at) / MINUTE_S)

    def count(self, now: float) -> None:
        """Note a call."""
        self.used, self.used_at = self.used_by(now) + 1.0, now


@dataclass(eq=False, slots=True)
class Desk:
    """A model and its endpoints. `scopes`: the limits of the model itself."""

    model: Model
    posts: list[Post]
    scopes: tuple[Scope, ...]
    called_at: float = 0.0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether it is known what the others know of it."""
    probing: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Place:
    """Where one call goes. Whoever has it tells `Balancer.ended` how it ended."""

    desk: Desk
    post: Post
    scopes: Sequence[Scope]
    tokens: int
    batch: bool
    probing: bool
    started_at: float = 0.0
    over: bool = field(default=False)


def told_apart(lines: Sequence[Line]) -> list[Line]:
    """Return the lines that can be used, or all if none can; no two of them by the same name.

    The endpoints of two keys may have one address, and all that is known of them goes by name.
    """
    seen: dict[str, int] = {}
    named = []
    for line in lines:
        number = seen[line.label] = seen.get(line.label, 0) + 1
        named.append(line if number == 1 else replace(line, label=f"{line.label} ({number})"))
    return [line for line in named if not isinstance(line.provider, Broken)] or named


def fits(post: Post, request: Request) -> bool:
    """Return whether the request may be sent there: where it has to stay in a region."""
    asked = request.limits.region
    endpoint = post.line.endpoint
    return asked is None or endpoint is None or endpoint.region in (None, asked)


def usable(post: Post, model: Model, now: float) -> bool:
    """Return whether a call may go there now, if need be as a probe."""
    return circuits.admits(post.circuit, model.breaker, post.probes, now)


def hold(posts: Sequence[Post], model: Model, now: float) -> Hold:
    """Return for how long none of these endpoints takes a call: the first that may again counts."""
    first = min(posts, key=lambda post: max(post.circuit.until, now))
    why = first.circuit.why
    # The mildest reason: one endpoint that is at its limit will answer.
    probed = not first.circuit.is_open(now)
    others = any(post.circuit.why is not Reason.DENIED for post in posts)
    if why is Reason.DENIED and (others or probed):
        why = Reason.FAILING
    wait_s = max(PROBE_WAIT_S, first.circuit.until - now)
    words = {
        Reason.FAILING: "fails",
        Reason.LIMITED: "is at its limit",
        Reason.DENIED: "denies our calls",
    }
    every = "its endpoint" if len(posts) == 1 else f"each of its {len(posts)} endpoints"
    return Hold(wait_s, why, f"{every} {words[why]}, next try in {wait_s:.1f} s")


def view(post: Post, now: float) -> View:
    """Return the endpoint as all workers together see it."""
    endpoint = post.line.endpoint
    assert endpoint is not None
    loads = (post.load(now), *post.elsewhere)
    answered = [load for load in loads if load.latency_s]
    newest = max((load.latency_at for load in answered), default=now)
    mean_s = sum(load.latency_s for load in answered) / len(answered) if answered else 0.0
    used = sum(load.used for load in loads)
    most = endpoint.quota.requests_per_min
    return View(
        endpoint,
        sum(load.in_flight for load in loads),
        mean_s,
        max(0.0, now - newest),
        used / most if most else used,
        post.line.label,
    )


def endpoint_scopes(catalog: Catalog, model: Model, line: Line) -> tuple[Scope, ...]:
    """Return the limits that calls of one endpoint are under: its own, and its key's."""
    endpoint = line.endpoint
    if endpoint is None:
        return ()
    limits = {f"endpoint:{model.name}/{line.label}": endpoint.quota}
    if endpoint.key_name in catalog.quotas.keys:
        limits[f"key:{endpoint.key_name}"] = catalog.quotas.keys[endpoint.key_name]
    return tuple(Scope.of(key, quota) for key, quota in limits.items() if not quota.is_none)


def tenant_scopes(catalog: Catalog, request: Request) -> tuple[Scope, ...]:
    """Return the limits of whose request it is."""
    quotas = catalog.quotas.tenants
    tenant = request.metadata.get("tenant")
    if not quotas or tenant is None:
        return ()
    quota = quotas.get(tenant) or quotas.get("*")
    if quota is None or quota.is_none:
        return ()
    return (Scope.of(f"tenant:{tenant}", quota),)


def expected_tokens(model: Model, request: Request) -> int:
    """Return about how many tokens a call takes, input and output, as providers reserve them."""
    asked = [
        value
        for name in ("max_tokens", "max_completion_tokens")
        if isinstance(value := request.params.get(name), int) and value > 0
    ]
    return estimate_tokens(request.text) + min([*asked, model.max_output_tokens])
