"""A job and its output: what is found again by a run that is started again."""

import json
from pathlib import Path

import pytest

from modelyard.messages import Request
from producer.job import Job
from producer.output import OutputFile, Record, UsageError, encode

HELLO = Request.model_validate({"text": "hello"})


def is_record(record: Record) -> bool:
    return "path" in record


def read(path: Path, *, interrupted: bool = False) -> list[Record]:
    found: list[Record] = []
    output = OutputFile(path)
    output.read(found.append, ours=is_record, interrupted=interrupted)
    output.close()
    return found


class TestJob:
    def test_a_run_that_is_started_again_gives_the_same_ids(self, tmp_path: Path) -> None:
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            first = job.request_id("a.txt", "whole", HELLO)
            assert not job.interrupted
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            assert job.interrupted
            assert job.request_id("a.txt", "whole", HELLO) == first

    def test_ids_differ_between_units_parts_and_questions(self, tmp_path: Path) -> None:
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            ids = {
                job.request_id("a.txt", "whole", HELLO),
                job.request_id("b.txt", "whole", HELLO),
                job.request_id("a.txt", "map/1", HELLO),
                job.request_id(
                    "a.txt", "whole", Request.model_validate({"text": "hello", "models": ["small"]})
                ),
            }
        assert len(ids) == 4

    def test_a_document_that_is_called_otherwise_is_the_same_question(self, tmp_path: Path) -> None:
        typed = [
            HELLO.model_copy(update={"metadata": {"path": p}}) for p in ("a.txt", "../x/a.txt")
        ]
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            assert len({job.request_id("/x/a.txt", "whole", request) for request in typed}) == 1

    def test_only_what_is_tried_again_gets_new_ids_and_keeps_them(self, tmp_path: Path) -> None:
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            before = [job.request_id(unit, "whole", HELLO) for unit in ("a", "b")]
            job.try_again(["a"])
            after = [job.request_id(unit, "whole", HELLO) for unit in ("a", "b")]
        assert after[0] != before[0]
        assert after[1] == before[1]
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            assert [job.request_id(unit, "whole", HELLO) for unit in ("a", "b")] == after

    def test_a_complete_one_leaves_nothing_and_the_next_is_another(self, tmp_path: Path) -> None:
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            first = job.id
            job.complete = True
        assert list(tmp_path.iterdir()) == []
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            assert job.id != first

    def test_two_runs_on_one_output_refuse_each_other(self, tmp_path: Path) -> None:
        output, link = tmp_path / "out.jsonl", tmp_path / "link.jsonl"
        output.touch()
        link.symlink_to(output)
        with Job(output, "summarize"), pytest.raises(UsageError, match="another run"):
            Job(link, "summarize").__enter__()

    def test_another_command_does_not_go_on_with_it(self, tmp_path: Path) -> None:
        with Job(tmp_path / "out.jsonl", "summarize"):
            pass
        with pytest.raises(UsageError, match="unfinished `modelyard summarize`"):
            Job(tmp_path / "out.jsonl", "batch run").__enter__()

    def test_a_damaged_one_says_what_to_remove(self, tmp_path: Path) -> None:
        with Job(tmp_path / "out.jsonl", "summarize") as job:
            pass
        (job.folder / "job.json").write_text("{")
        with pytest.raises(UsageError, match=r"job\.json can't be read .*: remove .*\.job"):
            Job(tmp_path / "out.jsonl", "summarize").__enter__()

    def test_one_without_output_is_gone_at_the_end(self) -> None:
        with Job(None, "summarize") as job:
            assert job.folder.is_dir()
        assert not job.folder.exists()


class TestOutputFile:
    def test_what_was_added_is_read_again(self, tmp_path: Path) -> None:
        output = OutputFile(tmp_path / "out.jsonl")
        output.add({"path": "a"})
        output.add({"path": "b"})
        output.close()
        assert read(output.path) == [{"path": "a"}, {"path": "b"}]

    def test_a_torn_last_line_is_cut_off_after_an_interrupted_run(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(b'{"path": "a"}\n{"path": "b"')
        assert read(path, interrupted=True) == [{"path": "a"}]
        assert path.read_bytes() == b'{"path": "a"}\n'

    def test_a_file_that_is_not_ours_is_refused_and_left_as_it_is(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        for content in (b"my notes", b"my notes\n", b'{"path": "a"}\n{"other": 1}\n', b"\xff\n"):
            path.write_bytes(content)
            with pytest.raises(UsageError, match="no output of this command"):
                read(path)
            assert path.read_bytes() == content

    def test_a_missing_last_line_end_is_added(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(b'{"path": "a"}')
        assert read(path) == [{"path": "a"}]
        assert path.read_bytes() == b'{"path": "a"}\n'

    def test_keeping_drops_the_rest(self, tmp_path: Path) -> None:
        output = OutputFile(tmp_path / "out.jsonl")
        for name in "abc":
            output.add({"path": name})
        output.keep(lambda record: record["path"] != "b")
        output.add({"path": "d"})
        output.close()
        assert [record["path"] for record in read(output.path)] == ["a", "c", "d"]
        assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]

    def test_a_record_is_one_line_whatever_is_in_it(self) -> None:
        record = {"path": "a\nb\r\u2028\u2029\x85\x0b\x1c", "text": "é\ud800"}
        line = encode(record)
        assert line.decode().splitlines() == [line.decode().rstrip("\n")]
        assert json.loads(line)["path"] == record["path"]
