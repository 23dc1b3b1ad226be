"""Submits the load of a storm as a process of its own, which may be killed and started again.

Each chunk of ids is logged before it is sent and after it was acknowledged; a submitter that is
started again submits what was not acknowledged, under the same ids.
"""

import sys
import time
from pathlib import Path

from chaos.clients import REFUSED, StormClient, connect
from chaos.evidence import read_submits
from chaos.journal import Journal, now, read
from chaos.load import Load, Task

AGAIN_S = 0.2


def submit(client: StormClient, load: Load, journal: Journal, done: set[str], start: float) -> None:
    """Submit all that is not `done`, at its time, until it is accepted."""
    left = [number for number in range(load.count) if load.id(number) not in done]
    for first in range(0, len(left), load.chunk):
        numbers = left[first : first + load.chunk]
        time.sleep(max(0.0, start + load.due_s(numbers[-1]) - now()))
        ids = [load.id(number) for number in numbers]
        journal.write(kind="submit", ids=ids)
        while True:
            try:
                client.submit(ids, [load.text(number) for number in numbers])
            except REFUSED as error:
                journal.write(kind="refused", ids=ids, why=repr(error)[:200])
                time.sleep(AGAIN_S)
            else:
                break
        journal.write(kind="accepted", ids=ids)


def main() -> None:
    """Run `python -m chaos.submitter TASK`."""
    task = Task.read(Path(sys.argv[1]))
    assert task.load is not None
    _, accepted = read_submits(read(task.submits))
    client = connect(task.system, task.url)
    submit(client, task.load, Journal(task.submits), set(accepted), task.start_at or now())
    client.close()


if __name__ == "__main__":
    main()
