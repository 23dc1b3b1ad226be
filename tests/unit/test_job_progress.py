"""What a run tells people while it works, and how Ctrl-C ends it."""

import io
import signal
import subprocess
import sys

from rich.console import Console
from waiting import eventually

from producer.interrupts import EXIT_INTERRUPTED
from producer.progress import PLAIN_S, LiveProgress, Tally, describe, show_summary

STUBBORN = """
import sys, time
from producer.interrupts import Interrupts
with Interrupts() as interrupts:
    print("ready", flush=True)
    while not interrupts.wanted(): time.sleep(0.01)
    print("asked", flush=True)
    while True: time.sleep(0.01)
"""

WAITING = """
import time
from producer.interrupts import Interrupts
with Interrupts() as interrupts:
    try:
        with interrupts.breaking():
            print("ready", flush=True)
            while True: time.sleep(0.01)
    except KeyboardInterrupt:
        print("broken", flush=True)
"""


def tally() -> Tally:
    found = Tally(before_answered=3)
    for _ in range(4):
        found.add_answer("small", 0.001)
    found.add_answer("large", 0.5)
    found.add_failure("b.txt", "it is empty", 0.25)
    return found


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_line_tells_counts_models_rate_time_left_and_cost() -> None:
    assert describe(tally(), 30, 2.0) == (
        "9/30 done · 1 failed · small 4, large 1 · 3.0/s · 0:00:07 left · $0.754000 this run"
    )


def test_nothing_done_has_no_rate() -> None:
    assert describe(Tally(), 30, 0.0) == "0/30 done · $0.00"


def test_without_a_terminal_a_line_is_written_now_and_then() -> None:
    now = 0.0
    counts = Tally()
    console = Console(file=io.StringIO(), force_terminal=False)
    with LiveProgress(console, counts, 2, clock=lambda: now) as progress:
        progress.tick()
        assert printed(console) == ""
        now = PLAIN_S
        counts.add_answer("small", 0.0)
        progress.tick()
        progress.tick()
        now = 2 * PLAIN_S - 1
        progress.tick()
    assert printed(console) == "1/2 done · small 1 · 0.2/s · 0:00:05 left · $0.00\n"


def test_the_table_at_the_end_names_what_failed_and_where_the_output_is() -> None:
    console = Console(file=io.StringIO(), width=80)
    show_summary(console, tally(), 2.0, what="documents", where="out.jsonl")
    shown = printed(console)
    assert "small │         4 │ $0.004000" in shown
    assert "5 answered, 1 failed in 0:00:02 (3.0/s), $0.754000 this run" in shown
    assert "before this run: 3 answered, 0 failed" in shown
    assert "failed: b.txt: it is empty" in shown
    assert "--retry-failed" in shown
    assert "output: out.jsonl" in shown


def test_trying_again_is_offered_only_where_it_may_help() -> None:
    console = Console(file=io.StringIO(), width=80)
    counts = Tally()
    counts.add_failure("b.txt", "it is empty", retriable=False)
    show_summary(console, counts, 2.0, what="documents", where="out.jsonl")
    assert "failed: b.txt: it is empty" in printed(console)
    assert "--retry-failed" not in printed(console)


def interrupt_when(process: "subprocess.Popen[str]", said: str) -> None:
    assert process.stdout is not None
    assert eventually(process.stdout.readline) == f"{said}\n"
    process.send_signal(signal.SIGINT)


def test_the_first_ctrl_c_asks_and_the_second_ends_it_at_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        interrupt_when(process, "ready")
        interrupt_when(process, "asked")
        assert process.wait(20) == EXIT_INTERRUPTED
        assert process.stderr is not None
        assert "Ctrl-C again ends it at once" in process.stderr.read()


def test_waiting_that_has_no_end_of_its_own_is_broken_off() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True
    ) as process:
        interrupt_when(process, "ready")
        assert process.stdout is not None
        assert process.stdout.read() == "broken\n"
        assert process.wait(20) == 0
