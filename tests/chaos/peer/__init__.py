"""The peer: two hops under one id in a plain Celery app, set up for reliability as Celery's
documentation says."""
