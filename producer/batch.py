"""`modelyard batch run`: a file in the OpenAI Batch format in, answers and errors out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.settings import Settings, load_settings
from producer.batch_line import PIECE, BatchLine, lines, read_lines
from producer.job import Job
from producer.job_run import Consoles, JobOptions, run_job
from producer.openai_batch import (
    BadLine,
    asked_digest,
    bad_line_number,
    is_output,
    parse,
    target,
)
from producer.output import OutputFile, Record, UsageError, check_output_path
from producer.progress import LiveProgress, Tally
from producer.run import TOO_LARGE
from producer.window import candidates


@dataclass(frozen=True, slots=True)
class BatchOptions(JobOptions):
    """Which file to work through, and where the answers go.

    Failures go to a file beside `output` (`errors_path`). `route` is for lines whose model is
    `auto`.
    """

    input: Path
    output: Path
    route: str = "default"


@dataclass
class Survey:
    """What is in the input, as far as can be told at a glance."""

    lines: int = 0
    models: set[str] = field(default_factory=set)


@dataclass
class Done:
    """What has an outcome already, and the digest of what was asked.

    Requests are known by their custom_id; `bad` lines, which never became one, by their number.
    """

    answered: dict[str, str | None] = field(default_factory=dict)
    failed: dict[str, str | None] = field(default_factory=dict)
    bad: dict[int, str | None] = field(default_factory=dict)

    def has(self, line: BatchLine) -> bool:
        """Return whether this line needs no more work."""
        if line.bad:
            return line.number in self.bad
        return line.key in self.answered or line.key in self.failed


def run(
    options: BatchOptions,
    *,
    settings: Settings | None = None,
    consoles: Consoles | None = None,
) -> int:
    """Work through the file, and return the exit code: 0, 1 if some failed, 130 if interrupted.

    Raises `UsageError` (no such file, output in use or of other questions), `UnknownName`,
    `CatalogError`, `SettingsError`, `BrokerError`, `YardFailed` or `OutputFailed`.
    """
    settings = settings or load_settings()
    consoles = consoles or Consoles.standard()
    catalog = default_catalog(settings)
    work = Batch(options, settings.max_message_bytes, catalog)
    return run_job(work, options, settings, catalog, consoles)


class Batch:
    """The work of `batch run`: lines of a file, each a unit of its own."""

    command = "batch run"
    what = "requests"

    def __init__(self, options: BatchOptions, message_bytes: int, catalog: Catalog) -> None:
        """Look the input over. Raises `UsageError` or `UnknownName`."""
        self._options = options
        self._catalog = catalog
        # A line has escapes that the message has not, and an envelope.
        self._line_limit = 3 * message_bytes + PIECE
        output = options.output
        self._errors_at = errors_path(output.resolve() if output.is_symlink() else output)
        _check_paths(options, self._errors_at)
        self._survey = look_over(options.input, self._line_limit, catalog, options.route)
        self.models: Sequence[str] = [
            model.name for model in catalog.models if model.name in self._survey.models
        ]
        self._output = OutputFile(output.resolve())
        self._errors = OutputFile(errors_path(self._output.path))
        self._done = Done()

    def resume(self, job: Job, tally: Tally, note: Callable[[str], None]) -> int:
        """Read the output and the errors: what is done, and what is to be tried again."""
        done = self._done
        retriable: set[str] = set()

        def answered(record: Record) -> None:
            done.answered[record["custom_id"]] = asked_digest(record)

        def failed(record: Record) -> None:
            number = bad_line_number(record)
            if number is not None:
                # Not by its custom_id: that may be another line's, whose duplicate this one is.
                done.bad[number] = asked_digest(record)
                return
            done.failed[record["custom_id"]] = asked_digest(record)
            if record["error"]["code"] != TOO_LARGE:
                retriable.add(record["custom_id"])

        self._output.read(answered, ours=is_output, interrupted=job.interrupted)
        self._errors.read(failed, ours=is_output, interrupted=job.interrupted)
        total = self._survey.lines
        if done.answered or done.failed or done.bad:
            total = self._compare(job, note)
        for _ in done.answered:
            tally.add_earlier(failed=False)
        for custom_id in done.failed:
            tally.add_earlier(failed=True, retriable=custom_id in retriable)
        for _ in done.bad:
            tally.add_earlier(failed=True)
        # There is an output even if nothing was answered: programs open it without a look.
        self._output.add_bytes(b"")
        return total

    def units(self) -> Iterator[BatchLine]:
        """Yield a unit for each line that is not done."""
        return (line for line in self._every_line() if not self._done.has(line))

    def write(self, unit: BatchLine, tally: Tally, progress: LiveProgress) -> None:
        """Put the line where it belongs."""
        assert unit.line is not None
        if unit.answer is not None:
            self._output.add(unit.line)
            tally.add_answer(unit.answer.model, unit.answer.cost_usd)
        else:
            self._errors.add(unit.line)
            name = unit.custom_id or self._options.input.name
            tally.add_failure(name, unit.line["error"]["message"], retriable=unit.retriable)

    def finish(self) -> None:
        """Say nothing: all is in the files."""

    def close(self) -> None:
        """Put both files on disk."""
        try:
            self._output.close()
        finally:
            self._errors.close()

    def files(self, tally: Tally) -> dict[str, str | None]:
        """Return where the answers are, and the errors if there are any."""
        errors = str(self._errors_at) if tally.all_failed else None
        return {"output": str(self._options.output), "errors": errors}

    def _compare(self, job: Job, note: Callable[[str], None]) -> int:
        """Forget what is to be done again, and return how many lines there are, done ones too.

        Raises `UsageError` for a line that asks something else than what was answered under its
        custom_id. A bad line cost nothing: if it changed, it is simply read again.
        """
        done = self._done
        again: set[str] = set()
        still_bad: set[int] = set()
        known = set(done.answered) | set(done.failed)
        for line in self._every_line():
            if line.bad:
                if done.bad.get(line.number) == line.digest and not self._options.retry_failed:
                    still_bad.add(line.number)
            elif line.key in done.failed and self._options.retry_failed:
                again.add(line.key)
            elif line.key in known:
                self._check_question(line)
        read_again = done.bad.keys() - still_bad
        if read_again and not self._options.retry_failed:
            note(f"{len(read_again)} lines that were no requests are read again: they changed")
        if again or read_again:
            # In this order: a failure that is still in the file is not asked for under its old id.
            job.try_again(again)
            self._errors.keep(
                lambda record: (
                    number in still_bad
                    if (number := bad_line_number(record)) is not None
                    else record["custom_id"] not in again
                )
            )
        for custom_id in again:
            del done.failed[custom_id]
        for number in read_again:
            del done.bad[number]
        left = sum(1 for _ in self.units())
        return len(done.answered) + len(done.failed) + len(done.bad) + left

    def _check_question(self, line: BatchLine) -> None:
        answered = self._done.answered.get(line.key)
        failed = self._done.failed.get(line.key)
        if line.digest in {answered, failed}:
            return
        where, way_out = self._options.output, "use another -o"
        if line.key in self._done.failed:
            where, way_out = self._errors_at, "add --retry-failed, or use another -o"
        raise UsageError(
            f"{self._options.input}: line {line.number}: custom_id {line.key[:80]!r} is in {where} "
            f"already, for another question: {way_out}"
        )

    def _every_line(self) -> Iterator[BatchLine]:
        """Yield a unit for each line, done or not."""
        options = self._options
        return read_lines(options.input, self._line_limit, self._catalog, options.route)


def errors_path(output: Path) -> Path:
    """Return where the failures go: `OUT.errors.jsonl` beside `OUT.jsonl`."""
    stem = output.stem if output.suffix == ".jsonl" else output.name
    return output.with_name(f"{stem}.errors.jsonl")


def look_over(path: Path, line_limit: int, catalog: Catalog, default_route: str) -> Survey:
    """Return how many lines there are and which models they may need.

    Raises `UsageError` or `UnknownName`.
    """
    survey = Survey()
    try:
        with path.open("rb") as file:
            for number, raw in lines(file, line_limit):
                survey.lines += 1
                try:
                    body = parse(raw, number).get("body")
                    model = body.get("model") if isinstance(body, dict) else None
                    survey.models.update(
                        candidates(catalog, *target(model, catalog, default_route))
                    )
                except BadLine:
                    continue  # it is reported in its turn
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    survey.lines = max(1, survey.lines)
    return survey


def _check_paths(options: BatchOptions, errors_at: Path) -> None:
    if not options.input.exists():
        raise UsageError(f"{options.input}: there is no such file")
    if not options.input.is_file():
        raise UsageError(f"{options.input} is no regular file: a run that resumes reads it twice")
    for path in (options.output, errors_at):
        check_output_path(path)
        if path.exists() and path.samefile(options.input):
            raise UsageError(f"{path} is the input itself: give -o another file")
