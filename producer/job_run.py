"""Job run: what `summarize` and `batch run` share around their units.

What earlier runs left; the yard that the work goes to, started when it is first needed; Ctrl-C;
progress; the report; the exit code.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import redis
from kombu.exceptions import KombuError
from rich.console import Console

from modelyard.catalog import Catalog
from modelyard.client import Client
from modelyard.errors import ModelyardError
from modelyard.settings import Settings
from producer.interrupts import EXIT_INTERRUPTED, Interrupts
from producer.job import Job
from producer.output import UsageError, console, print_line
from producer.private_yard import PrivateYard
from producer.progress import LiveProgress, Tally, show_summary
from producer.run import WINDOW, Run, U

log = logging.getLogger("modelyard.job")

EXIT_DONE: Final = 0
EXIT_SOME_FAILED: Final = 1

SILENT_S: Final = 20.0
"""After so long without any answer we say what may be missing."""


@dataclass(frozen=True, slots=True)
class Consoles:
    """Where a command prints: results to `out`, all else to `err`."""

    out: Console
    err: Console

    @classmethod
    def standard(cls) -> "Consoles":
        """Return those of this process."""
        return cls(console(soft_wrap=True), Console(stderr=True, soft_wrap=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """What both commands can be told. `window` is requests in flight.

    `processes` is workers per model of a private yard.
    """

    output: Path | None = None
    as_json: bool = False
    retry_failed: bool = False
    window: int = WINDOW
    processes: int = 1


class Work(Protocol[U]):
    """What a command does in the frame of `run_job`.

    `command` is its name, `what` the plural of its units, and `models` those that they may go to.
    """

    command: str
    what: str
    models: Sequence[str]

    def resume(self, job: Job, tally: Tally, note: Callable[[str], None]) -> int:
        """Count what earlier runs did into `tally`, and return how many units there are in all.

        Raises `UsageError` if the output is not this work's; `note` tells people something.
        """
        ...

    def units(self) -> Iterator[U]:
        """Yield what is left to do."""
        ...

    def write(self, unit: U, tally: Tally, progress: LiveProgress) -> None:
        """Put a unit that has ended where it belongs, and count it."""
        ...

    def finish(self) -> None:
        """Say what belongs below the results, when all that could be done is done."""
        ...

    def close(self) -> None:
        """Let go of the files."""
        ...

    def files(self, tally: Tally) -> dict[str, str | None]:
        """Return where the results are, by what they are: `output` and more, or nothing."""
        ...


def run_job(
    work: Work[U], options: JobOptions, settings: Settings, catalog: Catalog, consoles: Consoles
) -> int:
    """Do what is left of the work, report, and return the exit code.

    Raises `UsageError`, `BrokerError`, `YardFailed` or `OutputFailed`.
    """

    def note(line: str) -> None:
        consoles.err.print(line, style="dim", markup=False, highlight=False)

    with Job(options.output, work.command) as job:
        tally = Tally()
        try:
            total = work.resume(job, tally, note)
        except UsageError:
            # A job that has just been made must not make the file look like one of its own.
            job.complete = not job.interrupted
            raise
        running = JobRun(
            job,
            settings,
            catalog,
            work.models,
            consoles,
            tally=tally,
            total=total,
            window=options.window,
            processes=options.processes,
        )
        try:
            code = running.work(
                work.units(), lambda unit: work.write(unit, tally, running.progress)
            )
            work.finish()
        finally:
            work.close()
        files = work.files(tally)
        if not options.as_json:
            on = consoles.err if options.output is None else consoles.out
            where = ", errors: ".join(filter(None, files.values())) or None
            show_summary(on, tally, running.elapsed_s, what=work.what, where=where)
        elif files:
            print_line(tally.as_json(running.elapsed_s, total=total, **files))
        return code


@contextmanager
def connection(url: str, name: str, settings: Settings) -> Iterator[Client]:
    """Give a client; that it can't say good-bye to a broker in trouble is no failure."""
    client = Client(url, name=name, settings=settings)
    try:
        yield client
    finally:
        try:
            client.close()
        except (redis.RedisError, KombuError, OSError) as error:
            log.debug("the connection to the broker was not closed in order: %s", error)


class JobRun:
    """Runs the units of a job and tells how it went.

    `models` are those that the units may go to. `window` is requests in flight.
    """

    def __init__(
        self,
        job: Job,
        settings: Settings,
        catalog: Catalog,
        models: Sequence[str],
        consoles: Consoles,
        *,
        tally: Tally,
        total: int,
        window: int = WINDOW,
        processes: int = 1,
    ) -> None:
        self._job = job
        self._settings = settings
        self._catalog = catalog
        self._models = models
        self._err = consoles.err
        self._tally = tally
        self._window = window
        self._processes = processes
        self._interrupts = Interrupts()
        self._yard: PrivateYard | None = None
        self._finished = False
        self._connected_at: float | None = None
        self.progress = LiveProgress(consoles.err, tally, total)
        self.elapsed_s = 0.0
        """How long the work took, from when the yard was there until nothing was left."""

    def work(self, units: Iterator[U], write: Callable[[U], None]) -> int:
        """Work until all is done or somebody stops it, and return the exit code.

        Raises `BrokerError`, `YardFailed`, `OutputFailed` or `UsageError`.
        """
        with ExitStack() as stack:
            stack.enter_context(self._interrupts)
            run = Run(
                self._job,
                lambda: self._connect(stack),
                write,
                once_s=self._settings.result_ttl_s,
                window=self._window,
                stopping=self._interrupts.wanted,
                tick=self._tick,
            )
            try:
                with self.progress:
                    self._finished = run.work(units)
            except KeyboardInterrupt:
                log.debug("stopped while the yard was starting")
            except UsageError:
                raise
            except ModelyardError:
                self._say_how_to_go_on()
                # When the yard is gone, that is the reason and not what followed from it.
                self._check_yard()
                raise
            finally:
                self.elapsed_s = self.progress.elapsed_s
            if not self._finished:
                self._say_how_to_go_on()
        # Only now: the yard has stopped, and nothing is in flight.
        self._job.complete = self._finished
        if not self._finished:
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self._tally.all_failed else EXIT_DONE

    def _connect(self, stack: ExitStack) -> Client:
        url = self._settings.broker_url
        with self._interrupts.breaking():
            if url is None:
                url = self._start_yard(stack)
            client = stack.enter_context(connection(url, str(self._job.id), self._settings))
        self._connected_at = time.monotonic()
        self.progress.restart()
        return client

    def _start_yard(self, stack: ExitStack) -> str:
        live = {model.name for model in self._catalog.live_models}
        models = [name for name in self._models if name in live]
        if not models:
            why = (
                f"{name}: {self._catalog.model(name).disabled or 'people answer it'}"
                for name in self._models
            )
            raise UsageError(f"no model can be called ({'; '.join(why)})")
        self.progress.note(
            f"MODELYARD_BROKER_URL is not set: starting a private yard ({', '.join(models)})"
        )
        yard = PrivateYard(
            self._job.yard_folder,
            models,
            catalog=self._settings.catalog,
            processes=self._processes,
            on_notice=self._yard_says,
            # After a `kill -9` nobody else removes what is temporary.
            remove_state=self._job.output is None,
        )
        addresses = stack.enter_context(yard)
        self._yard = yard
        self.progress.note(f"private yard: {addresses.redis}, logs in {addresses.logs}")
        return addresses.broker_url

    def _yard_says(self, line: str) -> None:
        # With nothing in flight, it is only the processes that take a moment to end.
        self.progress.note("stopping the private yard" if self._finished else line)

    def _tick(self) -> None:
        self.progress.tick()
        self._check_yard()
        waited = self._connected_at is not None and time.monotonic() - self._connected_at
        if waited and waited > SILENT_S and self._connected_at is not None:
            self._connected_at = None
            if not self._tally.answered and self._yard is None:
                self.progress.note(
                    f"no answer in {SILENT_S:g} s: do a router and model workers run on this "
                    "broker? (modelyard models)"
                )

    def _check_yard(self) -> None:
        if self._yard is not None:
            self._yard.check()

    def _say_how_to_go_on(self) -> None:
        if self._job.output is None:
            self.progress.note("stopped; what was not printed is lost (-o FILE can be resumed)")
            return
        self.progress.note(
            f"stopped; {self._tally.done:,} are in {self._job.output}. "
            "To go on, run the same command again"
        )
