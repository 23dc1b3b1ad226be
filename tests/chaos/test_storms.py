"""Every storm, small, on real processes: nothing is lost, stranded or doubled.

All storms hit the same processes one after the other, as they are what takes long to start. The
long run is `make chaos`. After a failure, `python -m chaos --storm NAME --keep-logs FOLDER` in the
folder `tests` shows more.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import systems
from chaos.checker import check, failures
from chaos.evidence import Evidence
from chaos.grounds import Grounds
from chaos.load import Load
from chaos.run import Patience, run_storm
from chaos.storms import BY_NAME, STORMS, Storm, schedule
from modelyard.errors import EmbeddedRedisError
from modelyard.redis_binary import find_redis

LEASE_S = 2.0
REQUESTS = 100
PER_S = 50.0
SEED = 7
PATIENCE = Patience(without_progress_s=30.0, in_all_s=90.0)


def small(storm: Storm) -> Load:
    """The load of a storm in the short run."""
    return Load(
        storm.name,
        REQUESTS,
        min(storm.chunk, 30),
        per_s=0.0 if storm.at_once else PER_S,
        crash_every=80 if storm.crash_every else 0,
        sleep_every=40 if storm.sleep_every else 0,
        sleep_s=storm.sleep_leases * LEASE_S,
        strategies=storm.strategies,
    )


def run_small(grounds: Grounds, storm: Storm, load: Load) -> Evidence:
    seconds = load.due_s(load.count)
    return run_storm(grounds, storm, load, seed=SEED, seconds=seconds, patience=PATIENCE)


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    """A yard behind the proxy that all storms share."""
    try:
        find_redis()
    except EmbeddedRedisError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("chaos")
    with Grounds(folder, systems.ours(), lease_s=LEASE_S, fsync="always", proxied=True) as grounds:
        yield grounds


@pytest.mark.parametrize("storm", STORMS, ids=lambda storm: storm.name)
def test_a_storm_loses_strands_and_doubles_nothing(grounds: Grounds, storm: Storm) -> None:
    evidence = run_small(grounds, storm, small(storm))
    report = check(evidence)

    assert failures(report) == []
    assert report.accepted >= REQUESTS
    assert report.answered + report.dead_lettered + len(report.lost_as_promised) == report.accepted
    poison = {id for id, why in evidence.truth.dead_letters.items() if why == "poison"}
    assert poison >= small(storm).crashing
    happened = {fault.action for fault in evidence.faults}
    assert {fault.action for fault in storm.faults} <= happened


def test_the_peer_answers_all_when_nothing_goes_wrong(tmp_path: Path) -> None:
    system = systems.peer(routers=1, pools=1)
    with Grounds(tmp_path, system, lease_s=LEASE_S, fsync="always", proxied=False) as grounds:
        report = check(run_small(grounds, BY_NAME["calm"], small(BY_NAME["calm"])))
    assert failures(report) == []
    assert report.answered == REQUESTS


@pytest.mark.parametrize("storm", STORMS, ids=lambda storm: storm.name)
def test_a_seed_makes_the_same_storm_with_each_of_its_faults(storm: Storm) -> None:
    cues = schedule(storm, 60.0, LEASE_S, SEED)
    assert cues == schedule(storm, 60.0, LEASE_S, SEED)
    assert {cue.action for cue in cues} == {fault.action for fault in storm.faults}
    assert all(0 < cue.at_s < 60 for cue in cues)
    short = schedule(storm, 0.5, LEASE_S, SEED)
    assert {cue.action for cue in short} == {fault.action for fault in storm.faults}
