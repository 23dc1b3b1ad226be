"""The yard's child processes: started, watched, restarted and stopped in order."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from modelyard.errors import ModelyardError
from modelyard.processes import ended_how, leashed, log_tail, private_folder

log = logging.getLogger("modelyard.yard")

EARLY_S: Final = 10.0
"""A child that lives shorter than this died early, in seconds."""
EARLY_DEATHS: Final = 5
"""After so many early deaths in a row, starting it again is pointless."""
FIRST_BACKOFF_S: Final = 0.5
LONGEST_BACKOFF_S: Final = 10.0
POLL_S: Final = 0.05


class YardFailed(ModelyardError):
    """A part of the yard can't be kept running; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run, with `<name>.log` as its log. The yard can do without one not `essential`.

    `model` is the one that it serves, if it is a worker of one.
    """

    name: str
    command: tuple[str, ...]
    essential: bool = True
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How a child's lives ended so far."""

    early_deaths: int = 0

    def after_death(self, lived_s: float) -> "Health":
        """Return the health after a life of `lived_s` seconds; a long one clears the past."""
        return Health(self.early_deaths + 1 if lived_s < EARLY_S else 0)

    @property
    def hopeless(self) -> bool:
        """Whether to give up."""
        return self.early_deaths >= EARLY_DEATHS

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next start, in seconds."""
        return min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** max(0, self.early_deaths - 1))


class Child:
    """One process that is kept running."""

    def __init__(
        self,
        spec: ChildSpec,
        *,
        log_dir: Path,
        env: Mapping[str, str],
        descriptors: Sequence[int] = (),
        on_death: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self.essential = spec.essential
        self.log_path = log_dir / f"{spec.name}.log"
        self._env = env
        self._descriptors = descriptors
        self._on_death = on_death
        self._clock = clock
        self._health = Health()
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._retired = False

    @property
    def pid(self) -> int | None:
        """The id of the process that runs, or None."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process; it gets SIGTERM should we die (see `modelyard.processes`)."""
        self._start_at = None
        private_folder(self.log_path.parent)
        with self.log_path.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                leashed(self.spec.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self._env),
                # Python puts the current folder on its import path: nobody's modules lie here.
                cwd=self.log_path.parent,
                # Ctrl-C is for the yard alone, which then stops all in order.
                start_new_session=True,
                pass_fds=self._descriptors,
            )
        self._started_at = self._clock()

    def bury(self) -> bool:
        """Return whether it died since the last look. Raises `YardFailed` when it is hopeless."""
        if self._process is None or self._process.poll() is None:
            return False
        if self._retired:
            self._process = None
            return False
        now = self._clock()
        self._mourn(self._process.returncode, now - self._started_at)
        self._process = None
        if not self._health.hopeless:
            self._start_at = now + self._health.backoff_s
        return True

    def start_if_due(self) -> None:
        """Start it again if it died and its backoff is over."""
        if self._start_at is not None and self._clock() >= self._start_at:
            self.start()

    def terminate(self) -> None:
        """Ask it to finish what it has in hand and end."""
        self._start_at = None
        # A worker that is told twice does not finish what it has.
        if self.running() and not self._retired:
            assert self._process is not None
            self._process.terminate()

    def retire(self) -> None:
        """Ask it to finish what it has in hand and end for good: nobody starts it again."""
        self.terminate()
        self._retired = True

    @property
    def gone(self) -> bool:
        """Whether it was retired and has ended."""
        return self._retired and self._process is None

    def running(self) -> bool:
        """Return whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it, and all it started, at once."""
        if self.running():
            assert self._process is not None
            # Not yet waited for, so its id, which is its group's, can't be anyone else's.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _mourn(self, returncode: int, lived_s: float) -> None:
        name, how = self.spec.name, ended_how(returncode)
        self._health = self._health.after_death(lived_s)
        if not self._health.hopeless:
            log.warning(
                "%s died after %.1f s (%s); starting it again in %g s; its log: %s",
                name,
                lived_s,
                how,
                self._health.backoff_s,
                self.log_path,
            )
            self._on_death(death_notice(name, returncode))
            return
        failure = (
            f"{name} died {EARLY_DEATHS} times within {EARLY_S:g} s of its start, at last with "
            f"{how}. The end of {self.log_path}:\n{log_tail(self.log_path)}"
        )
        if self.essential:
            raise YardFailed(failure)
        self._retired = True
        log.error("going on without %s", failure)


def death_notice(name: str, returncode: int) -> str:
    """Return what to tell people about a child that died and is started again."""
    how = ended_how(returncode)
    was = f"was {how}" if returncode < 0 else f"died ({how})"
    return f"{name} {was} and is started again"


class Children:
    """Processes that are started together and stopped together.

    They inherit `descriptors`. `on_death` gets a line for people for each that is started again,
    and `on_all_dead` is called when none of them runs any more, before the first starts again.
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        *,
        log_dir: Path,
        env: Mapping[str, str],
        descriptors: Sequence[int] = (),
        on_death: Callable[[str], None] = lambda _: None,
        on_all_dead: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._on_all_dead = on_all_dead
        self._make = partial(
            Child,
            log_dir=log_dir,
            env=env,
            descriptors=descriptors,
            on_death=on_death,
            clock=clock,
        )
        self._children = [self._make(spec) for spec in specs]

    def start(self) -> None:
        """Start them all."""
        for child in self._children:
            self._start(child)

    def names(self) -> frozenset[str]:
        """Return the names of all that run, end, or are started again soon."""
        return frozenset(child.spec.name for child in self._children)

    def add(self, spec: ChildSpec) -> None:
        """Start one more."""
        child = self._make(spec)
        self._children.append(child)
        self._start(child)

    def need(self, models: Collection[str]) -> None:
        """Of the workers of models, only those of these can't be done without any more."""
        for child in self._children:
            if child.spec.model is not None:
                child.essential = child.spec.essential and child.spec.model in models

    def retire(self, name: str) -> None:
        """Have one finish what it has in hand and end for good."""
        for child in self._children:
            if child.spec.name == name:
                child.retire()
                log.info("%s (process %s) ends when its calls have", name, child.pid)

    @staticmethod
    def _start(child: Child) -> None:
        child.start()
        log.info("started %s (process %s), log in %s", child.spec.name, child.pid, child.log_path)

    def watch(self) -> None:
        """Start again whatever died. Raises `YardFailed` when that is pointless."""
        died = [child.bury() for child in self._children]
        if any(died) and not any(child.running() for child in self._children):
            self._on_all_dead()
        self._children = [child for child in self._children if not child.gone]
        for child in self._children:
            child.start_if_due()

    def stop(self, grace_s: float, *, hurry: Callable[[], bool] = lambda: False) -> None:
        """Tell all to finish and end; after `grace_s`, or in a `hurry`, kill what is left."""
        for child in self._children:
            child.terminate()
        deadline = self._clock() + grace_s
        while left := [child for child in self._children if child.running()]:
            if self._clock() >= deadline or hurry():
                break
            time.sleep(POLL_S)
        for child in left:
            log.error(
                "killing %s (process %s): it did not finish; "
                "what it had in flight is done again by the next run",
                child.spec.name,
                child.pid,
            )
            child.kill()


def child_environment(
    base: Mapping[str, str], *, broker_url: str, catalog: Path | None
) -> dict[str, str]:
    """Return the environment of the children: ours, and where broker, catalog and prices are."""
    env = {**base, "MODELYARD_BROKER_URL": broker_url, "PYTHONUNBUFFERED": "1"}
    chosen = catalog or base.get("MODELYARD_CATALOG")
    if chosen:  # the children run in another folder, where a relative path means something else
        env["MODELYARD_CATALOG"] = str(Path(chosen).expanduser().resolve())
    if prices := base.get("MODELYARD_PRICES"):
        env["MODELYARD_PRICES"] = str(Path(prices).expanduser().resolve())
    return with_import_path(env)


def with_import_path(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` with our packages importable from any folder, if we run from a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        return dict(env)
    paths = [str(root), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, "PYTHONPATH": os.pathsep.join(paths)}
