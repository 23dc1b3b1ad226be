"""`modelyard summarize`: documents in, a summary of each out."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.markup import escape

from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.settings import Settings, load_settings
from producer.display import MARKS
from producer.document_summary import INSTRUCTION, UNREADABLE, DocumentSummary, Question
from producer.documents import (
    Document,
    Unreadable,
    UnreadableDocument,
    digest,
    find,
    read,
    real_path,
    shown,
)
from producer.job import Job, job_folder
from producer.job_run import Consoles, JobOptions, run_job
from producer.mapreduce import TOO_LONG
from producer.output import OutputFile, Record, UsageError, check_output_path, print_line
from producer.progress import LiveProgress, Tally
from producer.window import candidates, window

ANSWERED: Final = "answered"
FAILED: Final = "failed"

SHOWN_CHANGED: Final = 5

Item = Path | Unreadable


@dataclass(frozen=True, slots=True)
class SummarizeOptions(JobOptions):
    """What to summarize and how. `models` pins the candidates.

    Without `output` the summaries go to standard output, as JSON lines with `as_json`; with it
    the report at the end does.
    """

    paths: Sequence[str]
    instruction: str = INSTRUCTION
    route: str = "default"
    models: tuple[str, ...] = ()
    max_tokens: int | None = None


def run(
    options: SummarizeOptions,
    *,
    settings: Settings | None = None,
    consoles: Consoles | None = None,
) -> int:
    """Summarize, and return the exit code: 0 all answered, 1 some failed, 130 interrupted.

    Raises `UsageError` (nothing to read, output in use), `UnknownName`, `CatalogError`,
    `SettingsError`, `BrokerError`, `YardFailed` or `OutputFailed`.
    """
    settings = settings or load_settings()
    consoles = consoles or Consoles.standard()
    catalog = default_catalog(settings)
    question = question_of(options, settings, catalog)
    found = find_documents(options.paths, options.output)
    if options.output is not None:
        check_output_path(options.output)
    work = Summaries(
        options, found, question, candidates(catalog, options.route, options.models), consoles
    )
    return run_job(work, options, settings, catalog, consoles)


@dataclass(frozen=True, slots=True)
class Earlier:
    """The outcome of an earlier run; `sha256` is that of the document it is about."""

    path: str
    sha256: str | None
    failed: bool
    retriable: bool


class Summaries:
    """The work of `summarize`: documents by their real path, each a unit of its own."""

    command = "summarize"
    what = "documents"

    def __init__(
        self,
        options: SummarizeOptions,
        found: Mapping[str, Item],
        question: Question,
        models: Sequence[str],
        consoles: Consoles,
    ) -> None:
        self.models = models
        self._options = options
        self._found = found
        self._question = question
        self._consoles = consoles
        self._output = None if options.output is None else OutputFile(options.output.resolve())
        self._done: set[str] = set()
        self._marked = False

    def resume(self, job: Job, tally: Tally, note: Callable[[str], None]) -> int:
        """Read the output: what is done, what is to be tried again and what has changed since."""
        if self._output is None:
            return len(self._found)
        earlier = self._read(self._output, job)
        again = {
            file
            for file, was in earlier.items()
            if was.failed and self._options.retry_failed and file in self._found
        }
        changed = {file for file in earlier.keys() - again if self._changed(file, earlier[file])}
        if changed:
            names = [earlier[file].path for file in sorted(changed)[:SHOWN_CHANGED]]
            more = ", ..." if len(changed) > SHOWN_CHANGED else ""
            note(f"{len(changed)} changed since, and are done again: {', '.join(names)}{more}")
        redo = again | changed
        if redo:
            # In this order: a failure that is still in the file is not asked for under its old id.
            job.try_again(file for file in redo if earlier[file].failed)
            self._output.keep(lambda record: record["file"] not in redo)
        self._done = earlier.keys() - redo
        for file in self._done:
            tally.add_earlier(failed=earlier[file].failed, retriable=earlier[file].retriable)
        return len(self._found.keys() | self._done)

    def units(self) -> Iterator[DocumentSummary]:
        """Yield a unit for each document that is not done, reading it only then."""
        for file, item in self._found.items():
            if file in self._done:
                continue
            source: Document | Unreadable
            if isinstance(item, Unreadable):
                source = item
            else:
                try:
                    source = read(item)
                except UnreadableDocument as error:
                    source = error.item
            yield DocumentSummary(file, source, self._question)

    def write(self, unit: DocumentSummary, tally: Tally, progress: LiveProgress) -> None:
        """Put the summary into the output, or print it."""
        record = unit.record()
        if self._output is not None:
            self._output.add(record)
        elif self._options.as_json:
            print_line(record)
        else:
            with progress.aside():
                self._print(record)
        if record["status"] == ANSWERED:
            tally.add_answer(record["model"], record["cost_usd"])
        else:
            why = record["error"]["message"]
            retriable = _retriable(record)
            tally.add_failure(record["path"], why, record["cost_usd"], retriable=retriable)

    def finish(self) -> None:
        """Say what the numbers in the printed summaries mean, if there are any."""
        if self._marked:
            self._consoles.out.print(MARKS, style="dim", markup=False, highlight=False)

    def close(self) -> None:
        """Put the output on disk."""
        if self._output is not None:
            self._output.close()

    def files(self, tally: Tally) -> dict[str, str | None]:
        """Return where the summaries are, if not on standard output."""
        output = self._options.output
        return {} if output is None else {"output": str(output)}

    def _read(self, output: OutputFile, job: Job) -> dict[str, Earlier]:
        earlier: dict[str, Earlier] = {}

        def seen(record: Record) -> None:
            if record["options"] != self._question.digest:
                raise UsageError(
                    f"{self._options.output} was made with other options (--instruction, --route, "
                    "--model or --max-tokens): give the same ones, or another -o"
                )
            failed = record["status"] == FAILED
            earlier[record["file"]] = Earlier(
                record["path"], record.get("sha256"), failed, failed and _retriable(record)
            )

        output.read(seen, ours=_is_output, interrupted=job.interrupted)
        return earlier

    def _changed(self, file: str, was: Earlier) -> bool:
        """Return whether there is something else in the file now; what is gone did not change."""
        item = self._found.get(file)
        now = None if item is None else digest(item)
        return now is not None and now != was.sha256

    def _print(self, record: Record) -> None:
        """Print a summary for people."""
        if record["status"] != ANSWERED:
            # The report at the end says why.
            return
        self._marked = self._marked or record["extractive"]
        out = self._consoles.out
        label = f"{record['model']}, extractive" if record["extractive"] else record["model"]
        parts = f", {record['parts']} parts" if record["parts"] > 1 else ""
        out.print(f"[bold]{escape(record['path'])}[/bold]  [dim]({escape(label)}{parts})[/dim]")
        out.print(record["summary"], markup=False, highlight=False)
        out.print()


def question_of(options: SummarizeOptions, settings: Settings, catalog: Catalog) -> Question:
    """Return what is asked of each document. Raises `UsageError` or `UnknownName`."""
    if not options.instruction.strip():
        raise UsageError("the instruction is empty")
    if options.max_tokens is not None and options.max_tokens < 1:
        raise UsageError(f"max_tokens is {options.max_tokens}: it must be at least 1")
    return Question(
        options.instruction.strip(),
        window(catalog, options.route, options.models, options.max_tokens),
        settings.max_message_bytes,
        options.route,
        options.models,
        {} if options.max_tokens is None else {"max_tokens": options.max_tokens},
    )


def find_documents(paths: Sequence[str], output: Path | None) -> dict[str, Item]:
    """Return what the paths lead to, by real path, without what this command writes itself.

    Raises `UsageError` if none of them leads to a file.
    """
    own = None if output is None else shown(os.path.realpath(output))
    inside = None if output is None else shown(job_folder(output)) + os.sep
    found: dict[str, Item] = {}
    for item in find(paths):
        file = real_path(item)
        if file != own and not (inside and file.startswith(inside)):
            found.setdefault(file, item)
    if not any(isinstance(item, Path) or Path(item.path).is_file() for item in found.values()):
        why = "".join(
            f"\n{item.path}: {item.why}" for item in found.values() if isinstance(item, Unreadable)
        )
        raise UsageError(f"nothing to summarize: give files, folders or patterns{why}")
    return found


def _is_output(record: Record) -> bool:
    texts = all(isinstance(record.get(key), str) for key in ("path", "file", "options"))
    return texts and record.get("status") in {ANSWERED, FAILED}


def _retriable(record: Mapping[str, Any]) -> bool:
    """Return whether the same document may be answered when it is tried again."""
    return (record.get("error") or {}).get("reason") not in {UNREADABLE, TOO_LONG}
