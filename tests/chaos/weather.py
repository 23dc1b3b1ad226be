"""Carrying out the faults of a storm at their times."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

from chaos import cue, leash, malformed
from chaos.grounds import Grounds
from chaos.journal import Journal, Tail, now
from chaos.load import Load
from chaos.redis_server import RedisServer
from chaos.storms import Cue, Storm, schedule

LATER_S: Final = 0.5
ENDPOINT_MODES: Final = frozenset({"down", "hang", "500", "429", "garbage", "half"})
OUT_OF_MEMORY: Final = "1"
ROOM: Final = "0"
A_SUBMIT_S: Final = 0.06
"""About what a submit of many takes."""


class Weather:
    """Carries out the cues of one storm."""

    def __init__(self, grounds: Grounds, storm: Storm, load: Load, seed: int, seconds: float):
        self._grounds = grounds
        self._storm = storm
        self._load = load
        self._rng = random.Random(f"targets:{storm.name}:{seed}")
        self._journal: Journal = grounds.faults
        self._cues: list[Cue] = list(schedule(storm, seconds, grounds.lease_s, seed))
        self._ends: list[tuple[float, Callable[[], None]]] = []
        self._submits = Journal(grounds.path("submits"))
        self._submitting = Tail(grounds.path("submits"))
        self.armed = False
        self._bad = 0
        self._redis_away = 0
        self.injected: set[str] = set()
        self.start_at = now()
        self.submitter = grounds.submitter(load, self.start_at)

    @property
    def over(self) -> bool:
        """Whether all faults came and went, and all is submitted."""
        pending = self._cues or self._ends or self._grounds.fleet.is_rolling
        return not pending and self.submitter.poll() is not None

    def tick(self) -> None:
        """Do what is due."""
        at = now()
        for ending in [ending for ending in self._ends if ending[0] <= at]:
            self._ends.remove(ending)
            ending[1]()
        while self._cues and self.start_at + self._cues[0].at_s <= at:
            self._do(self._cues.pop(0))
        if self.armed:
            self._kill_submitter()
        if self.submitter.poll() not in (None, 0):
            self.submitter = self._grounds.submitter(self._load, self.start_at)
        self._grounds.redis.note_size()
        self._grounds.fleet.tend(self._journal)

    def close(self) -> None:
        """End what is still going on."""
        for _, end in self._ends:
            end()
        leash.end(self.submitter)
        self._submits.close()

    def _span(self, action: str, target: str, for_s: float, end: Callable[[], None]) -> None:
        """Log the begin of a fault now, and have it end later."""
        self._journal.write(kind="begin", action=action, target=target)

        def finish() -> None:
            end()
            self._journal.write(kind="end", action=action, target=target)

        self._ends.append((now() + for_s, finish))

    def _do(self, due: Cue) -> None:
        match due.action:
            case "kill" | "stop":
                self._hit(due)
            case "roll":
                self._grounds.fleet.roll(self._journal, due.target)
            case "reset":
                cue.give(self._grounds.proxy, do="reset")
                self._journal.write(kind="fault", action="reset")
            case "stall":
                cue.give(self._grounds.proxy, do="stall")
                release = self._grounds.proxy
                self._span("stall", "*", due.for_s, lambda: cue.give(release, do="pass"))
            case "inject":
                self._inject(due)
            case "submitter":
                self.armed = True
            case action if action in ENDPOINT_MODES:
                self._endpoint(due)
            case _:
                self._redis(due)

    def _hit(self, due: Cue) -> None:
        slot = self._grounds.fleet.choose(due.target, self._rng)
        if slot is None:
            return
        if due.action == "kill":
            # Logged before: whatever it commits after this is no surprise.
            self._journal.write(kind="fault", action="kill", target=slot.instance)
            slot.send(signal.SIGKILL)
            return
        process = slot.process

        def wake() -> None:
            if slot.process is process and slot.stopped:
                slot.send(signal.SIGCONT)

        self._span("stop", slot.instance, due.for_s, wake)
        slot.send(signal.SIGSTOP)

    def _endpoint(self, due: Cue) -> None:
        helper, model = self._grounds.endpoint, "*" if due.action == "down" else due.target
        cue.give(helper, mode=due.action, model=model)
        end = lambda: cue.give(helper, mode="normal", model=model)  # noqa: E731
        self._span(due.action, model, due.for_s, end)

    def _redis(self, due: Cue) -> None:
        if self._postponed(due):
            return
        server = self._grounds.redis
        begin: Callable[[], object] = server.kill
        end: Callable[[], object] = server.start
        match due.action:
            case "redis-stop":
                begin = partial(server.signal, signal.SIGSTOP)
                end = partial(server.signal, signal.SIGCONT)
            case "redis-refuse":
                begin = partial(set_memory, server, OUT_OF_MEMORY)
                end = partial(set_memory, server, ROOM)
            case "redis-power":
                begin = server.lose_power
        self._redis_away += 1

        def finish() -> None:
            end()
            self._redis_away -= 1

        self._span(due.action, "*", due.for_s, finish)
        begin()

    def _inject(self, due: Cue) -> None:
        if self._postponed(due):
            return
        system = self._grounds.system
        self._bad += 1
        garbage, named = malformed.some(
            self._rng, self._storm.name, self._bad, system.task, system.queue
        )
        self.injected.update(named)
        self._submits.write(kind="submit", ids=[*named])
        self._grounds.store.lpush(system.queue, garbage, *named.values())
        self._submits.write(kind="accepted", ids=[*named])
        self._journal.write(kind="fault", action="inject")

    def _kill_submitter(self) -> None:
        """Kill it if it has sent something that is not acknowledged yet."""
        last = [entry["kind"] for entry in self._submitting.entries()][-1:]
        if last == ["submit"]:
            time.sleep(self._rng.uniform(0.0, A_SUBMIT_S))
            self.submitter.kill()
            self._journal.write(kind="fault", action="submitter")
        self.armed = last != ["submit"] and self.submitter.poll() is None

    def _postponed(self, due: Cue) -> bool:
        """Whether this waits until Redis is there."""
        if self._redis_away:
            self._cues.append(replace(due, at_s=now() - self.start_at + LATER_S))
            self._cues.sort(key=lambda cue: cue.at_s)
        return self._redis_away > 0


def set_memory(server: RedisServer, limit: str) -> None:
    """Let Redis have this much memory, in bytes; 0: as much as there is."""
    with server.connect() as client:
        client.config_set("maxmemory", limit)
