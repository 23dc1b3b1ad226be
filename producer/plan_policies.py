"""Quotas in a simulation: what the workers' meters let through, and when.

The workers keep theirs in Redis; here they are numbers in this process.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from modelyard.catalog import Catalog, Model, Quota
from modelyard.quota import Meter, admit

PATIENCE_S: Final = 5.0
BATCH_PATIENCE_S: Final = 1.0
"""For so long a call waits for quota in line; for longer ones it is asked again later."""

FULL_S: Final = 0.25
"""When to ask again for what waits for another call to end."""

LONGEST_PAUSE_S: Final = 5.0
"""For so long at most nothing is taken from a queue to which a call was put back."""


class Line:
    """A limit of requests or tokens in a minute, and what was let through."""

    def __init__(self, limit: float, share: float = 1.0) -> None:
        self.limit = limit * share
        self._meter = Meter.per_minute(limit).share(share)
        self._arrival = 0.0

    def delay_s(self, amount: float, now: float) -> float:
        """Return in how many seconds `amount` may come."""
        return admit(self._arrival, self._meter, amount, now)[0]

    def take(self, amount: float, now: float) -> None:
        """Let it come."""
        self._arrival = admit(self._arrival, self._meter, amount, now)[1]


@dataclass(slots=True)
class Scope:
    """A quota, and what is taken of it: for all lanes, and for the batch lane its part."""

    name: str
    quota: Quota
    in_flight: int = 0
    requests: int = 0
    tokens: int = 0
    _lines: tuple[Line | None, ...] = ()
    _batch: tuple[Line | None, ...] = ()

    def __post_init__(self) -> None:
        share = 1.0 - self.quota.interactive_share
        limits = (self.quota.requests_per_min, self.quota.tokens_per_min)
        self._lines = tuple(None if limit is None else Line(limit) for limit in limits)
        self._batch = tuple(None if limit is None else Line(limit, share) for limit in limits)

    def is_full(self, batch: bool) -> bool:
        """Return whether there are as many calls in flight as may be."""
        most = self.quota.concurrency
        if most is None:
            return False
        if batch:
            most = max(1, int(most * (1.0 - self.quota.interactive_share)))
        return self.in_flight >= most

    def delay_s(self, tokens: int, now: float, *, batch: bool) -> float:
        """Return in how many seconds the limits of a minute let a call come."""
        lines = (*self._lines, *self._batch) if batch else self._lines
        amounts = (1, tokens, 1, tokens)
        delays = (
            line.delay_s(amount, now)
            for line, amount in zip(lines, amounts, strict=False)
            if line is not None
        )
        return max(0.0, max(delays, default=0.0))

    def take(self, tokens: int, now: float, *, batch: bool) -> None:
        """Note a call that begins."""
        for lines in (self._lines, self._batch) if batch else (self._lines,):
            for line, amount in zip(lines, (1, tokens), strict=True):
                if line is not None:
                    line.take(amount, now)
        self.in_flight += 1
        self.requests += 1
        self.tokens += tokens


Scopes = Sequence[Scope]


@dataclass(slots=True)
class Quotas:
    """The quotas of one model's endpoints: a call needs all the scopes of one of them."""

    endpoints: Sequence[Scopes] = ()
    _turn: int = field(default=0, repr=False)

    @property
    def limited(self) -> bool:
        """Whether anything is."""
        return any(self.endpoints)

    def turns(self, count: int) -> Iterator[int]:
        """Yield the positions of so many endpoints, which take turns to be the first."""
        self._turn += 1
        return ((self._turn + each) % count for each in range(count))

    def take(
        self, tokens: int, now: float, *, batch: bool, order: Sequence[int]
    ) -> tuple[int | None, float]:
        """Return whose quota a call takes and in how many seconds it begins; or None, and when to
        ask.

        Of the endpoints in `order`, the first without a wait is taken, or the least wait.
        """
        if not self.endpoints:
            return order[0], 0.0
        patience_s = BATCH_PATIENCE_S if batch else PATIENCE_S
        chosen: int | None = None
        chosen_s, full, least = patience_s, False, None
        for at in order:
            scopes = self.endpoints[at]
            if any(scope.is_full(batch) for scope in scopes):
                full = True
                continue
            wait_s = max((s.delay_s(tokens, now, batch=batch) for s in scopes), default=0.0)
            least = wait_s if least is None else min(least, wait_s)
            if wait_s <= patience_s and (chosen is None or wait_s < chosen_s):
                chosen, chosen_s = at, wait_s
        if chosen is not None:
            for scope in self.endpoints[chosen]:
                scope.take(tokens, now, batch=batch)
            return chosen, chosen_s
        return None, max(0.05, FULL_S if full or least is None else least)


def quotas_of(model: Model, catalog: Catalog, shared: dict[str, Scope]) -> Quotas:
    """Return a model's quotas; `shared` has those that several models may be under."""
    keys: Mapping[str, Quota] = catalog.quotas.keys
    own = [Scope(model.name, model.quota)] if not model.quota.is_none else []
    endpoints = []
    for endpoint in model.live_endpoints or model.endpoints:
        scopes = list(own)
        if not endpoint.quota.is_none:
            scopes.append(Scope(f"{model.name} at {endpoint.label}", endpoint.quota))
        key = endpoint.key_name
        if key is not None and key in keys and not keys[key].is_none:
            scopes.append(shared.setdefault(key, Scope(key, keys[key])))
        endpoints.append(scopes)
    return Quotas(endpoints or [own])
