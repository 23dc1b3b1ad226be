"""The queues that this worker is meant to consume: one that consumes fewer is not well.

They are those that it was started for, and those that it took up by itself since. What somebody
adds with `celery control add_consumer` is not among them, so they may take it away again.
"""

meant: set[str] = set()
"""Read and changed by the worker's main thread."""
