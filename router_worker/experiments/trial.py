"""One experiment as it went so far: the figures of its two arms, and the tests of its rollback."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from modelyard.decision_ledger import Calls, Entry, Kind
from modelyard.messages import DeadReason
from modelyard.routes import Experiment
from router_worker.experiments.sequential import Evidence, Running, mean_interval, share_interval

ArmName = Literal["control", "treatment"]
What = Literal["error_rate", "latency_s", "cost_usd", "score"]

SHARES: Final[frozenset[What]] = frozenset({"error_rate", "score"})
"""What is between 0 and 1."""
STUCK: Final = frozenset({DeadReason.EXPIRED.value, DeadReason.POISON.value})
"""The outcomes of requests that no model refused and none answered."""
DISPLAY_ALPHA: Final = 0.05
"""The intervals that are shown hold in 95 of 100 experiments, at all times."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one entry of the ledger says about one arm.

    `error_rate` is the share of the request's calls that failed: one number for each request, as
    the calls of one are not independent. It is 1 where the model let the request expire, or is
    suspected to have killed its workers, calls or none. None: the entry does not say.
    """

    arm: ArmName
    error_rate: float | None = None
    latency_s: float | None = None
    cost_usd: float | None = None
    score: float | None = None

    def told(self) -> Iterator[tuple[What, float]]:
        """Yield what the entry says."""
        for what in ("error_rate", "latency_s", "cost_usd", "score"):
            value = getattr(self, what)
            if value is not None:
                yield what, value


@dataclass(slots=True)
class Figures:
    """What was observed of one arm."""

    requests: int = 0
    means: dict[What, Running] = field(default_factory=dict)

    def add(self, seen: Observation) -> None:
        """Take one observation."""
        self.requests += seen.error_rate is not None
        for what, value in seen.told():
            self.means.setdefault(what, Running()).add(value)

    def shown(self) -> dict[str, Any]:
        """Return the figures as JSON, each mean with its 95 % interval, good at all times."""
        said: dict[str, Any] = {"requests": self.requests}
        for what, seen in self.means.items():
            said[what] = {"mean": seen.mean, "count": seen.count, "interval": interval(what, seen)}
        return said


def interval(what: What, seen: Running) -> list[float] | None:
    """Return the bounds of a mean, or None before there are any."""
    if what in SHARES:
        return list(share_interval(seen.count, seen.count * seen.mean, DISPLAY_ALPHA))
    found = mean_interval(seen, DISPLAY_ALPHA)
    return None if found is None else list(found)


@dataclass(frozen=True, slots=True)
class Test:
    """One bound of a rollback, and the evidence that the treatment's mean is beyond it.

    For a score the bound is from below: what is tested is how much is missing to 1.
    """

    what: What
    bound: float
    evidence: Evidence

    def add(self, observed: float) -> None:
        """Take one observation of the treatment."""
        self.evidence.add(max(0.0, 1.0 - observed if self.what == "score" else observed))


class Trial:
    """The arms of an experiment, and whether its treatment is to be taken back."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.arms: dict[ArmName, Figures] = {"control": Figures(), "treatment": Figures()}
        self.tests = tests(experiment)

    def add(self, entry: Entry) -> bool:
        """Take one entry of the ledger. Returns whether it tells of this experiment."""
        seen = observation(self.experiment, entry)
        if seen is None:
            return False
        self.arms[seen.arm].add(seen)
        if seen.arm == "treatment":
            for test in self.tests:
                value = getattr(seen, test.what)
                if value is not None:
                    test.add(value)
        return True

    def verdict(self) -> str | None:
        """Return why the treatment is to be taken back, or None.

        With several bounds each has its part of alpha, so that all together have no more.
        """
        rollback, treatment = self.experiment.rollback, self.arms["treatment"]
        if rollback is None or treatment.requests < rollback.min_requests:
            return None
        for test in self.tests:
            if test.evidence.is_over(rollback.alpha / len(self.tests)):
                seen = treatment.means[test.what]
                return said(test.what, seen.mean, seen.count, test.bound)
        return None

    def statistics(self) -> dict[str, Any]:
        """Return the figures of both arms as JSON."""
        return {arm: figures.shown() for arm, figures in self.arms.items()}


def said(what: What, mean: float, count: int, bound: float) -> str:
    """Return in words that a mean of so many observations is beyond its bound."""
    in_requests = f"in {count:,} requests; at most"
    failed, may_fail = f"{100 * mean:.3g} %", f"{100 * bound:.3g} %"
    words = {
        "error_rate": f"{failed} of its calls failed {in_requests} {may_fail} may",
        "latency_s": f"its calls took {mean:.3g} s on average {in_requests} {bound:g} is allowed",
        "cost_usd": f"its answers cost ${mean:.3g} on average {in_requests} {bound:g} is allowed",
        "score": f"its mean score is {mean:.3g} in {count:,} answers that were graded; at least "
        f"{bound:g} is wanted",
    }
    return words[what]


def tests(experiment: Experiment) -> tuple[Test, ...]:
    """Return the tests of an experiment's rollback, with no evidence yet."""
    rollback = experiment.rollback
    if rollback is None:
        return ()
    bounds: dict[What, float | None] = {
        "error_rate": rollback.max_error_rate,
        "latency_s": rollback.max_latency_s,
        "cost_usd": rollback.max_cost_usd,
        "score": rollback.min_score,
    }
    return tuple(
        Test(what, bound, Evidence(1.0 - bound if what == "score" else bound))
        for what, bound in bounds.items()
        if bound is not None
    )


def observation(experiment: Experiment, entry: Entry) -> Observation | None:
    """Return what an entry says about an experiment, or None if it says nothing.

    An arm is about one model, and what others did for the same request after it failed is not its
    doing. Of a shadow, the treatment is what the shadow did, and the control the request itself.
    """
    arm = next((arm.arm for arm in entry.arms if arm.experiment == experiment.name), None)
    if arm is None or entry.kind is Kind.MEMBER:
        return None
    if experiment.kind == "shadow":
        graded = entry.kind is Kind.FEEDBACK and entry.model == experiment.to
        arm = "treatment" if graded or entry.kind is Kind.SHADOW else "control"
    elif entry.kind is Kind.SHADOW:
        return None
    model = experiment.to if arm == "treatment" else experiment.of
    # Of a whole route, a draft or a shadow is not what anybody got.
    theirs = entry.given if model is None else entry.model == model
    if entry.kind is Kind.FEEDBACK:
        return Observation(arm, score=entry.score) if theirs else None
    if is_stuck(entry, model):
        return Observation(arm, error_rate=1.0)
    calls = total(entry) if model is None else entry.calls.get(model, Calls())
    if calls.made == 0:
        return None
    answers = calls.made - calls.failed
    return Observation(
        arm,
        error_rate=calls.failed / calls.made,
        latency_s=calls.answered_s / answers if answers else None,
        cost_usd=entry.cost_usd if entry.answered and theirs else None,
    )


def is_stuck(entry: Entry, model: str | None) -> bool:
    """Return whether a model had the request and brought it to no end; None stands for any model.

    The worst models make no call that could fail: their workers come too late, or are lost with it.
    """
    if entry.kind is Kind.SHADOW:
        return not entry.answered and not entry.calls and model in {None, entry.model}
    return entry.outcome in STUCK and model in {None, entry.stopped_at}


def total(entry: Entry) -> Calls:
    """Return the calls of all models for one request."""
    return Calls(
        made=sum(calls.made for calls in entry.calls.values()),
        failed=sum(calls.failed for calls in entry.calls.values()),
        answered_s=sum(calls.answered_s for calls in entry.calls.values()),
    )
