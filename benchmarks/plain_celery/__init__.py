"""The peer: the same two hops in a plain Celery app, written as Celery's documentation has it."""
