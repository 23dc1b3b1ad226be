"""`modelyard summarize` on real processes: a private yard, and a provider that is a fake."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from job_commands import Desk, desk, finish, lines, wait_for_lines
from workers import workers

from modelyard.testing import Gate, Reply

WORDS = "The committee met on Tuesday and agreed on a budget for the coming year. "


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as found:
        yield found


def write_documents(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{number:02}.txt" for number in range(count)]
    for path in paths:
        path.write_text(f"Minutes number {path.stem}. {WORDS}")
    return paths


def test_every_document_becomes_one_line_and_only_what_failed_is_done_again(here: Desk) -> None:
    here.fake.always("small", Reply(text="A budget was agreed."))
    folder, output = here.folder / "minutes", here.folder / "out.jsonl"
    paths = write_documents(folder, 3)
    long, empty = folder / "long.txt", folder / "empty.txt"
    long.write_text("\n\n".join(f"Item {number}. {WORDS * 5}" for number in range(40)))
    empty.write_text("")

    code, out, err = finish(here.summarize(output, [folder]))

    assert code == 1, err
    found = {record["path"]: record for record in lines(output)}
    assert found.keys() == {*map(str, paths), str(long), str(empty)}
    short = found[str(paths[0])]
    assert short["status"] == "answered"
    assert short["summary"] == "A budget was agreed."
    assert (short["model"], short["intent"], short["parts"]) == ("small", "other", 1)
    assert short["usage"]["output_tokens"] > 0
    assert short["cost_usd"] > 0
    assert short["timings_ms"]["total"] >= short["timings_ms"]["calling"] > 0
    assert [attempt["model"] for attempt in short["attempts"]] == ["small"]
    assert found[str(empty)]["error"]["reason"] == "unreadable"
    assert "empty" in found[str(empty)]["error"]["message"]
    parts = found[str(long)]["parts"]
    assert parts > 3
    assert len(found[str(long)]["attempts"]) == parts + 1
    assert len(here.fake.calls) == 3 + parts + 1
    assert here.calls_twice() == []
    assert "redis-server" in err
    assert "empty.txt" in out
    assert not (here.folder / "out.jsonl.job").exists()

    here.fake.reset()
    code, out, err = finish(here.summarize(output, [Path("minutes/../minutes")]))
    assert code == 1
    assert "private yard" not in err
    assert "--retry-failed" not in out
    assert len(lines(output)) == 5

    here.fake.always("small", Reply(text="No more empty."))
    empty.write_text("Now there is something in it.")
    code, out, err = finish(here.summarize(output, [folder]))
    assert code == 0, err
    assert "1 changed since" in err
    assert len(here.fake.calls) == 1
    assert len(lines(output)) == 5
    assert {record["status"] for record in lines(output)} == {"answered"}


def test_after_kill_9_the_same_command_does_what_is_missing_and_pays_nothing_twice(
    here: Desk,
) -> None:
    gate = Gate()

    def answer(body: Mapping[str, Any]) -> Reply:
        text = body["messages"][-1]["content"]
        number = int(text.split("Minutes number ")[1][:2])
        return Reply(text=f"Summary {number}.", gate=None if number < 12 else gate)

    here.fake.always("small", answer)
    output = here.folder / "out.jsonl"
    paths = write_documents(here.folder / "minutes", 30)

    first = here.summarize(output, paths)
    wait_for_lines(output, 8)
    here.fake.wait_until(lambda fake: fake.in_flight == 4, timeout_s=30)
    first.send_signal(signal.SIGKILL)
    finish(first)
    with output.open("ab") as torn:
        torn.write(b'{"path": "half a li')

    second = here.summarize(output, paths)
    # The calls that the killed run left behind are still held here: the second run waits for them.
    gate.open()
    code, _, err = finish(second)

    assert code == 0, err
    found = lines(output)
    assert sorted(record["path"] for record in found) == sorted(map(str, paths))
    assert all(
        record["summary"] == f"Summary {int(Path(record['path']).stem)}." for record in found
    )
    assert len(here.fake.calls) == 30
    assert here.calls_twice() == []
    assert {call.outcome for call in here.fake.calls} == {"answered"}
    assert not (here.folder / "out.jsonl.job").exists()


def test_nothing_to_read_is_wrong_use_and_leaves_nothing_behind(here: Desk) -> None:
    code, _, err = finish(here.summarize(here.folder / "out.jsonl", [here.folder / "nowhere"]))

    assert code == 2
    assert "nothing to summarize" in err
    assert "no such file or folder" in err
    assert sorted(path.name for path in here.folder.iterdir()) == ["catalog.yaml"]


def test_with_a_broker_the_workers_are_somebody_elses(tmp_path: Path, redis_url: str) -> None:
    paths = write_documents(tmp_path / "minutes", 3)
    with workers(tmp_path, redis_url) as yard:
        yard.start_router()
        yard.start_pool("small")
        yard.fake.always("provider-small", Reply(text="Met."))
        ran = subprocess.run(
            [
                *(sys.executable, "-m", "producer.cli", "summarize", "--json"),
                *("--model", "small", "--max-tokens", "50"),
                *map(str, paths),
                str(tmp_path / "no.txt"),
            ],
            env=yard.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert ran.returncode == 1, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert {record["path"]: record["status"] for record in found} == {
        **{str(path): "answered" for path in paths},
        str(tmp_path / "no.txt"): "failed",
    }
    assert {record.get("intent") for record in found} == {"pinned", None}
    assert "private yard" not in ran.stderr
