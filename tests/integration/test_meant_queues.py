"""A worker that does not consume all the queues that it is meant to is not well, and says which."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_models import fake_model, fake_models
from waiting import eventually
from workers import Workers, own_yard

from modelyard.app import make_app
from producer.commands import model_command

ROUTES = "routes: {default: {otherwise: [first]}}\n"
CATALOG = fake_models(fake_model("first"), fake_model("second")) + ROUTES
PEOPLE = fake_models(fake_model("first")) + "  - {name: second, provider: people}\n" + ROUTES


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    folder = tmp_path_factory.mktemp("yard")
    with own_yard(folder, catalog=CATALOG, env={"MODELYARD_LEASE_S": "0.9"}) as yard:
        yard.start_router()
        yield yard


def health(yard: Workers, *options: str) -> tuple[int, str]:
    """What health says of a worker, a queue or all, with its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "producer", "health", *options],
        env=yard.env,
        cwd=yard.folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def told(yard: Workers, wanted: str, *options: str) -> bool:
    return wanted in health(yard, *options)[1]


def test_a_router_that_consumes_one_lane_alone_is_paused_until_it_has_both(yard: Workers) -> None:
    with make_app("operator", yard.broker_url, current=False) as app:
        node = [f"router@{socket.gethostname()}"]
        app.control.cancel_consumer("requests", destination=node, reply=True)
        words = "it does not consume requests any more"
        eventually(lambda: told(yard, words, "--node", "router"), message=words)
        assert health(yard, "--node", "router")[0] == health(yard)[0] == 1
        assert health(yard, "--queue", "requests")[0] == 1
        # The other lane is worked off.
        assert health(yard, "--queue", "batch.requests")[0] == 0

        app.control.add_consumer("requests", destination=node, reply=True)
        eventually(lambda: health(yard, "--node", "router")[0] == 0, message="it is well again")


def test_a_pool_that_lacks_a_model_is_paused_and_one_that_left_it_to_people_is_well(
    yard: Workers,
) -> None:
    yard.start("pool", model_command("first", "second", process=2))
    node = "first+second-2"
    with make_app("operator", yard.broker_url, current=False) as app:
        eventually(lambda: health(yard, "--node", node)[0] == 0, message="it is well")
        # What somebody adds, they may take away.
        whole = [f"{node}@{socket.gethostname()}"]
        app.control.add_consumer("another", destination=whole, reply=True)
        eventually(lambda: told(yard, "another", "--node", node), message="it has another queue")
        app.control.cancel_consumer("another", destination=whole, reply=True)
        eventually(lambda: not told(yard, "another", "--node", node), message="it is left again")
        assert health(yard, "--node", node)[0] == 0

        app.control.cancel_consumer("model.second", destination=whole, reply=True)
        words = "it does not consume model.second any more"
        eventually(lambda: told(yard, words, "--node", node), message=words)
        assert health(yard)[0] == 1
        app.control.add_consumer("model.second", destination=whole, reply=True)
        eventually(lambda: health(yard, "--node", node)[0] == 0, message="it is well again")

    write(yard.folder / "catalog.yaml", PEOPLE)
    eventually(lambda: not told(yard, "model.second", "--node", node), message="it is left")
    assert health(yard, "--node", node)[0] == 0
    write(yard.folder / "catalog.yaml", CATALOG)
    eventually(lambda: told(yard, "model.second", "--node", node), message="it is taken up again")
    assert health(yard, "--node", node)[0] == 0


def write(path: Path, text: str) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
