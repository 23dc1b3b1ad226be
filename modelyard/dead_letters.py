"""Where requests end that could not be answered: one durable record each, until someone acts."""

from celery import Celery, states
from celery.app.task import Context
from pydantic_core import PydanticSerializationError

from modelyard.errors import RequestFailed
from modelyard.messages import DeadLetter
from modelyard.names import DEAD_LETTERS_KEY

SHOWN_CHARS = 4_000
"""How much is kept of a request that can't be written as JSON."""


def bury(app: Celery, letter: DeadLetter) -> None:
    """Store a dead letter. The request's result is stored after it, by whoever calls this."""
    app.backend.client.hset(DEAD_LETTERS_KEY, letter.id, encode(letter))


def end(app: Celery, letter: DeadLetter, reply_to: str) -> None:
    """Store a dead letter, and then the error that the producer gets."""
    bury(app, letter)
    app.backend.store_result(
        letter.id, as_error(letter), states.FAILURE, request=Context(reply_to=reply_to)
    )


def encode(letter: DeadLetter) -> str:
    """Return the letter as JSON; a request that is none is kept as what Python shows of it."""
    try:
        return letter.model_dump_json()
    except (PydanticSerializationError, ValueError, RecursionError):
        request = {"unreadable": shown(letter.request)}
        return letter.model_copy(update={"request": request}).model_dump_json()


def shown(value: object) -> str:
    """Return `value` as ASCII text, cut to `SHOWN_CHARS`."""
    try:
        return ascii(value)[:SHOWN_CHARS]
    except RecursionError:
        return "nested too deep to be shown"


def as_error(letter: DeadLetter) -> RequestFailed:
    """Return the error that a waiting client gets."""
    tried = f" after {len(letter.attempts)} attempts" if letter.attempts else ""
    return RequestFailed(
        f"request {letter.id}: {letter.reason}{tried}: {letter.message}",
        letter.id,
        letter.reason.value,
        [attempt.encode() for attempt in letter.attempts],
    )
