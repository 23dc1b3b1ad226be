"""A model's endpoints as one worker sees them, and what follows from that for a call."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from model_workers.endpoints.board import Load
from model_workers.endpoints.learned import FRESH_S, NOTHING, Learned, requests_per_s, scope_of
from model_workers.endpoints.order import View
from model_workers.lines import Line
from model_workers.providers.base import Allowance
from modelyard import circuit as circuits
from modelyard.catalog import Catalog, Model
from modelyard.circuit import CLOSED, Circuit
from modelyard.messages import Request
from modelyard.quota import Scope
from modelyard.request_tokens import tokens_beside_text
from modelyard.tokens import estimate_tokens

MINUTE_S: Final = 60.0

IDLE_S: Final = 60.0
"""After so long without a call a worker has nothing to tell of a model, and asks nothing."""


@dataclass(eq=False, slots=True)
class Post:
    """An endpoint as this worker sees it."""

    line: Line
    identity: tuple[Any, ...]
    """What it is known by: what is found of it is forgotten when this changes."""
    scopes: tuple[Scope, ...] = ()
    retired: bool = False
    """Whether the catalog has it no more."""
    circuit: Circuit = CLOSED
    told: float = 0.0
    """Until when the others know that it is left alone; 0 if they do not."""
    closed_at: float = 0.0
    """When a probe from here was answered last: what others said before that is no news."""
    since: float = 0.0
    """When it took the place of another one of this name: what was learned before is of that."""
    learned: Learned = NOTHING
    said: Allowance | None = None
    said_at: float = 0.0
    """What it said last of its limits, and when."""
    learned_told: Learned = NOTHING
    """What the others know of what was learned."""
    probes: int = 0
    silences: int = 0
    """How many of the last questions whether it lives had no answer."""
    in_flight: int = 0
    latency_s: float = 0.0
    latency_at: float = 0.0
    used: float = 0.0
    used_at: float = 0.0
    busy_since: float = 0.0
    refusals: float = 0.0
    refused_at: float = 0.0
    elsewhere: tuple[Load, ...] = ()

    @property
    def kind(self) -> tuple[Any, ...]:
        """Whose it is, and the model's name there: two of a kind take the same requests."""
        return self.identity[:2]

    def becomes(self, circuit: Circuit, now: float) -> None:
        """Take over what came of a call or a probe."""
        if circuit.is_closed and not self.circuit.is_closed:
            self.closed_at = now
        self.circuit = circuit

    def load(self, now: float) -> Load:
        """Return what the others are told."""
        return Load(self.in_flight, self.latency_s, self.latency_at, self.used_by(now))

    def used_by(self, now: float) -> float:
        """Return about how many calls it had from here in the last minute."""
        return self.used * max(0.0, 1.0 - max(0.0, now - self.used_at) / MINUTE_S)

    def count(self, now: float) -> None:
        """Note a call."""
        used = self.used_by(now)
        if not used:
            self.busy_since = now
        self.used, self.used_at = used + 1.0, now

    def refused(self, now: float) -> float:
        """Note that a call was one too many: it took nothing. Return how many were of late."""
        self.used, self.used_at = max(0.0, self.used_by(now) - 1.0), now
        left = max(0.0, 1.0 - max(0.0, now - self.refused_at) / MINUTE_S)
        self.refusals, self.refused_at = self.refusals * left + 1.0, now
        return self.refusals

    def passed(self, now: float) -> tuple[float, float]:
        """Return about how many calls of all workers went through in the last minute, and how many
        a second since they began.
        """
        used = self.used_by(now) + sum(load.used for load in self.elsewhere)
        # What is counted with a decay is less than a minute's in the first minute.
        whole = 1.0 - math.exp(-max(1.0, now - self.busy_since) / MINUTE_S)
        return used, used / (MINUTE_S * whole)


@dataclass(eq=False, slots=True)
class Desk:
    """A model and its endpoints. `scopes`: the limits of the model itself.

    `gone`: the catalog has it no more, and the last of its calls takes it along.
    """

    model: Model
    posts: list[Post]
    scopes: tuple[Scope, ...] = ()
    gone: bool = False
    called_at: float = 0.0
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether it is known what the others know of it."""
    probing: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Place:
    """Where one call goes. Whoever has it tells `Balancer.ended` how it ended.

    `line` is what it goes through to its end, whatever the catalog says meanwhile.
    """

    desk: Desk
    post: Post
    line: Line
    scopes: Sequence[Scope]
    tokens: int
    batch: bool
    probing: bool
    started_at: float = 0.0
    over: bool = field(default=False)


def fits(post: Post, request: Request) -> bool:
    """Return whether the request may be sent there: where it has to stay in a region."""
    asked = request.limits.region
    endpoint = post.line.endpoint
    return asked is None or endpoint is None or endpoint.region in (None, asked)


def able(
    desk: Desk, request: Request, carried: dict[tuple[Any, ...], bool] | None = None
) -> list[Post]:
    """Return the endpoints that the request may be sent to: those in its region, whose provider has
    a word for all that it asks for. If none has, all of them: a call is refused, and says why.

    `carried` is what was found of the request before, by kind, and takes in what is found now.
    """
    here = [post for post in desk.posts if fits(post, request)]
    kinds = {post.kind: post for post in here}
    if len(kinds) < 2:
        return here  # To encode a request takes time, and would tell nothing.
    found = {} if carried is None else carried
    for kind, post in kinds.items():
        if kind not in found:
            found[kind] = carries(post, request)
    return [post for post in here if found[post.kind]] or here


def carries(post: Post, request: Request) -> bool:
    """Return whether the provider there has a word for all that the request asks for, so far as it
    can tell.
    """
    try:
        return post.line.carries(request)
    except Exception:  # noqa: BLE001 - a provider's bug is its endpoint's: the call tells of it
        return True


def usable(post: Post, model: Model, now: float) -> bool:
    """Return whether a call may go there now, if need be as a probe."""
    return circuits.admits(post.circuit, model.breaker, post.probes, now)


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
    if most is None:
        per_s = requests_per_s(post.learned, now)
        most = per_s and MINUTE_S * per_s
    return View(
        endpoint,
        sum(load.in_flight for load in loads),
        mean_s,
        max(0.0, now - newest),
        used / most if most else used,
        post.line.label,
    )


def model_scopes(model: Model) -> tuple[Scope, ...]:
    """Return the limits that all calls of a model are under."""
    return () if model.quota.is_none else (Scope.of(f"model:{model.name}", model.quota),)


def endpoint_scopes(catalog: Catalog, model: Model, line: Line) -> tuple[Scope, ...]:
    """Return the limits that calls of one endpoint are under: its own, and its key's."""
    endpoint = line.endpoint
    if endpoint is None:
        return ()
    limits = {f"endpoint:{model.name}/{line.label}": endpoint.quota}
    if endpoint.key_name in catalog.quotas.keys:
        limits[f"key:{endpoint.key_name}"] = catalog.quotas.keys[endpoint.key_name]
    return tuple(Scope.of(key, quota) for key, quota in limits.items() if not quota.is_none)


def learned_scopes(model: Model, post: Post, tokens: int, now: float) -> tuple[Scope, ...]:
    """Return the limits that were learned of an endpoint, where the catalog has none, for a call
    of about so many tokens.
    """
    endpoint = post.line.endpoint
    if endpoint is None or post.learned is NOTHING:
        return ()
    key = f"learned:{model.name}/{post.line.label}"
    scope = scope_of(key, post.learned, endpoint.quota, now, left=left(post, tokens, now))
    return () if scope is None else (scope,)


def left(post: Post, tokens: int, now: float) -> tuple[float, float]:
    """Return how many requests and tokens are left of what an endpoint allows, at least: what is
    in flight may not have been counted there.
    """
    said = post.said
    if said is None or now >= post.said_at + FRESH_S:
        return 0.0, 0.0
    in_flight = 1 + post.in_flight + sum(load.in_flight for load in post.elsewhere)
    return (
        (said.remaining_requests or 0.0) - in_flight,
        (said.remaining_tokens or 0.0) - in_flight * tokens,
    )


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
    given = estimate_tokens(request.text) + tokens_beside_text(request)
    return given + min([*asked, model.max_output_tokens])
