"""`modelyard health` and the heartbeats of real workers, on a real Redis."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import eventually

from modelyard.app import make_app
from modelyard.beat import Beat
from modelyard.claims import Claims, New, Want, put
from modelyard.embedded_redis import EmbeddedRedis, unused_port
from modelyard.health import Scope
from modelyard.names import DEAD_LETTERS_KEY, LEASES_KEY, WORKERS_KEY, model_queue
from modelyard.publish import envelope
from modelyard.snapshot import FORGOTTEN_S, take_snapshot

ROOT = Path(__file__).resolve().parents[2]
NODE = f"tester@{socket.gethostname()}"
LEASE_S = 0.5


def environ(url: str, **more: str) -> dict[str, str]:
    """The environment of a process of the yard at `url`."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]),
        "MODELYARD_BROKER_URL": url,
        "MODELYARD_LEASE_S": str(LEASE_S),
        **more,
    }


def health(url: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "producer", "health", *options],
        env=environ(url, **env),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def report(url: str, *options: str, **env: str) -> dict[str, Any]:
    """Run the command, and return what it says to programs."""
    run = health(url, "--json", *options, **env)
    said: dict[str, Any] = json.loads(run.stdout)
    assert run.returncode == (0 if said["healthy"] else 1)
    return said


def state(url: str) -> str:
    """What the worker of these tests does, or nothing if it has no beat."""
    for beat in take_snapshot(url, Scope(node=NODE)).beats:
        with redis.Redis.from_url(url) as client:
            seconds, microseconds = client.time()
        return beat.state(seconds + microseconds / 1e6).value
    return ""


def wait_until(url: str, wanted: str) -> None:
    eventually(lambda: state(url) == wanted, message=f"the worker is {wanted or 'gone'}")


@contextmanager
def worker(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker whose health is known, and which is gone afterwards."""
    command = [sys.executable, "-m", "celery", "-A", "health_app", "worker", "--without-gossip"]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-n", "tester@%h", "-Q", "requests", "--loglevel", "INFO"],
            env=environ(url),
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(url, "consuming")
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def send(url: str, task: str, words: str = "") -> None:
    """Put a message into `requests`; the words stand where nobody looks but the task."""
    message = envelope(task=task, id="id-1", payload={}, queue="requests", summary=words)
    with redis.Redis.from_url(url) as client:
        put(client, "requests", [New("id-1", message)])


def beat(url: str, node: str, *queues: str, age_s: float = 0.0, lease_s: float = 10.0) -> Beat:
    """Leave a beat that some worker might have left."""
    with redis.Redis.from_url(url) as client:
        at = client.time()[0] - age_s
        left = Beat(
            node=node,
            at=at,
            consumed_at=at,
            turned_at=at,
            lease_s=lease_s,
            queues=queues,
            in_flight=0,
            prefetch=4,
            pid=1,
            app="somebody",
            version="1",
        )
        client.hset(WORKERS_KEY, node, left.encode())
    return left


def test_a_worker_is_healthy_while_it_consumes_and_forgotten_when_it_has_stopped(
    redis_url: str, tmp_path: Path
) -> None:
    assert "no beat" in health(redis_url, "--node", "tester").stdout

    with worker(redis_url, tmp_path) as process:
        run = health(redis_url, "--node", "tester@%h")
        assert run.returncode == 0, run.stdout + run.stderr
        assert f"{NODE}: healthy: consuming requests" in run.stdout
        (node,) = report(redis_url, "--node", "tester")["nodes"]
        assert node["pid"] == process.pid
        assert node["queues"] == ["requests"]
        assert node["rss_bytes"] > 1_000_000
        assert health(redis_url, "--queue", "requests").returncode == 0
        assert health(redis_url, "--queue", "model.small").returncode == 1

        process.terminate()
        assert process.wait(20) == 0
        with redis.Redis.from_url(redis_url) as client:
            assert not client.hexists(WORKERS_KEY, NODE)
    assert health(redis_url, "--node", "tester").returncode == 1


def test_a_worker_that_finishes_its_calls_is_no_failure_until_it_has_ended(
    redis_url: str, tmp_path: Path
) -> None:
    begun, go_on = tmp_path / "begun", tmp_path / "go on"
    with worker(redis_url, tmp_path) as process, make_app("x", redis_url, current=False) as app:
        app.send_task("nap", [str(begun), str(go_on)], queue="requests")
        eventually(begun.exists)
        process.terminate()
        wait_until(redis_url, "stopping")
        run = health(redis_url, "--node", "tester")
        assert run.returncode == 0
        assert f"{NODE}: warning: it stops: 1 messages" in run.stdout
        # It takes nothing new, so somebody else must.
        assert health(redis_url, "--queue", "requests").returncode == 1

        go_on.touch()
        assert process.wait(20) == 0
        assert state(redis_url) == ""


def test_a_worker_that_is_stopped_by_the_system_is_silent_until_it_goes_on(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        wait_until(redis_url, "silent")
        run = health(redis_url, "--node", "tester")
        assert run.returncode == 1
        assert f"{NODE}: unhealthy: silent" in run.stdout

        process.send_signal(signal.SIGCONT)
        wait_until(redis_url, "consuming")
        assert health(redis_url, "--node", "tester").returncode == 0


def test_a_worker_whose_main_thread_hangs_is_unhealthy_until_it_turns_again(
    redis_url: str, tmp_path: Path
) -> None:
    go_on = tmp_path / "go on"
    with worker(redis_url, tmp_path):
        send(redis_url, "hang", str(go_on))
        wait_until(redis_url, "stuck")
        run = health(redis_url, "--node", "tester")
        assert run.returncode == 1
        assert f"{NODE}: unhealthy: its main thread hangs" in run.stdout

        go_on.touch()
        wait_until(redis_url, "consuming")


def test_a_worker_that_lives_but_does_not_listen_is_unhealthy(
    redis_url: str, tmp_path: Path
) -> None:
    with worker(redis_url, tmp_path) as process:
        send(redis_url, "deafen")
        wait_until(redis_url, "stalled")
        run = health(redis_url, "--node", "tester")
        assert run.returncode == 1
        assert "alive, but it has not looked for messages" in run.stdout
        assert process.poll() is None


def test_a_worker_whose_queue_was_taken_away_is_unhealthy(redis_url: str, tmp_path: Path) -> None:
    with worker(redis_url, tmp_path), make_app("operator", redis_url, current=False) as app:
        app.control.cancel_consumer("requests", reply=True)
        wait_until(redis_url, "paused")
        assert "consumes no queue" in health(redis_url, "--node", "tester").stdout

        app.control.add_consumer("requests", reply=True)
        wait_until(redis_url, "consuming")


def test_a_worker_beats_again_when_redis_is_back(tmp_path: Path) -> None:
    port = unused_port()
    server = EmbeddedRedis(tmp_path / "state", free_port=lambda: port)
    with server, worker(server.url, tmp_path) as process:
        url = server.url
        server.stop()
        run = health(url, "--node", "tester")
        assert run.returncode == 1
        assert f"broker: unhealthy: {url}: it can't be reached" in run.stdout
        assert report(url)["status"] == "unhealthy"
        # A container that is killed for it would lose its calls, and Redis is no nearer.
        assert health(url, "--node", "tester", "--liveness").returncode == 0

        server.start()
        with redis.Redis.from_url(url) as client:
            client.hdel(WORKERS_KEY, NODE)
        wait_until(url, "consuming")
        assert process.poll() is None


def test_a_redis_that_hangs_is_unhealthy_within_seconds(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "state") as server:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            run = health(server.url, "--node", "tester")
        finally:
            os.kill(server.pid, signal.SIGCONT)

        assert run.returncode == 1
        assert "it does not answer within 2 s" in run.stdout


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (("maxmemory", "1"), "no memory left"),
        (("replicaof", "127.0.0.1 {port}"), "replica"),
        (("min-replicas-to-write", "1"), "too few replicas"),
    ],
)
def test_a_redis_that_takes_no_writes_is_unhealthy(
    tmp_path: Path, setting: tuple[str, str], words: str
) -> None:
    with EmbeddedRedis(tmp_path / "state") as server, redis.Redis.from_url(server.url) as client:
        beat(server.url, "router@a", "requests")
        assert report(server.url)["healthy"]
        value = setting[1].format(port=unused_port())
        if setting[0] == "replicaof":
            client.execute_command("REPLICAOF", *value.split())
        else:
            client.config_set(setting[0], value)

        said = report(server.url)

        assert [each["about"] for each in said["findings"]] == ["broker"]
        assert words in said["findings"][0]["message"]
        # It could be read, and that is shown.
        assert [node["node"] for node in said["nodes"]] == ["router@a"]


def test_a_yard_without_workers_is_unhealthy_and_one_with_all_of_them_healthy(
    redis_url: str,
) -> None:
    assert [each["about"] for each in report(redis_url)["findings"]] == ["requests"]

    beat(redis_url, "router@a", "requests", "batch.requests")
    assert report(redis_url)["status"] == "healthy"
    assert health(redis_url).returncode == 0

    queue = model_queue("local-small", batch=True)
    body = {"messages": [{"role": "user", "content": ',"submitted_at":1'}], "submitted_at": 2.5}
    message = envelope(task="modelyard.call", id="1", payload=body, queue=queue, summary="")
    with redis.Redis.from_url(redis_url) as client:
        put(client, queue, [New("1", message)])
        now = client.time()[0]
    said = report(redis_url)
    assert [each["about"] for each in said["findings"]] == [queue]
    (waiting,) = [each for each in said["queues"] if each["queue"] == queue]
    assert (waiting["length"], waiting["consumers"]) == (1, 0)
    # When it was submitted is read from the message, and not from what its prompt says.
    assert now - 3 <= waiting["oldest_age_s"] <= now + 3

    beat(redis_url, "local-small@b", model_queue("local-small"), queue)
    assert report(redis_url)["healthy"]


def test_the_table_shows_workers_queues_and_what_is_wrong(redis_url: str) -> None:
    beat(redis_url, "router@a", "requests")
    beat(redis_url, "small@b", "model.small", age_s=100)

    run = health(redis_url, COLUMNS="100")

    assert run.returncode == 1
    for words in ("router@a", "consuming", "small@b", "silent", "model.small", "200,000"):
        assert words in run.stdout
    assert "unhealthy\n  small@b: silent for 10" in run.stdout


def test_claims_that_nobody_takes_over_and_dead_letters_at_the_limit_are_unhealthy(
    redis_url: str,
) -> None:
    beat(redis_url, "router@a", "requests", lease_s=LEASE_S)
    with redis.Redis.from_url(redis_url) as client:
        now_ms = 1000 * client.time()[0]
        client.zadd(LEASES_KEY, {"overdue": now_ms - 60_000, "held": now_ms + 60_000})
        for number in range(10):
            client.hset(DEAD_LETTERS_KEY, str(number), "{}")

    said = report(redis_url, MODELYARD_DEAD_LETTER_LIMIT="10")

    assert said["claims"] == {"count": 2, "overdue": 1}
    assert said["dead_letters"] == {"count": 10, "limit": 10}
    assert {each["about"] for each in said["findings"]} == {"claims", "dead letters"}
    # A longer lease that some worker has is honoured.
    beat(redis_url, "small@b", "model.small", lease_s=60)
    assert report(redis_url)["claims"]["overdue"] == 0


def test_what_was_taken_over_from_lost_workers_is_counted(redis_url: str) -> None:
    assert report(redis_url)["counters"] == {}
    with redis.Redis.from_url(redis_url) as client:
        put(client, "requests", [New("1", "{}"), New("2", "{}")])
        lost = Claims(client, lease_s=1.0, now_ms=lambda: 0)
        assert len(lost.claim([Want("requests", 2, 2)], 2)[0]) == 2
        assert len(Claims(client).take_over()) == 2
    assert report(redis_url)["counters"] == {"taken_over": 2}


def test_workers_are_forgotten_a_day_after_their_last_beat(redis_url: str) -> None:
    recent = beat(redis_url, "recent@a", "requests", age_s=FORGOTTEN_S - 60)
    beat(redis_url, "long-ago@a", "requests", age_s=FORGOTTEN_S + 1)

    snapshot = take_snapshot(redis_url)

    assert snapshot.beats == (recent,)
    with redis.Redis.from_url(redis_url) as client:
        assert client.hkeys(WORKERS_KEY) == [b"recent@a"]


def test_what_is_no_beat_is_told_and_hides_no_other(redis_url: str) -> None:
    router = beat(redis_url, "router@a", "requests")
    with redis.Redis.from_url(redis_url) as client:
        client.hset(WORKERS_KEY, "strange@a", "beat of another version")

    snapshot = take_snapshot(redis_url)

    assert snapshot.beats == (router,)
    assert snapshot.unreadable == ("strange@a",)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("", ["--node", "router"]),
        ("", []),
        ("amqp://localhost", ["--node", "router"]),
        ("redis://localhost:6379/0", ["--liveness"]),
        ("redis://localhost:6379/0", ["--colour"]),
    ],
)
def test_a_wrong_use_is_no_illness(url: str, options: list[str]) -> None:
    run = health(url, *options)

    assert run.returncode == 2
    assert run.stderr and "Traceback" not in run.stderr


def test_a_probe_of_one_worker_imports_no_celery_and_no_catalog(redis_url: str) -> None:
    beat(redis_url, NODE, "requests")
    script = (
        "import sys; sys.argv = ['modelyard', 'health', '--node', 'tester']\n"
        "import producer.__main__ as command\n"
        "try:\n    command.main()\n"
        "finally:\n    print(sorted({'celery', 'kombu', 'httpx', 'yaml'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env=environ(redis_url),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("[]\n")
