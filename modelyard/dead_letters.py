"""Where requests end that could not be answered: one durable record each, until someone acts."""

from celery import Celery

from modelyard.errors import RequestFailed
from modelyard.messages import DeadLetter
from modelyard.names import DEAD_LETTERS_KEY


def bury(app: Celery, letter: DeadLetter) -> None:
    """Store a dead letter. The request's result is stored after it, by whoever calls this."""
    app.backend.client.hset(DEAD_LETTERS_KEY, letter.id, letter.model_dump_json())


def as_error(letter: DeadLetter) -> RequestFailed:
    """Return the error that a waiting client gets."""
    tried = f" after {len(letter.attempts)} attempts" if letter.attempts else ""
    return RequestFailed(
        f"request {letter.id}: {letter.reason}{tried}: {letter.message}",
        letter.id,
        letter.reason.value,
        [attempt.encode() for attempt in letter.attempts],
    )
