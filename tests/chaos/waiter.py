"""Waits for all that is submitted as a process of its own, and logs each outcome."""

import sys
from pathlib import Path

from chaos.clients import connect
from chaos.evidence import Kind
from chaos.journal import Journal, Tail
from chaos.load import Task

LOOK_S = 0.1


def main() -> None:
    """Run `python -m chaos.waiter TASK` until the harness ends it."""
    task = Task.read(Path(sys.argv[1]))
    journal = Journal(task.outcomes)
    submits = Tail(task.submits)
    client = connect(task.system, task.url)
    known: set[str] = set()

    def tell(id: str, kind: Kind) -> None:
        journal.write(kind=kind, id=id)

    journal.write(kind="ready")
    while True:
        new = [
            id
            for entry in submits.entries()
            if entry["kind"] == "submit"
            for id in entry["ids"]
            if id not in known
        ]
        if new:
            known.update(new)
            client.listen(new, tell)
        client.look(LOOK_S)


if __name__ == "__main__":
    main()
