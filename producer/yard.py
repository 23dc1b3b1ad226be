"""The whole yard on one machine: Redis, router, model pools and Flower as child processes.

`modelyard up` runs a `Yard` in the foreground. `python -m producer.yard` is the private one of a
command such as `modelyard summarize`: see `producer.private_yard`, its other end.
"""

import argparse
import json
import logging
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from kombu.exceptions import OperationalError
from redis import RedisError

from modelyard.catalog import Catalog
from modelyard.catalog_follower import LOOK_EVERY_S, CatalogFollower
from modelyard.embedded_redis import EmbeddedRedis, unused_port
from modelyard.errors import EmbeddedRedisError, ModelyardError
from modelyard.processes import log_tail, private_folder
from modelyard.settings import config_dir, load_settings
from producer.autoscale import Autoscaler, Reader, Scale, pools_of
from producer.broker_check import wait_for_broker
from producer.children import (
    EARLY_DEATHS,
    EARLY_S,
    POLL_S,
    Children,
    ChildSpec,
    Health,
    YardFailed,
    child_environment,
)
from producer.claims import restore_claims
from producer.commands import FLOWER, flower_command, model_command, node_name, router_command
from producer.stop_signals import StopSignals, set_when_closed

log = logging.getLogger("modelyard.yard")

FLOWER_PORT: Final = 5555
FLOWER_GRACE_S: Final = 5.0
BROKER_WAIT_S: Final = 5.0
"""How long a broker that was given may be away at the start, in seconds."""
GRACE_MARGIN_S: Final = 15.0
"""What a worker gets beyond its own grace to hand back its messages and end, in seconds."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the yard that runs can be reached. `redis` and `flower` are None without one."""

    broker_url: str
    redis: str | None
    flower: str | None
    logs: str


class Yard:
    """Runs everything on this machine until it is told to stop.

    `broker_url` None starts a Redis in `state_dir`; a second yard there waits up to `lock_wait_s`
    for the first to end, and as long as need be for what a first that was killed left in flight.
    A given broker must answer within `broker_wait_s`. `processes` is the number of workers per
    model. `grace_s` is how long workers may finish what is in flight; by default
    `MODELYARD_SHUTDOWN_GRACE_S` and a margin. `private` says that nobody else is told the address
    of our Redis, so that all of its workers are ours. `workers` replaces the router and the model
    pools, for tests and for unusual yards. With `scale`, the models' pools have `processes` at
    least, and more as their load wants. With `follows`, models that come into the catalog, which
    that one was read from its file, get pools as well.
    """

    def __init__(
        self,
        broker_url: str | None,
        state_dir: Path,
        models: Sequence[str],
        *,
        flower: bool,
        flower_port: int = FLOWER_PORT,
        python: str = sys.executable,
        catalog: Path | None = None,
        processes: int = 1,
        loglevel: str = "INFO",
        grace_s: float | None = None,
        lock_wait_s: float = 0.0,
        broker_wait_s: float = BROKER_WAIT_S,
        private: bool = False,
        workers: Sequence[ChildSpec] | None = None,
        scale: Scale | None = None,
        follows: Catalog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scale = scale
        self._follows = follows
        self._served = set(models)
        self._rescale: Callable[[Catalog], None] = lambda _: None
        self._processes = processes
        self._loglevel = loglevel
        self._broker_url = broker_url
        self._state_dir = state_dir.expanduser().resolve()
        self._flower = flower
        self._flower_port = flower_port
        self._python = python
        self._catalog = catalog
        self._pool = partial(
            pool_specs,
            processes=processes,
            python=python,
            loglevel=loglevel,
            numbered=scale is not None,
        )
        router = ChildSpec("router", tuple(router_command(python=python, loglevel=loglevel)))
        pools = (spec for model in models for spec in self._pool(model))
        self._workers = (router, *pools) if workers is None else tuple(workers)
        self._grace_s = (
            load_settings().shutdown_grace_s + GRACE_MARGIN_S if grace_s is None else grace_s
        )
        self._lock_wait_s = lock_wait_s
        self._broker_wait_s = broker_wait_s
        self._private = private
        self._clock = clock

    @property
    def log_dir(self) -> Path:
        """Where each part writes `<name>.log`."""
        return self._state_dir / "logs"

    def remove_state(self) -> None:
        """Remove the state folder of a yard that has ended."""
        try:
            shutil.rmtree(self._state_dir)
        except OSError as error:
            log.warning("%s could not be removed (%s) and can be deleted", self._state_dir, error)

    def run(
        self,
        ready: Callable[[Addresses], None],
        stop: threading.Event,
        *,
        notice: Callable[[str], None] = lambda _: None,
        stop_when_stdin_closes: bool = False,
    ) -> None:
        """Start all, call `ready`, keep all running until `stop` is set, then stop all in order.

        In the main thread SIGINT, SIGTERM and SIGHUP stop it too, and a second one stops it at
        once. `stop_when_stdin_closes` begins an orderly stop when nobody holds the other end of
        standard input any more. `notice` gets a line when something takes long or died, or a
        pool has another size. Raises
        `EmbeddedRedisError`, for a broker that was given `BrokerUnavailable` or `SettingsError`,
        and, when a part can't be kept running, `YardFailed`.
        """
        with ExitStack() as stack:
            signals = stack.enter_context(StopSignals())
            if stop_when_stdin_closes:
                set_when_closed(sys.stdin.fileno(), stop)

            def stopping() -> bool:
                return stop.is_set() or signals.count > 0

            try:
                redis = self._start_redis(stack, notice, stopping)
                self._start_children(stack, redis, ready, signals, notice)
                size_pools = self._start_scaling(stack, redis, notice)
                self._watch(redis, stopping, self._start_following(), size_pools)
            except EmbeddedRedisError as error:
                if not stopping():
                    raise
                log.info("%s", error)
            finally:
                stop.set()

    def _start_redis(
        self, stack: ExitStack, notice: Callable[[str], None], stopping: Callable[[], bool]
    ) -> EmbeddedRedis | None:
        if self._broker_url is not None:
            wait_for_broker(
                self._broker_url,
                wait_s=self._broker_wait_s,
                cancelled=stopping,
                clock=self._clock,
            )
            return None

        def waiting(line: str) -> None:
            log.info("%s", line)
            notice(line)

        redis = EmbeddedRedis(
            self._state_dir,
            wait_s=self._lock_wait_s,
            # Should we be killed, the workers finish what they have in hand, as at an orderly stop.
            drain_s=self._grace_s,
            on_wait=waiting,
            cancelled=stopping,
            clock=self._clock,
        )
        stack.enter_context(redis)
        # The state folder is locked and the server is new: no worker knows its address yet.
        restore_claims(redis.url)
        return redis

    def _start_children(
        self,
        stack: ExitStack,
        redis: EmbeddedRedis | None,
        ready: Callable[[Addresses], None],
        signals: StopSignals,
        notice: Callable[[str], None],
    ) -> None:
        url = redis.url if redis is not None else self._broker_url
        assert url is not None
        env = child_environment(os.environ, broker_url=url, catalog=self._catalog)
        port = free_port_from(self._flower_port) if self._flower else None
        flower = [] if port is None else [flower_spec(port, self._python)]
        self._flower_child = Children(flower, log_dir=self.log_dir, env=env, clock=self._clock)
        self._worker_children = Children(
            self._workers,
            log_dir=self.log_dir,
            env=env,
            descriptors=() if redis is None else redis.descriptors,
            on_death=lambda line: notice(f"{line}; {comes_back(own_redis=redis is not None)}"),
            on_all_dead=lambda: self._queue_again(redis),
            clock=self._clock,
        )
        # The workers end first and Redis last: they store what they finish.
        stack.callback(self._flower_child.stop, FLOWER_GRACE_S)
        self._flower_child.start()
        stack.callback(self._stop_workers, signals)
        self._worker_children.start()
        ready(
            Addresses(
                broker_url=url,
                redis=None if redis is None else str(redis.binary),
                flower=None if port is None else f"http://127.0.0.1:{port}",
                logs=str(self.log_dir),
            )
        )

    def _start_scaling(
        self, stack: ExitStack, redis: EmbeddedRedis | None, notice: Callable[[str], None]
    ) -> Callable[[], None]:
        """Return what sizes the pools, if they are sized."""
        scale, url = self._scale, self._broker_url if redis is None else redis.url
        if scale is None:
            return lambda: None
        assert url is not None
        spec = partial(model_spec, python=self._python, loglevel=self._loglevel)
        pools = pools_of(scale, self._processes, spec)
        scaler = Autoscaler(pools, self._worker_children, notice=notice, clock=self._clock)
        reader = stack.enter_context(Reader(scale.reading(url)))

        def size() -> None:
            numbers = reader.take()
            if numbers is not None:
                scaler.apply(numbers)

        def rescale(catalog: Catalog) -> None:
            changed = replace(scale, catalog=catalog)
            scaler.size(pools_of(changed, self._processes, spec))
            reader.reads(changed.reading(url))

        self._rescale = rescale
        return size

    def _start_following(self) -> Callable[[], None]:
        """Return what looks at the catalog file now and then, if it is followed."""
        if self._follows is None:
            return lambda: None
        settings = load_settings()
        if self._catalog is not None:
            settings = settings.model_copy(update={"catalog": self._catalog})
        follower = CatalogFollower(settings, self._follows, self._serve)
        look_at = self._clock()

        def look() -> None:
            nonlocal look_at
            if self._clock() >= look_at:
                look_at = self._clock() + LOOK_EVERY_S
                follower.look()

        return look

    def _serve(self, catalog: Catalog) -> None:
        """Start pools for models that are new. The others' workers follow the file themselves.

        Those of a model that is gone empty its queue. One of them that dies knows nothing of the
        model when it is started again, and the yard does without.
        """
        live = {model.name for model in catalog.live_models}
        self._worker_children.need(live)
        running = self._worker_children.names()
        for name in sorted(live - self._served):
            for spec in self._pool(name):
                if spec.name not in running:
                    self._worker_children.add(spec)
        self._served = live
        self._rescale(catalog)

    def _watch(
        self,
        redis: EmbeddedRedis | None,
        stopping: Callable[[], bool],
        follow: Callable[[], None],
        size_pools: Callable[[], None],
    ) -> None:
        health, alive_since = Health(), self._clock()
        while not stopping():
            if redis is not None and not redis.alive:
                health = health.after_death(self._clock() - alive_since)
                if health.hopeless:
                    raise YardFailed(
                        f"redis-server died {EARLY_DEATHS} times within {EARLY_S:g} s of its "
                        f"start. The end of {redis.log_path}:\n{log_tail(redis.log_path)}"
                    )
                redis.revive()
                alive_since = self._clock()
            self._worker_children.watch()
            self._flower_child.watch()
            follow()
            size_pools()
            # Not stop.wait(): a signal handler could find its lock taken by the code it broke into.
            time.sleep(POLL_S)

    def _queue_again(self, redis: EmbeddedRedis | None) -> None:
        """Give back at once what workers had in hand that are all dead, if all of them are ours."""
        if redis is None or not self._private:
            return
        try:
            restore_claims(redis.url)
        except (OperationalError, RedisError, OSError) as error:
            log.warning("what was in flight comes back when its lease ends: %s", error)

    def _stop_workers(self, signals: StopSignals) -> None:
        log.info("stopping; what is in flight has up to %g s to finish", self._grace_s)
        self._worker_children.stop(self._grace_s, hurry=lambda: signals.count > 1)


def comes_back(*, own_redis: bool) -> str:
    """Return when what a dead worker had in flight is done again, for people."""
    later = "what it had in flight goes to others when its lease ends"
    return f"{later}, or at once when the run is started again" if own_redis else later


def pool_specs(
    model: str, *, processes: int, python: str, loglevel: str, numbered: bool = False
) -> tuple[ChildSpec, ...]:
    """Return the workers of a model. They have numbers if there are, or may be, several."""
    one = processes == 1 and not numbered
    numbers: Sequence[int | None] = [None] if one else range(1, processes + 1)
    return tuple(model_spec(model, number, python=python, loglevel=loglevel) for number in numbers)


def model_spec(model: str, number: int | None, *, python: str, loglevel: str) -> ChildSpec:
    """Return how one worker of a model runs."""
    command = model_command(model, process=number, python=python, loglevel=loglevel)
    return ChildSpec(node_name(model, number), tuple(command), model=model)


def flower_spec(port: int, python: str) -> ChildSpec:
    """Return how Flower runs here; the yard goes on when it can't."""
    config = config_dir() / "flowerconfig.py"
    command = flower_command(port, config=config if config.is_file() else None, python=python)
    return ChildSpec(FLOWER, tuple(command), essential=False)


def free_port_from(wanted: int) -> int:
    """Return `wanted` if a server could listen there on 127.0.0.1, else a port that is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            port = unused_port()
            log.info("port %d: %s; Flower is on port %d", wanted, error.strerror, port)
            return port
        return wanted


def serve(yard: Yard, *, remove_state: bool = False) -> int:
    """Run a yard for the process at the other end of our pipes; return the exit code.

    It lives as long as standard input is open. When it has ended in order it removes its state, if
    it should `remove_state`: whoever else would do it may be dead. On standard output it says one
    JSON object per line: `{"ready": Addresses}` once, `{"notice": TEXT}` any number of times
    before and after it, and `{"error": TEXT}` at last if it fails.
    """
    private_folder(yard.log_dir)
    try:
        yard.run(
            ready=lambda addresses: say({"ready": asdict(addresses)}),
            stop=threading.Event(),
            notice=lambda line: say({"notice": line}),
            stop_when_stdin_closes=True,
        )
    except ModelyardError as error:
        log.error("%s", error)
        say({"error": str(error)})
        return 1
    if remove_state:
        yard.remove_state()
    return 0


def say(what: Mapping[str, Any]) -> None:
    """Write one line of JSON to standard output, if anybody still listens."""
    try:
        os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")
    except BrokenPipeError:
        log.debug("nobody listens any more")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a private yard, with a Redis of its own, as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m producer.yard",
        description="A yard that lives as long as its standard input is open.",
    )
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--model", action="append", dest="models", required=True)
    parser.add_argument("--catalog", type=Path)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--lock-wait-s", type=float, default=0.0)
    parser.add_argument("--flower", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--remove-state", action="store_true")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return serve(
        Yard(
            None,
            options.state_dir,
            options.models,
            flower=options.flower,
            catalog=options.catalog,
            processes=options.processes,
            lock_wait_s=options.lock_wait_s,
            private=True,
        ),
        remove_state=options.remove_state,
    )


if __name__ == "__main__":
    sys.exit(main())
