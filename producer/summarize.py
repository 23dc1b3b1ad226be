"""`modelyard summarize`: documents in, a summary of each out."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from modelyard.catalog import UnknownName
from modelyard.catalog_file import default_catalog
from modelyard.settings import Settings, load_settings
from producer.document_summary import INSTRUCTION, DocumentSummary, Question
from producer.documents import Document, Unreadable, UnreadableDocument, find, read
from producer.job import Job
from producer.job_run import Consoles, JobRun
from producer.output import OutputFile, Record, UsageError, check_output_path, print_line
from producer.progress import Tally, show_summary
from producer.run import WINDOW
from producer.window import candidates, window

COMMAND: Final = "summarize"
ANSWERED: Final = "answered"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class SummarizeOptions:
    """What to summarize and how. `models` pins the candidates; `window` is requests in flight.

    Without `output` the summaries go to standard output, as JSON lines with `as_json`; with it
    the report at the end does. `processes` is workers per model of a private yard.
    """

    paths: Sequence[str]
    output: Path | None = None
    as_json: bool = False
    instruction: str = INSTRUCTION
    route: str = "default"
    models: tuple[str, ...] = ()
    max_tokens: int | None = None
    retry_failed: bool = False
    window: int = WINDOW
    processes: int = 1


def run(
    options: SummarizeOptions,
    *,
    settings: Settings | None = None,
    consoles: Consoles | None = None,
) -> int:
    """Summarize, and return the exit code: 0 all answered, 1 some failed, 130 interrupted.

    Raises `UsageError` (nothing to read, no such model, output in use), `CatalogError`,
    `SettingsError`, `BrokerError`, `YardFailed` or `OutputFailed`.
    """
    settings = settings or load_settings()
    consoles = consoles or Consoles.standard()
    catalog = default_catalog(settings)
    question, models = _question(options, settings)
    found = _found(options.paths)
    if options.output is not None:
        check_output_path(options.output)
    with Job(options.output, COMMAND) as job:
        tally = Tally()
        output = None if job.output is None else OutputFile(job.output.resolve())
        done = set() if output is None else _earlier(output, job, tally, options.retry_failed)
        work = JobRun(
            job,
            settings,
            catalog,
            models,
            consoles,
            tally=tally,
            total=len(found) + len(done - {_shown(item) for item in found}),
            window=options.window,
            processes=options.processes,
        )

        def write(unit: DocumentSummary) -> None:
            record = unit.record()
            if output is not None:
                output.add(record)
            elif options.as_json:
                print_line(record)
            else:
                with work.progress.aside():
                    _print(consoles, record)
            _count(tally, record)

        try:
            code = work.work(_units(found, done, question), write)
        finally:
            if output is not None:
                output.close()
        if output is None:
            if not options.as_json:
                show_summary(consoles.err, tally, work.elapsed_s, what="documents", where=None)
        elif options.as_json:
            line = tally.as_json(work.elapsed_s, total=len(found), output=str(options.output))
            print_line(line)
        else:
            where = str(options.output)
            show_summary(consoles.out, tally, work.elapsed_s, what="documents", where=where)
        return code


def _question(options: SummarizeOptions, settings: Settings) -> tuple[Question, Sequence[str]]:
    """Return what is asked of each document, and the models that may be asked."""
    catalog = default_catalog(settings)
    if not options.instruction.strip():
        raise UsageError("the instruction is empty")
    if options.max_tokens is not None and options.max_tokens < 1:
        raise UsageError(f"max_tokens is {options.max_tokens}: it must be at least 1")
    try:
        models = candidates(catalog, options.route, options.models)
        limit = window(catalog, options.route, options.models, options.max_tokens)
    except UnknownName as error:
        raise UsageError(str(error)) from error
    question = Question(
        options.instruction.strip(),
        limit,
        settings.max_message_bytes,
        options.route,
        options.models,
        {} if options.max_tokens is None else {"max_tokens": options.max_tokens},
    )
    return question, models


def _found(paths: Sequence[str]) -> list[Path | Unreadable]:
    """Return what the paths lead to. Raises `UsageError` if none of them leads to a file."""
    found = list(find(paths))
    if not any(isinstance(item, Path) or Path(item.path).is_file() for item in found):
        why = "".join(
            f"\n{item.path}: {item.why}" for item in found if isinstance(item, Unreadable)
        )
        raise UsageError(f"nothing to summarize: give files, folders or patterns{why}")
    return found


def _units(
    found: Sequence[Path | Unreadable], done: set[str], question: Question
) -> Iterator[DocumentSummary]:
    """Yield a unit for each document that is not done, reading it only then."""
    for item in found:
        path = _shown(item)
        if path in done:
            continue
        source: Document | str
        if isinstance(item, Unreadable):
            source = item.why
        else:
            try:
                source = read(item)
            except UnreadableDocument as error:
                source = error.item.why
        # The key is the name as it is on disk, which may be no text at all.
        key = str(item) if isinstance(item, Path) else item.path
        yield DocumentSummary(key, path, source, question)


def _shown(item: Path | Unreadable) -> str:
    """Return the path as the output has it: the same as `Document.path`."""
    if isinstance(item, Unreadable):
        return item.path
    return os.fsencode(item).decode(errors="replace")


def _earlier(output: OutputFile, job: Job, tally: Tally, retry_failed: bool) -> set[str]:
    """Return the documents that need no more work, and count them."""
    done: set[str] = set()
    again: list[str] = []

    def seen(record: Record) -> None:
        failed = record["status"] == FAILED
        if failed and retry_failed:
            again.append(record["path"])
            return
        done.add(record["path"])
        tally.before_answered += not failed
        tally.before_failed += failed

    output.read(seen, ours=_is_output, interrupted=job.interrupted)
    if again:
        # In this order: a failure that is still in the file is not asked for under its old id.
        job.try_again(again)
        output.keep(lambda record: record["status"] != FAILED)
    return done


def _is_output(record: Record) -> bool:
    return isinstance(record.get("path"), str) and record.get("status") in {ANSWERED, FAILED}


def _count(tally: Tally, record: dict[str, Any]) -> None:
    if record["status"] == ANSWERED:
        tally.add_answer(record["model"], record["cost_usd"])
    else:
        tally.add_failure(record["path"], record["error"]["message"], record["cost_usd"])


def _print(consoles: Consoles, record: dict[str, Any]) -> None:
    """Print a summary for people."""
    if record["status"] != ANSWERED:
        # The report at the end says why.
        return
    label = f"{record['model']}, extractive" if record["extractive"] else record["model"]
    parts = f", {record['parts']} parts" if record["parts"] > 1 else ""
    consoles.out.print(
        f"[bold]{escape(record['path'])}[/bold]  [dim]({escape(label)}{parts})[/dim]"
    )
    consoles.out.print(record["summary"], markup=False, highlight=False)
    consoles.out.print()
