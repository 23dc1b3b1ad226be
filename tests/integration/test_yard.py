"""The yard: its children are kept running and stopped in order. They are small stand-ins here."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.connection import Connection
from waiting import eventually
from workers import CATALOG, KEY

from modelyard.client import Client
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.errors import BrokerUnavailable, ModelyardError, SettingsError
from modelyard.names import CLAIMS_KEY, LEASES_KEY
from modelyard.testing import FakeProvider, Gate, Reply
from producer.broker_check import wait_for_broker
from producer.children import ChildSpec, YardFailed, with_import_path
from producer.claims import restore_claims
from producer.private_yard import PrivateYard, yard_command
from producer.yard import Addresses, Yard

NO_BROKER = "redis://user:secret@127.0.0.1:1/0"

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only there killed yards tell workers")

OPEN_REDIS = """
import os, pathlib, signal, sys, time, redis
db = redis.Redis.from_url(os.environ["MODELYARD_BROKER_URL"])
"""
ENDS_AT_SIGTERM = (
    OPEN_REDIS
    + """
def finish(*_):
    time.sleep(0.2)  # a call in flight takes a moment to come back
    db.set("answer", "stored")
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
db.set("started", os.getpid())
signal.pause()
"""
)
IGNORES_SIGTERM = (
    OPEN_REDIS
    + """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
db.set("started", os.getpid())
while True: signal.pause()
"""
)
DIES_ONCE = (
    OPEN_REDIS
    + """
if db.incr("lives") == 1: sys.exit(7)
signal.pause()
"""
)


KILLED_ONCE = (
    OPEN_REDIS
    + """
if db.incr("lives") == 1: os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""
)
HOLDS_A_MESSAGE_AND_IS_KILLED = (
    OPEN_REDIS
    + """
from kombu import Connection
with Connection(
    os.environ["MODELYARD_BROKER_URL"], transport="modelyard.transport:Transport"
) as connection:
    queue = connection.SimpleQueue("model.small")
    if db.incr("lives") == 1:
        queue.put("paid for")
        queue.get(timeout=20)
        os.kill(os.getpid(), signal.SIGKILL)
    db.set("got", queue.get(timeout=20).payload)
    signal.pause()
"""
)

Process = subprocess.Popen[bytes]


def stand_in(code: str, name: str = "worker") -> ChildSpec:
    return ChildSpec(name, (sys.executable, "-c", code))


@contextmanager
def running(yard: Yard, notice: Callable[[str], None] = lambda _: None) -> Iterator[Addresses]:
    """The yard in a thread of its own, until the block ends; then its error, if it had one."""
    told: list[Addresses] = []
    failures: list[ModelyardError] = []
    stop = threading.Event()

    def run() -> None:
        try:
            yard.run(told.append, stop, notice=notice)
        except ModelyardError as failure:
            failures.append(failure)
        finally:
            stop.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        eventually(lambda: told or stop.is_set(), message="the yard is ready")
        if told:
            yield told[0]
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def get(url: str, key: str) -> str | None:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        value: Any = client.get(key)
        return None if value is None else str(value)


def stored(state_dir: Path, key: str) -> str | None:
    """What the Redis of a yard that has ended kept."""
    with EmbeddedRedis(state_dir, wait_s=30) as server:
        return get(server.url, key)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def yard_to_kill(command: Sequence[object], **env: str) -> Iterator[tuple["Process", str]]:
    """The process of a yard, to be killed, and the address of its Redis."""
    with subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=with_import_path({**os.environ, **env}),
    ) as yard:
        assert yard.stdout is not None
        yield yard, json.loads(yard.stdout.readline())["ready"]["broker_url"]


@pytest.fixture(autouse=True)
def some_redis_is_here(redis_server: EmbeddedRedis) -> None:
    """Where no Redis can be started these tests say so in one way: see `redis_server`."""


def test_workers_finish_what_they_have_before_redis_ends(tmp_path: Path) -> None:
    yard = Yard(None, tmp_path, [], flower=False, workers=[stand_in(ENDS_AT_SIGTERM)])
    with running(yard) as addresses:
        eventually(lambda: get(addresses.broker_url, "started"))
        assert addresses.redis is not None
        assert get(addresses.broker_url, "answer") is None
    assert stored(tmp_path, "answer") == "stored"


def test_a_worker_that_does_not_finish_in_time_is_killed(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    yard = Yard(
        redis_url, tmp_path, [], flower=False, grace_s=0.2, workers=[stand_in(IGNORES_SIGTERM)]
    )
    with running(yard):
        pid = int(eventually(lambda: get(redis_url, "started")) or 0)
    assert not is_running(pid)
    assert f"killing worker (process {pid})" in caplog.text


def test_a_worker_that_dies_is_started_again(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    yard = Yard(redis_url, tmp_path, [], flower=False, workers=[stand_in(DIES_ONCE)])
    with running(yard):
        eventually(lambda: get(redis_url, "lives") == "2")
    assert "worker died" in caplog.text
    assert "(exit code 7); starting it again in 0.5 s" in caplog.text


def test_a_worker_that_keeps_dying_fails_the_yard_and_shows_why(
    tmp_path: Path, redis_url: str
) -> None:
    hopeless = ChildSpec("worker", ("/bin/sh", "-c", "echo no such model; exit 3"))
    yard = Yard(
        redis_url,
        tmp_path,
        [],
        flower=False,
        workers=[hopeless],
        clock=lambda: 5 * time.monotonic(),
    )
    with pytest.raises(YardFailed, match=r"(?s)worker died 5 times.*exit code 3.*no such model"):
        yard.run(lambda _: None, threading.Event())


def test_a_redis_that_dies_comes_back_at_its_address(tmp_path: Path) -> None:
    with running(Yard(None, tmp_path, [], flower=False, workers=[])) as addresses:
        with redis.Redis.from_url(addresses.broker_url) as client:
            client.set("request", "accepted")
            info: Any = client.info("server")
        os.kill(info["process_id"], signal.SIGKILL)

        def answers() -> bool:
            try:
                return get(addresses.broker_url, "request") == "accepted"
            except redis.ConnectionError:
                return False

        eventually(answers)


def test_flower_moves_when_its_port_is_taken(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        yard = Yard(
            redis_url,
            tmp_path,
            [],
            flower=True,
            flower_port=taken,
            python="true",
            workers=[],
        )
        with running(yard) as addresses:
            assert addresses.flower is not None
            assert addresses.flower.startswith("http://127.0.0.1:")
            assert not addresses.flower.endswith(f":{taken}")


def test_a_dead_broker_is_said_at_once_and_without_its_password(tmp_path: Path) -> None:
    yard = Yard(NO_BROKER, tmp_path, [], flower=False, broker_wait_s=0.1, workers=[])
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1/0.*does not answer") as dead:
        yard.run(lambda _: pytest.fail("it is not ready"), threading.Event())
    assert "secret" not in str(dead.value)


@pytest.mark.parametrize("url", ["", "localhost:6379", "amqp://localhost", "redis://h:port/0"])
def test_an_address_that_is_no_redis_is_a_wrong_setting(tmp_path: Path, url: str) -> None:
    yard = Yard(url, tmp_path, [], flower=False, workers=[])
    with pytest.raises(SettingsError, match="MODELYARD_BROKER_URL"):
        yard.run(lambda _: pytest.fail("it is not ready"), threading.Event())


def test_a_broker_may_take_a_moment_to_answer(tmp_path: Path, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unopened:
        port = unopened.getsockname()[1]
    real = int(redis_url.rsplit(":", 1)[1].removesuffix("/0"))
    asked: list[float] = []

    def clock() -> float:  # the broker is there after the second question
        asked.append(time.monotonic())
        if len(asked) == 3:
            threading.Thread(target=forward_one, args=(port, real), daemon=True).start()
        return asked[-1]

    wait_for_broker(f"redis://127.0.0.1:{port}/0", wait_s=20, clock=clock)
    assert len(asked) >= 3


def forward_one(port: int, to: int) -> None:
    """Pass one connection to `port` on to another, as far as a few short commands need."""
    with socket.create_server(("127.0.0.1", port)) as door:
        client, _ = door.accept()
        with client, socket.create_connection(("127.0.0.1", to)) as server:
            while asked := client.recv(4096):
                server.sendall(asked)
                client.sendall(server.recv(4096))


@pytest.mark.parametrize("own_redis", [True, False])
def test_a_worker_that_was_killed_is_told_to_people(
    tmp_path: Path, redis_url: str, own_redis: bool
) -> None:
    told: list[str] = []
    url = None if own_redis else redis_url
    yard = Yard(url, tmp_path, [], flower=False, workers=[stand_in(KILLED_ONCE, "local-large")])
    with running(yard, told.append) as addresses:
        eventually(lambda: get(addresses.broker_url, "lives") == "2")
    assert told == [
        "local-large was killed by SIGKILL and is started again; what it had in flight goes to "
        "others when its lease ends"
        + (", or at once when the run is started again" if own_redis else "")
    ]


def test_when_all_workers_of_a_private_yard_are_dead_their_messages_come_back_at_once(
    tmp_path: Path,
) -> None:
    worker = stand_in(HOLDS_A_MESSAGE_AND_IS_KILLED)
    with running(Yard(None, tmp_path, [], flower=False, private=True, workers=[worker])) as yard:
        eventually(lambda: get(yard.broker_url, "got") == "paid for")


def test_sigterm_stops_a_yard_in_order(tmp_path: Path) -> None:
    command = [sys.executable, stand_in_yard(tmp_path), tmp_path / "state"]
    with yard_to_kill(command) as (yard, url):
        eventually(lambda: get(url, "started"))
        yard.terminate()
        assert yard.wait(30) == 0
    assert stored(tmp_path / "state", "answer") == "stored"


@LINUX
def test_a_yard_that_is_killed_lets_its_workers_store_what_they_finish(tmp_path: Path) -> None:
    command = [sys.executable, stand_in_yard(tmp_path), tmp_path / "state"]
    with yard_to_kill(command) as (yard, url):
        eventually(lambda: get(url, "started"))
        yard.kill()
    assert stored(tmp_path / "state", "answer") == "stored"


@LINUX
def test_a_yard_that_is_killed_pays_for_nothing_twice(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(CATALOG)
    state = tmp_path / "state"
    command = yard_command(state, ["small"], catalog=catalog, processes=1, lock_wait_s=0)
    gate = Gate()
    told: list[str] = []

    def open_gate(line: str) -> None:
        told.append(line)
        gate.open()

    with FakeProvider(api_key=KEY) as fake, pytest.MonkeyPatch.context() as environ:
        environ.setenv("FAKE_URL", fake.base_url)
        environ.setenv("FAKE_KEY", KEY)
        environ.setenv("MODELYARD_CATALOG", str(catalog))
        fake.always("provider-small", Reply(text="paid once", gate=gate))
        with yard_to_kill(command) as (yard, url), Client(url) as client:
            id = client.submit("Summarize: a story", models=["small"]).id
            fake.wait_until(lambda fake: fake.in_flight == 1, timeout_s=60)
            yard.kill()
        with (
            PrivateYard(state, ["small"], command=command, on_notice=open_gate) as addresses,
            Client(addresses.broker_url) as client,
        ):
            assert client.handle(id).result(30).text == "paid once"
            # The router and the pool are there: whatever was left behind would be called by now.
            assert client.submit("Summarize: another", models=["small"]).result(60).text
        assert len(fake.calls) == 2
    assert "waiting for the earlier run to finish what is in flight" in told[0]


def stand_in_yard(tmp_path: Path) -> Path:
    """A program like `python -m producer.yard` whose only worker is a stand-in."""
    script = tmp_path / "stand_in_yard.py"
    script.write_text(
        "import pathlib, sys\n"
        "from producer.children import ChildSpec\n"
        "from producer.yard import Yard, serve\n"
        f"worker = ChildSpec('worker', (sys.executable, '-c', {ENDS_AT_SIGTERM!r}))\n"
        "sys.exit(serve(Yard(None, pathlib.Path(sys.argv[1]), [], flower=False,\n"
        "                    lock_wait_s=30, workers=[worker])))\n"
    )
    return script


def private_yard(tmp_path: Path, **options: Any) -> PrivateYard:
    command = [sys.executable, str(stand_in_yard(tmp_path)), str(tmp_path / "state")]
    return PrivateYard(tmp_path / "state", ["small"], command=command, **options)


def test_a_private_yard_ends_with_its_command_and_keeps_what_it_finished(tmp_path: Path) -> None:
    with private_yard(tmp_path) as addresses:
        eventually(lambda: get(addresses.broker_url, "started"))
    assert stored(tmp_path / "state", "answer") == "stored"


def test_a_command_that_is_killed_loses_no_call_in_flight(tmp_path: Path) -> None:
    stand_in_yard(tmp_path)
    command = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, time\n"
            "from producer.private_yard import PrivateYard\n"
            "script, state = sys.argv[1:]\n"
            "yard = PrivateYard(pathlib.Path(state), [], command=[sys.executable, script, state])\n"
            "with yard as addresses:\n"
            "    print(addresses.broker_url, flush=True)\n"
            "    time.sleep(600)\n",
            str(tmp_path / "stand_in_yard.py"),
            str(tmp_path / "state"),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=with_import_path(os.environ),
    )
    with command:
        assert command.stdout is not None
        url = command.stdout.readline().strip()
        eventually(lambda: get(url, "started"))
        command.kill()
    notices: list[str] = []

    def reply(notice: str) -> None:
        notices.append(notice)

    with private_yard(tmp_path, on_notice=reply) as addresses:
        assert get(addresses.broker_url, "answer") == "stored"
    assert "waiting for the earlier run to finish what is in flight" in notices[0]


def test_a_private_yard_that_can_not_start_says_why(tmp_path: Path) -> None:
    failing = PrivateYard(
        tmp_path, ["small"], command=[sys.executable, "-c", "raise SystemExit('boom')"]
    )
    with pytest.raises(YardFailed, match=r"(?s)exit code 1.*boom"), failing:
        pass


def test_a_private_yard_passes_on_that_its_folder_is_in_use(tmp_path: Path) -> None:
    command = yard_command(tmp_path, ["small"], catalog=None, processes=1, lock_wait_s=0)
    yard = PrivateYard(tmp_path, ["small"], command=command)
    in_use = pytest.raises(YardFailed, match=f"process {os.getpid()}")
    with EmbeddedRedis(tmp_path), in_use, yard:
        pass


def test_a_command_hears_of_a_worker_that_was_killed(tmp_path: Path) -> None:
    told: list[str] = []
    yard = private_yard(tmp_path, on_notice=told.append)
    with yard as addresses:
        worker = int(eventually(lambda: get(addresses.broker_url, "started")) or 0)
        os.kill(worker, signal.SIGKILL)

        def is_told() -> bool:
            yard.check()
            return bool(told)

        eventually(is_told)
    assert "worker was killed by SIGKILL and is started again" in told[0]


def test_a_temporary_yard_removes_its_state_although_its_command_was_killed(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    command = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, time\n"
            "from producer.private_yard import PrivateYard\n"
            "with PrivateYard(pathlib.Path(sys.argv[1]), ['local-small'], remove_state=True):\n"
            "    print('ready', flush=True)\n"
            "    time.sleep(600)\n",
            str(state),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=with_import_path(os.environ),
    )
    with command:
        assert command.stdout is not None
        assert command.stdout.readline() == "ready\n"
        assert (state / "redis").is_dir()
        command.kill()
    eventually(lambda: not state.exists(), timeout_s=60)


def test_a_command_notices_that_its_yard_is_gone(tmp_path: Path) -> None:
    yard = private_yard(tmp_path)
    with yard:
        yard.check()
        assert yard.pid is not None
        os.kill(yard.pid, signal.SIGKILL)

        def fails() -> bool:
            try:
                yard.check()
            except YardFailed as failure:
                return "killed by SIGKILL" in str(failure)
            return False

        eventually(fails)


def test_messages_of_a_killed_worker_are_queued_again_in_their_order(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "modelyard.yard")
    numbers = [1, 2, 3]
    with Connection(redis_url) as connection, connection.SimpleQueue("model.small") as queue:
        for number in numbers:
            queue.put({"number": number})
    worker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from kombu import Connection\n"
            "transport = 'modelyard.transport:Transport'\n"
            "with Connection(sys.argv[1], transport=transport) as connection:\n"
            "    queue = connection.SimpleQueue('model.small')\n"
            "    held = [queue.get(timeout=20) for _ in range(2)]\n"
            "    print('held', flush=True)\n"
            "    time.sleep(600)\n",
            redis_url,
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "held\n"
        worker.kill()

    with redis.Redis.from_url(redis_url) as client:
        taken = client.hlen(CLAIMS_KEY)
        assert restore_claims(redis_url) == taken >= 2
        assert client.exists(CLAIMS_KEY, LEASES_KEY) == 0

    assert f"{taken} messages" in caplog.text
    assert restore_claims(redis_url) == 0
    with Connection(redis_url) as connection, connection.SimpleQueue("model.small") as queue:
        messages = [queue.get(timeout=5) for _ in numbers]
        assert [message.payload["number"] for message in messages] == numbers
        for message in messages:
            message.ack()
