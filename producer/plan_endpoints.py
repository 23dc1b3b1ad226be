"""A model's endpoints in a simulation: how they do, and whether workers leave them alone.

All workers are taken to know what one of them finds: they tell each other within a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from modelyard import circuit as circuits
from modelyard.catalog import Breaker
from modelyard.circuit import CLOSED, Circuit, Hold
from modelyard.errors import FailureKind
from producer.plan_policies import Quotas, Scopes

MINUTE_S: Final = 60.0

REFUSED_S: Final = 0.05
"""What an endpoint takes to say that its limit is reached."""


@dataclass(frozen=True, slots=True)
class Weather:
    """How an endpoint does: the share of its calls that fail, and how many it takes in a minute.

    What comes beyond that is answered with 429, and with a Retry-After to the minute's end.
    """

    failures: float = 0.0
    limit_per_min: float | None = None
    name: str = ""


FAIR: Final = Weather()


@dataclass(eq=False, slots=True)
class Post:
    """An endpoint, its circuit, and what it took in this minute."""

    weather: Weather
    circuit: Circuit = CLOSED
    probes: int = 0
    calls: int = 0
    taken: int = 0
    minute: int = -1

    def refuses_s(self, now: float) -> float | None:
        """Return in how many seconds it takes a call again, or None: it takes this one."""
        most = self.weather.limit_per_min
        if most is None:
            return None
        minute = int(now // MINUTE_S)
        if minute != self.minute:
            self.minute, self.taken = minute, 0
        if self.taken >= most:
            return (minute + 1) * MINUTE_S - now
        self.taken += 1
        self.calls += 1
        return None


@dataclass(eq=False, slots=True)
class Place:
    """Where one call goes, once `wait_s` seconds are over."""

    post: Post
    at: int
    scopes: Scopes
    wait_s: float
    probing: bool
    started_at: float = 0.0


@dataclass(slots=True)
class Posts:
    """The endpoints of one model, as its workers find them: `model_workers.endpoints.balancer`."""

    quotas: Quotas
    breaker: Breaker
    every: Sequence[Post]
    _scopes: Sequence[Scopes] = field(init=False)

    def __post_init__(self) -> None:
        self._scopes = self.quotas.endpoints or [()] * len(self.every)

    def place(self, tokens: int, now: float, *, batch: bool, avoid: int) -> Place | Hold:
        """Return where a call goes. `avoid`: what failed it last comes last; -1 for nothing."""
        well = [at for at in self.quotas.turns(len(self.every)) if self._usable(at, now)]
        if not well:
            return circuits.hold([post.circuit for post in self.every], now)
        # A probe comes before what is known to be well: who has elsewhere to go can try it.
        well.sort(key=lambda at: (at == avoid, self.every[at].circuit.is_closed))
        found, wait_s = self.quotas.take(tokens, now, batch=batch, order=well)
        if found is None:
            return Hold(wait_s, None, "at its limit")
        post = self.every[found]
        probing = not post.circuit.is_closed
        post.probes += probing
        return Place(post, found, self._scopes[found], wait_s, probing, now)

    def begins(self, place: Place, now: float) -> bool:
        """Return whether a call that waited for its place may still be made."""
        place.started_at = now
        circuit = place.post.circuit
        return not circuit.is_open(now) and (circuit.is_closed or place.probing)

    def leave(self, place: Place) -> None:
        """Note that a call has ended, or was not made."""
        place.post.probes -= place.probing
        for scope in place.scopes:
            scope.in_flight -= 1

    def ended(
        self,
        place: Place,
        kind: FailureKind | None,
        retry_after_s: float | None,
        now: float,
        draw: float,
    ) -> None:
        """Note how a call ended: `kind` is None if it was answered."""
        post = place.post
        if kind is None:
            post.circuit = circuits.answered(post.circuit, self.breaker, place.started_at, now)
        else:
            post.circuit = circuits.failed(
                post.circuit,
                self.breaker,
                kind,
                started_at=place.started_at,
                now=now,
                draw=draw,
                retry_after_s=retry_after_s,
            )

    def elsewhere(self, at: int, now: float) -> bool:
        """Return whether another endpoint can take a call at once."""
        return any(other != at and self._usable(other, now) for other in range(len(self.every)))

    def _usable(self, at: int, now: float) -> bool:
        post = self.every[at]
        return circuits.admits(post.circuit, self.breaker, post.probes, now)


def posts_of(quotas: Quotas, breaker: Breaker, weather: Sequence[Weather]) -> Posts:
    """Return a model's endpoints, all of them well yet. `weather`: of each, or of all."""
    count = max(1, len(quotas.endpoints), len(weather))
    each = weather if len(weather) == count else [*(weather or [FAIR])] * count
    return Posts(quotas, breaker, [Post(one) for one in each[:count]])
