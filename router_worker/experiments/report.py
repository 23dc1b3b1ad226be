"""How the experiments of a catalog go, for people: what the ledger says of each of them."""

import math
from typing import Any

from modelyard.catalog import Catalog
from modelyard.routes import Experiment
from router_worker.experiments.trial import Trial
from router_worker.experiments.watch import Progress


def report(catalog: Catalog, progress: Progress, now: float) -> list[dict[str, Any]]:
    """Return each experiment with its share, how it stands, its arms and its tests, as JSON.

    `now` is in seconds since the epoch.
    """
    return [
        described(route, each, progress, now)
        for route, part in catalog.routes.items()
        for each in part.experiments
    ]


def described(route: str, experiment: Experiment, progress: Progress, now: float) -> dict[str, Any]:
    """Return one experiment as JSON."""
    trial = progress.trials[experiment.name]
    standing = progress.standings.get(experiment.name)
    back = standing is not None and standing.is_back
    said: dict[str, Any] = {
        "name": experiment.name,
        "kind": experiment.kind,
        "route": route,
        "of": experiment.of,
        "to": experiment.to or experiment.route,
        "percent": 0.0 if back else experiment.percent_at(now),
        "state": "taken back" if back else "in force",
        "arms": trial.statistics(),
        "tests": tested(trial),
    }
    if standing is not None:
        said["since"] = {"at": standing.at, "by": standing.by, "why": standing.why}
    return said


def tested(trial: Trial) -> list[dict[str, Any]]:
    """Return the tests of a rollback: a treatment is taken back when `evidence` reaches 1.

    It is on a logarithmic scale, from 0 for none.
    """
    rollback = trial.experiment.rollback
    if rollback is None:
        return []
    needed = math.log(len(trial.tests) / rollback.alpha)
    return [
        {
            "what": test.what,
            "bound": test.bound,
            "count": test.evidence.count,
            "evidence": min(1.0, max(0.0, float(test.evidence.log_capital()) / needed)),
        }
        for test in trial.tests
    ]
