"""`modelyard batch run`: a file in the OpenAI Batch format in, answers and errors out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from modelyard.catalog import Catalog, UnknownName
from modelyard.catalog_file import default_catalog
from modelyard.messages import Answer
from modelyard.outcome import Outcome
from modelyard.settings import Settings, load_settings
from producer.document_summary import failure
from producer.job import Job
from producer.job_run import Consoles, JobRun
from producer.openai_batch import (
    BadLine,
    answer_line,
    bad_line_id,
    bad_line_number,
    error_line,
    is_output,
    parse,
    read_line,
    request_line_id,
    target,
)
from producer.output import OutputFile, Record, UsageError, check_output_path, print_line
from producer.progress import Tally, show_summary
from producer.run import WINDOW, PartRequest
from producer.window import candidates

COMMAND: Final = "batch run"
PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """Which file to work through, and where the answers go. `window` is requests in flight.

    Failures go to a file beside `output` (`errors_path`). `route` is for lines whose model is
    `auto`.
    """

    input: Path
    output: Path
    as_json: bool = False
    route: str = "default"
    retry_failed: bool = False
    window: int = WINDOW
    processes: int = 1


@dataclass
class Survey:
    """What is in the input, as far as can be told at a glance."""

    lines: int = 0
    models: set[str] = field(default_factory=set)


@dataclass
class Done:
    """What has an outcome already: requests by their custom_id, other lines by their number."""

    custom_ids: set[str] = field(default_factory=set)
    lines: set[int] = field(default_factory=set)


class BatchLine:
    """A unit of `producer.run`: one line of the input, whatever is in it."""

    def __init__(
        self, key: str, custom_id: str | None, asked: PartRequest | dict[str, Any]
    ) -> None:
        """`asked` is the request, or the error line if there is none."""
        self.key = key
        self.custom_id = custom_id
        self.answer: Answer | None = None
        self._asked = asked if isinstance(asked, PartRequest) else None
        self.line: dict[str, Any] | None = None if isinstance(asked, PartRequest) else asked

    @property
    def ended(self) -> bool:
        """Whether its line can be written."""
        return self.line is not None

    def begin(self) -> Sequence[PartRequest]:
        """Return its request, if it is one."""
        asked, self._asked = self._asked, None
        return () if asked is None else (asked,)

    def heard(self, part: str, id: str, outcome: Outcome) -> Sequence[PartRequest]:
        """Take the outcome."""
        if isinstance(outcome, Answer):
            assert self.custom_id is not None
            self.answer = outcome
            self.line = answer_line(self.custom_id, outcome)
        else:
            why = failure(outcome)
            self.line = error_line(request_line_id(id), self.custom_id, why.reason, why.message)
        return ()


def run(
    options: BatchOptions,
    *,
    settings: Settings | None = None,
    consoles: Consoles | None = None,
) -> int:
    """Work through the file, and return the exit code: 0, 1 if some failed, 130 if interrupted.

    Raises `UsageError` (no such file, output in use), `CatalogError`, `SettingsError`,
    `BrokerError`, `YardFailed` or `OutputFailed`.
    """
    settings = settings or load_settings()
    consoles = consoles or Consoles.standard()
    catalog = default_catalog(settings)
    errors_at = errors_path(options.output)
    _check_paths(options, errors_at)
    line_limit = 3 * settings.max_message_bytes + PIECE
    survey = look_over(options.input, line_limit, catalog, options.route)
    with Job(options.output, COMMAND) as job:
        tally = Tally()
        output = OutputFile(options.output.resolve())
        errors = OutputFile(errors_path(output.path))
        done = _earlier(output, errors, job, tally, options.retry_failed)
        work = JobRun(
            job,
            settings,
            catalog,
            [model.name for model in catalog.models if model.name in survey.models],
            consoles,
            tally=tally,
            total=survey.lines,
            window=options.window,
            processes=options.processes,
        )

        def write(unit: BatchLine) -> None:
            assert unit.line is not None
            if unit.answer is not None:
                output.add(unit.line)
                tally.add_answer(unit.answer.model, unit.answer.cost_usd)
            else:
                errors.add(unit.line)
                name = unit.custom_id or options.input.name
                tally.add_failure(name, unit.line["error"]["message"])

        # There is an output even if nothing was answered: programs open it without a look.
        output.add_bytes(b"")
        try:
            units = _units(options.input, line_limit, catalog, options.route, done)
            code = work.work(units, write)
        finally:
            output.close()
            errors.close()
        if options.as_json:
            line = tally.as_json(
                work.elapsed_s,
                total=survey.lines,
                output=str(options.output),
                errors=str(errors_at) if tally.all_failed else None,
            )
            print_line(line)
        else:
            where = str(options.output)
            if tally.all_failed:
                where += f", errors: {errors_at}"
            show_summary(consoles.out, tally, work.elapsed_s, what="requests", where=where)
        return code


def errors_path(output: Path) -> Path:
    """Return where the failures go: `OUT.errors.jsonl` beside `OUT.jsonl`."""
    stem = output.stem if output.suffix == ".jsonl" else output.name
    return output.with_name(f"{stem}.errors.jsonl")


def look_over(path: Path, line_limit: int, catalog: Catalog, default_route: str) -> Survey:
    """Return how many lines there are and which models they may need. Raises `UsageError`."""
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
    except UnknownName as error:
        raise UsageError(str(error)) from error
    survey.lines = max(1, survey.lines)
    return survey


def lines(file: BinaryIO, limit: int) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of the lines that are not blank; of a longer one `limit` + 1 bytes.

    The rest of a line that is too long is never in memory.
    """
    number = 0
    while raw := file.readline(limit + 1):
        number += 1
        rest = raw
        while len(raw) > limit and rest and not rest.endswith(b"\n"):
            rest = file.readline(PIECE)
        if raw.strip():
            yield number, raw


def _check_paths(options: BatchOptions, errors_at: Path) -> None:
    if not options.input.exists():
        raise UsageError(f"{options.input}: there is no such file")
    if not options.input.is_file():
        raise UsageError(f"{options.input} is no regular file: a run that resumes reads it twice")
    for path in (options.output, errors_at):
        check_output_path(path)
        if path.exists() and path.samefile(options.input):
            raise UsageError(f"{path} is the input itself: give -o another file")


def _units(
    path: Path, line_limit: int, catalog: Catalog, default_route: str, done: Done
) -> Iterator[BatchLine]:
    """Yield a unit for each line that is not done."""
    seen: dict[str, int] = {}
    empty = True
    with path.open("rb") as file:
        for number, raw in lines(file, line_limit):
            empty = False
            try:
                if len(raw) > line_limit:
                    raise BadLine(
                        "line_too_long",
                        f"line {number}: it has more than {line_limit:,} bytes "
                        "(MODELYARD_MAX_MESSAGE_BYTES bounds it): send less text",
                    )
                line = _unique(raw, number, catalog, default_route, seen)
            except BadLine as error:
                if number not in done.lines:
                    yield _bad(number, error)
                continue
            if line.custom_id not in done.custom_ids:
                yield line
    if empty and 0 not in done.lines:
        yield _bad(0, BadLine("empty_file", "there is no request in this file"))


def _unique(
    raw: bytes, number: int, catalog: Catalog, default_route: str, seen: dict[str, int]
) -> BatchLine:
    """Return the unit of a line whose custom_id no line before it has. Raises `BadLine`."""
    try:
        line = read_line(raw, number, catalog, default_route)
        custom_id = line.custom_id
    except BadLine as error:
        if error.custom_id is not None:
            seen.setdefault(error.custom_id, number)
        raise
    first = seen.setdefault(custom_id, number)
    if first != number:
        raise BadLine(
            "duplicate_custom_id",
            f"line {number}: custom_id {custom_id[:80]!r} is used on line {first} already: "
            "answers are told apart by it",
            custom_id,
        )
    return BatchLine(custom_id, custom_id, PartRequest("", line.request))


def _bad(number: int, error: BadLine) -> BatchLine:
    line = error_line(bad_line_id(number), error.custom_id, error.code, str(error))
    return BatchLine(f"line {number}", error.custom_id, line)


def _earlier(
    output: OutputFile, errors: OutputFile, job: Job, tally: Tally, retry_failed: bool
) -> Done:
    """Return what needs no more work, and count it."""
    done = Done()
    again: list[str] = []

    def answered(record: Record) -> None:
        done.custom_ids.add(record["custom_id"])
        tally.before_answered += 1

    def failed(record: Record) -> None:
        number = bad_line_number(record)
        if retry_failed:
            again.append("" if number is not None else record["custom_id"])
        elif number is not None:
            # Not by its custom_id: that may be another line's, whose duplicate this one is.
            done.lines.add(number)
            tally.before_failed += 1
        else:
            done.custom_ids.add(record["custom_id"])
            tally.before_failed += 1

    output.read(answered, ours=is_output, interrupted=job.interrupted)
    errors.read(failed, ours=is_output, interrupted=job.interrupted)
    if again:
        # In this order: a failure that is still in the file is not asked for under its old id.
        job.try_again(filter(None, again))
        errors.keep(lambda record: False)
    return done
