"""Where the CPU time of a request goes in modelyard: stages timed inside the real processes.

    python -m benchmarks stages

A probe is put around the functions of each stage, in the client and in both workers, and counts
the CPU time of its own thread while it runs, without what probes inside it count. What no probe
sees of a thread's time is that thread's rest. The probes cost time themselves: the probed run's
total is reported beside the one without probes.

As `python -m benchmarks.stages PART FILE CELERY-ARGUMENTS...` it is a worker with probes: SIGRTMIN
sets its counts to zero, and SIGRTMIN+1 writes them to FILE.
"""

import functools
import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import at_once
from benchmarks.results import markdown_table, stamp
from benchmarks.system import System, running
from benchmarks.yard import OURS

REQUESTS = 2_000

Probes = tuple[tuple[str, str], ...]
"""Pairs of a stage and a function's place, `module:name` or `module:Class.name`."""

BROKER: Probes = (
    ("claim messages (one script for many)", "modelyard.transport:Channel._claim"),
    ("read the envelopes", "modelyard.handover:Handover.deliver"),
    ("wake up, look for messages", "modelyard.transport:Channel._brpop_read"),
    ("wake up, look for messages", "modelyard.transport:Channel._brpop_start"),
    ("events", "celery.events.dispatcher:EventDispatcher.send"),
    ("events", "celery.events.dispatcher:EventDispatcher.flush"),
)
PROBES: Mapping[str, Probes] = {
    "client": (
        ("check the request", "modelyard.client:prepare"),
        ("encode the message", "modelyard.submission:envelope"),
        ("publish", "modelyard.outbox:Outbox.put"),
        ("hear that it is answered", "modelyard.waiter:Waiter._hear"),
        ("fetch the answer", "modelyard.waiter:Waiter._read"),
        ("decode the answer", "modelyard.expected:read_outcome"),
    ),
    "router": (
        *BROKER,
        ("read the request", "router_worker.batch:argument"),
        ("read the request", "modelyard.messages:Request.decode"),
        ("decide", "router_worker.forward:decide"),
        ("encode the call", "router_worker.batch:envelope"),
        ("move the calls on (one script for all)", "modelyard.claims:Claims.settle"),
        ("route, the rest", "router_worker.batch:Batch.flush"),
    ),
    "pool": (
        *BROKER,
        ("log lines", "logging:Logger._log"),
        ("Celery's request object", "celery.worker.strategy:default"),
        ("hand over to the loop", "model_workers.pool:AsyncioPool.on_apply"),
        ("callbacks after the task", "model_workers.pool:AsyncioPool._tell"),
        ("read the call", "model_workers.task:Call.decode"),
        ("run the task", "model_workers.pool:AsyncioPool._execute"),
        ("advance, make the answer", "model_workers.caller:advance"),
        ("advance, make the answer", "model_workers.exits:to_answer"),
        ("advance, make the answer", "model_workers.exits:answered"),
        ("call over HTTP", "model_workers.providers.openai:OpenAI.complete"),
        ("commit the outcomes (one script for all)", "model_workers.committer:Committer._commit"),
    ),
}
FACTORIES = {"celery.worker.strategy:default"}
"""What returns the function to be timed."""
COROUTINES = {
    "model_workers.pool:AsyncioPool._execute",
    "model_workers.providers.openai:OpenAI.complete",
}
CLASS_METHODS = {"model_workers.task:Call.decode", "modelyard.messages:Request.decode"}


class Counts:
    """CPU nanoseconds by kind of thread and stage."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._tables: list[tuple[str, defaultdict[str, int]]] = []  # one a thread: no locks
        self._before: dict[int, int] = {}

    def enter(self) -> None:
        """Begin a stage in this thread."""
        local = self._local
        if not hasattr(local, "stack"):
            local.stack, local.spent = [], defaultdict(int)
            self._tables.append((kind(threading.current_thread().name), local.spent))
        local.stack.append([0, time.thread_time_ns()])

    def leave(self, stage: str) -> None:
        """End the stage that was begun last in this thread."""
        local = self._local
        inside, began = local.stack.pop()
        whole = time.thread_time_ns() - began
        local.spent[stage] += whole - inside
        if local.stack:
            local.stack[-1][0] += whole

    def reset(self) -> None:
        """Forget all that was counted."""
        for _, spent in self._tables:
            spent.clear()
        self._before = thread_cpu_ns()

    def read(self) -> dict[str, dict[str, float]]:
        """Return CPU seconds by kind of thread and stage, with each kind's `rest`."""
        result: dict[str, defaultdict[str, float]] = {}
        names = {each.native_id: each.name for each in threading.enumerate()}
        for id, now in thread_cpu_ns().items():
            stages = result.setdefault(kind(names.get(id, "")), defaultdict(float))
            stages["rest"] += (now - self._before.get(id, 0)) / 1e9
        for thread, spent in self._tables:
            for stage, nanoseconds in spent.items():
                result[thread][stage] += nanoseconds / 1e9
                result[thread]["rest"] -= nanoseconds / 1e9
        return {thread: dict(stages) for thread, stages in result.items()}


def kind(name: str) -> str:
    """Return what a thread of this name is called in the table."""
    known = {
        "MainThread": "main",
        "asyncio-pool": "loop",
        "modelyard-waiter": "waiter",
        "committer": "committer",
    }
    return "finishers" if name.startswith("finisher") else known.get(name, "other threads")


def thread_cpu_ns() -> dict[int, int]:
    """Return the CPU nanoseconds of each Python thread of this process, by its native id."""
    return {
        each.native_id: time.clock_gettime_ns(time.pthread_getcpuclockid(each.ident))
        for each in threading.enumerate()
        if each.ident is not None and each.native_id is not None
    }


class Steps:
    """An awaitable whose every step on the loop is timed, and not the waits between them."""

    def __init__(self, coroutine: Any, counts: Counts, stage: str) -> None:
        self._coroutine, self._counts, self._stage = coroutine, counts, stage

    def __await__(self) -> Generator[Any, Any, Any]:
        send, argument = self._coroutine.send, None
        while True:
            self._counts.enter()
            try:
                waits_for = send(argument)
            except StopIteration as end:
                return end.value
            finally:
                self._counts.leave(self._stage)
            try:
                send, argument = self._coroutine.send, (yield waits_for)
            except BaseException as error:  # noqa: BLE001 - thrown on into the coroutine
                send, argument = self._coroutine.throw, error


def timed(function: Callable[..., Any], counts: Counts, stage: str) -> Callable[..., Any]:
    """Return the function with a probe around it."""

    @functools.wraps(function)
    def probe(*args: Any, **kwargs: Any) -> Any:
        counts.enter()
        try:
            return function(*args, **kwargs)
        finally:
            counts.leave(stage)

    return probe


def timed_coroutine(function: Callable[..., Any], counts: Counts, stage: str) -> Any:
    """Return the coroutine function with a probe around each of its steps."""

    @functools.wraps(function)
    async def probe(*args: Any, **kwargs: Any) -> Any:
        return await Steps(function(*args, **kwargs), counts, stage)

    return probe


def put_probes(part: str, counts: Counts) -> Callable[[], None]:
    """Put the part's probes into this process; call what is returned to take them out."""
    undo: list[tuple[Any, str, Any]] = []
    for stage, place in PROBES[part]:
        owner, name, original = find(stage, place)
        undo.append((owner, name, vars(owner).get(name, original)))
        if place in COROUTINES:
            probe: Any = timed_coroutine(original, counts, stage)
        elif place in CLASS_METHODS:
            probe = staticmethod(timed(original, counts, stage))
        elif place in FACTORIES:
            probe = functools.partial(_timed_product, original, counts, stage)
        else:
            probe = timed(original, counts, stage)
        setattr(owner, name, probe)

    def take_out() -> None:
        for owner, name, original in undo:
            setattr(owner, name, original)

    return take_out


def find(stage: str, place: str) -> tuple[Any, str, Callable[..., Any]]:
    """Return what holds a stage's function, its name there and itself.

    Raises `LookupError` if it is no longer there.
    """
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    try:
        owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
        return owner, name, getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise LookupError(
            f"{place} is not there any more: say in PROBES where {stage!r} is ({error})"
        ) from error


def _timed_product(
    factory: Callable[..., Any], counts: Counts, stage: str, *args: Any, **kwargs: Any
) -> Callable[..., Any]:
    return timed(factory(*args, **kwargs), counts, stage)


def probed_worker(part: str, file: Path, arguments: Sequence[str]) -> None:
    """Be a Celery worker with probes."""
    from celery.__main__ import main

    counts = Counts()
    put_probes(part, counts)

    def dump(*_: Any) -> None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(counts.read()))
        partial.rename(file)

    # Celery has uses of its own for SIGUSR1 and SIGUSR2.
    signal.signal(signal.SIGRTMIN, lambda *_: counts.reset())
    signal.signal(signal.SIGRTMIN + 1, dump)
    sys.argv = ["celery", *arguments]
    main()


def probed(system: System, folder: Path) -> System:
    """Return the system with probes in its workers, which write to `folder`."""
    commands = {
        part: [
            *(command[0], "-m", "benchmarks.stages", part, str(folder / f"{part}.json")),
            *command[command.index("celery") + 1 :],
        ]
        for part, command in system.commands.items()
    }
    return System(system.name, commands, system.connect)


def run(requests: int = REQUESTS) -> dict[str, Any]:
    """Measure the stages once, all requests at once; return plain JSON values."""
    for probes in PROBES.values():
        for stage, place in probes:
            find(stage, place)
    with running(OURS) as plain:
        without = at_once(plain, requests)
    counts = Counts()
    with tempfile.TemporaryDirectory(prefix="stages-") as name:
        folder = Path(name)
        with running(probed(OURS, folder)) as yard:
            pids = {part: yard.pids[part] for part in OURS.commands}
            for pid in pids.values():
                os.kill(pid, signal.SIGRTMIN)
            take_out = put_probes("client", counts)
            try:
                counts.reset()
                with_probes = at_once(yard, requests)
                parts = {"client": counts.read()}
            finally:
                take_out()
            for part, pid in pids.items():
                os.kill(pid, signal.SIGRTMIN + 1)
                parts[part] = json.loads(read_when_there(folder / f"{part}.json"))
    return {
        "benchmark": "stages",
        "measured_at": stamp(),
        "requests": requests,
        "without_probes": without,
        "with_probes": with_probes,
        "cpu_us_per_request": {
            part: {
                thread: {stage: 1e6 * seconds / requests for stage, seconds in stages.items()}
                for thread, stages in threads.items()
            }
            for part, threads in parts.items()
        },
    }


def read_when_there(file: Path, timeout_s: float = 30.0) -> str:
    """Return the text of a file that another process is about to write."""
    deadline = time.monotonic() + timeout_s
    while not file.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{file.name} was not written within {timeout_s:g} s")
        time.sleep(0.02)
    return file.read_text()


def rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str, str, float]]:
    """Yield part, thread, stage and CPU microseconds, in the order of a request's path."""
    for part, threads in result["cpu_us_per_request"].items():
        for thread, stages in threads.items():
            ordered = dict.fromkeys(stage for stage, _ in PROBES[part])
            for stage in (*ordered, "rest"):
                if stage in stages:
                    yield part, thread, stage, stages[stage]


def table(result: Mapping[str, Any]) -> str:
    """Return the stages as Markdown."""
    listed = list(rows(result))
    whole = sum(spent for *_, spent in listed)
    body = [
        (f"{part}, {thread}: {stage}", f"{spent:.0f}", f"{100 * spent / whole:.1f} %")
        for part, thread, stage, spent in listed
        if spent >= 1
    ]
    plain, seen = (result[key]["cpu_ms"] for key in ("without_probes", "with_probes"))
    ours = ("client", "router", "pool")
    intro = (
        f"CPU microseconds per request, {result['requests']:,} requests at once. Client, router "
        f"and pool together: {1e3 * sum(plain[part] for part in ours):.0f} without probes, "
        f"{1e3 * sum(seen[part] for part in ours):.0f} with them. Redis: "
        f"{1e3 * plain['redis']:.0f}, endpoint: {1e3 * plain['endpoint']:.0f}."
    )
    head = ("process, thread: stage", "CPU µs", "share")
    return intro + "\n\n" + markdown_table(head, [*body, ("all", f"{whole:.0f}", "100 %")])


if __name__ == "__main__":
    probed_worker(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
