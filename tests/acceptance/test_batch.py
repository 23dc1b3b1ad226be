"""`modelyard batch run` on real processes: a private yard, and a provider that is a fake."""

import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from job_commands import Desk, desk, finish, lines, wait_for_lines

from modelyard.testing import Gate, Reply


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path) as found:
        yield found


def line(custom_id: str, text: str, model: str = "small") -> bytes:
    body = {"model": model, "messages": [{"role": "user", "content": text}], "temperature": 0}
    return json.dumps(
        {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    ).encode()


def test_answers_and_errors_go_to_their_files_and_ctrl_c_loses_nothing(here: Desk) -> None:
    gate = Gate()

    def answer(body: Mapping[str, Any]) -> Reply:
        assert body["temperature"] == 0
        number = int(body["messages"][-1]["content"])
        if number == 3:
            return Reply(status=400, code="invalid_type", message="not like this")
        return Reply(text=f"answer {number}", gate=None if number < 8 else gate)

    here.fake.always("small", answer)
    source, output = here.folder / "in.jsonl", here.folder / "out.jsonl"
    bad = [
        line("r0", "0"),  # a duplicate
        b"{broken",
        b"\xff\xfe",
        line("unknown", "1", model="gigantic"),
        line("", "1"),
    ]
    good = [
        line(f"r{number}", str(number), "auto" if number % 2 else "small") for number in range(20)
    ]
    source.write_bytes(b"\n".join(good + bad) + b"\n")

    first = here.batch(source, output)
    wait_for_lines(output, 7)
    here.fake.wait_until(lambda fake: fake.in_flight == 4, timeout_s=30)
    first.send_signal(signal.SIGINT)
    assert first.stderr is not None
    assert any("Ctrl-C again" in said for said in first.stderr)
    # It ends when the calls in flight have, and these are held here.
    gate.open()
    code, _, err = finish(first)
    assert code == 130, err
    assert "run the same command again" in err

    code, _, err = finish(here.batch(source, output))

    assert code == 1, err
    answers = {record["custom_id"]: record["response"] for record in lines(output)}
    assert len(lines(output)) == 19
    assert answers.keys() == {f"r{number}" for number in range(20)} - {"r3"}
    body = answers["r7"]["body"]
    assert answers["r7"]["status_code"] == 200
    assert (body["object"], body["model"]) == ("chat.completion", "small")
    assert body["choices"][0]["message"]["content"] == "answer 7"
    assert body["usage"]["total_tokens"] > 0
    errors = lines(here.folder / "out.errors.jsonl")
    assert {(record["custom_id"], record["error"]["code"]) for record in errors} == {
        ("r3", "invalid"),
        ("r0", "duplicate_custom_id"),
        (None, "invalid_json"),
        (None, "invalid_encoding"),
        ("unknown", "model_not_found"),
        (None, "invalid_custom_id"),
    }
    assert len(errors) == 6
    assert len(here.fake.calls) == 20
    assert here.calls_twice() == []

    here.fake.reset()
    code, _, err = finish(here.batch(source, output))
    assert code == 1
    assert here.fake.calls == ()
    assert "private yard" not in err
