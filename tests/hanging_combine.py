"""A function that combines and never ends, in a worker that waits two seconds for it."""

import threading

import model_workers.task

model_workers.joining.COMBINE_S = 2.0  # type: ignore[misc]


def hang(drafts: "tuple[object, ...]") -> str:
    """Never return."""
    threading.Event().wait()
    return ""
