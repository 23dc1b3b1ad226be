"""Task events in batches: one message for all of a moment's, and not for each turn of the hub.

A step of Celery's consumer (https://docs.celeryq.dev/en/stable/userguide/extending.html). Celery
already sends buffered task events together as `task.multi`, which Flower and `celery events` read;
it flushes them whenever its hub turns. Three events a hop were an eighth of a worker's CPU.

A request keeps its id from one model to the next, and Flower merges what it hears of an id in the
order of arrival: a pool that hands a request on must be heard first. So a pool with an attribute
`flush_events` gets a function there that sends what waits at once; it is called in the main thread.
"""

from typing import Any, ClassVar, Final

from celery import bootsteps

EVENTS: Final = 300
"""So many are sent at once at most; half of a thousand would be 200 kB."""

DELAY_S: Final = 0.05
"""An event waits no longer than this."""


class BatchedEvents(bootsteps.StartStopStep):
    """The step: `app.steps["consumer"].add("modelyard.events:BatchedEvents")`."""

    requires: ClassVar = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._flush_at: Any = None

    def start(self, consumer: Any) -> None:
        """Take over from the new connection's dispatcher when to flush."""
        dispatcher = consumer.event_dispatcher
        if consumer.hub is None or dispatcher is None or not dispatcher.on_send_buffered:
            return
        self._flush_at = None

        def flush() -> None:
            self._flush_at = None
            consumer._flush_events()

        def flush_soon() -> None:
            if self._flush_at is None:
                self._flush_at = consumer.hub.call_later(DELAY_S, flush)

        dispatcher.buffer_limit = EVENTS
        dispatcher.on_send_buffered = flush_soon
        if hasattr(consumer.pool, "flush_events"):
            consumer.pool.flush_events = consumer._flush_events

    def stop(self, consumer: Any) -> None:
        """Send what waits, and what comes from now on as it comes: the hub may not turn again."""
        dispatcher = consumer.event_dispatcher
        if dispatcher is None:
            return
        dispatcher.buffer_limit = 1
        if consumer.connection is not None:
            consumer._flush_events()
