"""What a run that is started again finds done, and what it does again, without any yard."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from modelyard.catalog import Catalog, Endpoint, Model
from modelyard.errors import RequestFailed
from modelyard.messages import Answer
from modelyard.outcome import Outcome
from modelyard.plan import Decision, Plan, Step
from modelyard.routes import Route
from modelyard.settings import Settings
from producer.batch import Batch, BatchOptions
from producer.job import Job
from producer.job_run import Consoles, run_job
from producer.output import UsageError
from producer.progress import Tally
from producer.summarize import Summaries, SummarizeOptions, find_documents, question_of

CATALOG = Catalog(
    models=(
        Model(
            name="small",
            provider="openai",
            endpoints=(Endpoint(base_url="http://one.example/v1"),),
        ),
    ),
    routes={"default": Route(otherwise=("small",)), "cheap": Route(otherwise=("small",))},
)
SETTINGS = Settings()
MESSAGE_BYTES = 10_000


def answer(id: str, text: str) -> Outcome:
    """An answer that says what it was asked, or a failure if it was asked to fail."""
    if "fail" in text:
        return RequestFailed("no", id, "refused")
    step = Plan(steps=(Step(model="small"),))
    decision = Decision(
        route="default", intent="other", why="", input_tokens=1, decided_at=0.0, plan=step
    )
    return Answer(
        id=id, text=f"about: {text}", model="small", provider_model="s", decision=decision
    )


class Done:
    """What one run did: the names of its units, what it said, and its counts."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.notes: list[str] = []
        self.tally = Tally()
        self.total = 0


def work_through(work: Any, output: Path, command: str) -> Done:
    """Run to the end, with a model that answers at once."""
    done = Done()
    with Job(output, command) as job:
        done.total = work.resume(job, done.tally, done.notes.append)
        for unit in work.units():
            done.names.append(unit.key)
            for part in unit.begin():
                unit.heard(part.part, "1-2", answer("1-2", part.request.text))
            work.write(unit, done.tally, None)
        work.close()
        job.complete = True
    return done


def summarize(paths: Sequence[str | Path], output: Path, **options: Any) -> Done:
    given = SummarizeOptions(paths=[str(path) for path in paths], output=output, **options)
    found = find_documents(given.paths, output)
    question = question_of(given, SETTINGS, CATALOG)
    work = Summaries(given, found, question, ["small"], Consoles.standard())
    done = work_through(work, output, "summarize")
    done.names = [Path(name).name for name in done.names]
    return done


def batch(source: Path, output: Path, **options: Any) -> Done:
    given = BatchOptions(input=source, output=output, **options)
    return work_through(Batch(given, MESSAGE_BYTES, CATALOG), output, "batch run")


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestSummarize:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "docs"
        folder.mkdir()
        for name in ("a", "b", "c"):
            (folder / f"{name}.txt").write_text(f"This is {name}.")
        return folder

    def test_the_same_names_in_another_folder_are_other_documents(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other"
        other.mkdir()
        (other / "a.txt").write_text("This is another a.")
        output = tmp_path / "out.jsonl"
        monkeypatch.chdir(folder)
        summarize(["a.txt"], output)
        monkeypatch.chdir(other)

        assert summarize(["a.txt"], output).names == ["a.txt"]
        assert [Path(record["file"]).parent for record in records(output)] == [folder, other]
        assert [record["path"] for record in records(output)] == ["a.txt", "a.txt"]

    def test_the_same_files_spelled_otherwise_are_done(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        output = tmp_path / "out.jsonl"
        summarize([folder], output)
        monkeypatch.chdir(tmp_path)

        again = summarize(["docs/../docs/a.txt", "docs"], output)
        assert again.names == []
        assert (again.total, again.tally.before_answered) == (3, 3)

    def test_what_changed_is_done_again_and_its_old_line_is_gone(
        self, folder: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "out.jsonl"
        summarize([folder], output)
        (folder / "b.txt").write_text("This is b after all.")

        again = summarize([folder], output)
        assert again.names == ["b.txt"]
        assert "1 changed since" in again.notes[0]
        assert "b.txt" in again.notes[0]
        found = {Path(record["file"]).name: record["summary"] for record in records(output)}
        assert len(records(output)) == 3
        assert "b after all" in found["b.txt"]

    def test_what_is_gone_keeps_its_summary(self, folder: Path, tmp_path: Path) -> None:
        output = tmp_path / "out.jsonl"
        paths = [folder / "a.txt", folder / "b.txt"]
        summarize(paths, output)
        paths[0].unlink()

        assert summarize(paths, output).names == []
        assert len(records(output)) == 2

    @pytest.mark.parametrize(
        "changed",
        [
            {"instruction": "Translate."},
            {"route": "cheap"},
            {"models": ("small",)},
            {"max_tokens": 9},
        ],
        ids=lambda changed: next(iter(changed)),
    )
    def test_other_options_need_another_output(
        self, folder: Path, tmp_path: Path, changed: dict[str, Any]
    ) -> None:
        output = tmp_path / "out.jsonl"
        summarize([folder], output)
        before = output.read_bytes()

        with pytest.raises(UsageError, match=r"made with other options .*another -o"):
            summarize([folder], output, **changed)
        assert output.read_bytes() == before

    def test_retrying_keeps_the_failures_of_documents_that_were_not_given(
        self, folder: Path, tmp_path: Path
    ) -> None:
        output = tmp_path / "out.jsonl"
        for name in ("a", "b"):
            (folder / f"{name}.txt").write_text("Please fail.")
        assert summarize([folder], output).tally.retriable == 2

        again = summarize([folder / "a.txt"], output, retry_failed=True)
        assert again.names == ["a.txt"]
        assert sorted(Path(record["file"]).name for record in records(output)) == [
            "a.txt",
            "b.txt",
            "c.txt",
        ]

    def test_the_output_and_its_job_are_not_its_input(self, folder: Path) -> None:
        output = folder / "out.txt"
        assert summarize([folder], output).names == ["a.txt", "b.txt", "c.txt"]
        inside = folder / "out.txt.job"
        inside.mkdir()
        (inside / "notes.txt").write_text("not a document")

        assert sorted(find_documents([str(folder)], output)) == [
            str(folder / f"{name}.txt") for name in "abc"
        ]

    def test_a_file_that_is_not_ours_is_left_as_it_is_however_often(
        self, folder: Path, tmp_path: Path
    ) -> None:
        notes = tmp_path / "notes"
        notes.write_text("my notes, without a line end")
        options = SummarizeOptions(paths=[str(folder)], output=notes)
        question = question_of(options, SETTINGS, CATALOG)
        for _ in range(2):
            work = Summaries(
                options, find_documents(options.paths, notes), question, [], Consoles.standard()
            )
            with pytest.raises(UsageError, match="no output of this command"):
                run_job(work, options, SETTINGS, CATALOG, Consoles.standard())
            assert notes.read_text() == "my notes, without a line end"
            assert not (tmp_path / "notes.job").exists()


def line(custom_id: str, text: str, **more: Any) -> str:
    body = {"model": "small", "messages": [{"role": "user", "content": text}], **more}
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    )


class TestBatch:
    def write(self, folder: Path, *given: str) -> tuple[Path, Path]:
        source = folder / "in.jsonl"
        source.write_text("".join(f"{text}\n" for text in given))
        return source, folder / "out.jsonl"

    def test_what_is_done_is_done_in_whatever_order(self, tmp_path: Path) -> None:
        source, output = self.write(tmp_path, line("a", "one"), line("b", "two"))
        assert batch(source, output).names == ["a", "b"]

        source, output = self.write(tmp_path, line("c", "3"), line("b", "two"), line("a", "one"))
        again = batch(source, output)
        assert again.names == ["c"]
        assert again.total == 3

    @pytest.mark.parametrize("other", [line("b", "too"), line("b", "two", temperature=1)])
    def test_another_question_under_the_same_name_is_refused(
        self, tmp_path: Path, other: str
    ) -> None:
        source, output = self.write(tmp_path, line("a", "one"), line("b", "two"))
        batch(source, output)
        self.write(tmp_path, line("a", "one"), other)

        with pytest.raises(UsageError, match=r"line 2: custom_id 'b' .* another question: use"):
            batch(source, output)

    def test_a_failed_question_may_be_put_otherwise_when_it_is_retried(
        self, tmp_path: Path
    ) -> None:
        source, output = self.write(tmp_path, line("a", "fail"))
        assert batch(source, output).tally.retriable == 1
        self.write(tmp_path, line("a", "better"))

        with pytest.raises(UsageError, match=r"line 1: .*add --retry-failed"):
            batch(source, output)
        assert batch(source, output, retry_failed=True).tally.answered == 1
        assert records(tmp_path / "out.errors.jsonl") == []

    def test_a_bad_line_stays_until_it_is_mended(self, tmp_path: Path) -> None:
        source, output = self.write(tmp_path, line("a", "one"), "{broken")
        first = batch(source, output)
        assert (first.tally.failed, first.tally.retriable) == (1, 0)
        assert batch(source, output).names == []

        self.write(tmp_path, line("a", "one"), line("b", "two"))
        again = batch(source, output)
        assert again.names == ["b"]
        assert "read again" in again.notes[0]
        assert records(tmp_path / "out.errors.jsonl") == []

    def test_a_line_that_is_too_long_says_so_with_its_number(self, tmp_path: Path) -> None:
        source, output = self.write(tmp_path, line("a", "one"), line("b", "x" * 200_000))
        batch(source, output)

        (error,) = records(tmp_path / "out.errors.jsonl")
        assert error["error"]["code"] == "message_too_large"
        assert error["error"]["message"].startswith("line 2: ")
        assert "MODELYARD_MAX_MESSAGE_BYTES" in error["error"]["message"]
