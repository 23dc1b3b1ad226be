"""Guesses in Redis, for classifiers that take longer than Redis does: what one router found out,
the others need not.

A text is there only as a hash (BLAKE2b, 128 bits) of its normal form, under the version of the
model, so that a new model begins anew and old guesses go by their time. Redis is not needed: away,
or slow, it is left alone for a while, and each router asks its own classifier.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from modelyard.connect import connect
from modelyard.names import GUESS_KEY_PREFIX
from router_worker.knowledge import Guess

logger = logging.getLogger("modelyard.router")

ANSWER_S: Final = 0.2
"""How long Redis may take: longer than that is no gain."""

LEFT_ALONE_S: Final = 5.0
"""For how long a Redis that failed is not asked."""


@dataclass(frozen=True, slots=True)
class Said:
    """What another router's classifier said."""

    intent: str
    confidence: float
    unknown: bool


class Shared:
    """The guesses of all routers. Never raises, and never waits long. `clock` is in seconds."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.failures = 0
        self._client = client
        self._clock = clock
        self._failed_at = -math.inf

    @classmethod
    def at(cls, url: str) -> Self:
        """Return those in the Redis at `url`; nothing is sent yet."""
        return cls(
            connect(
                url,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 0),
            )
        )

    def read(self, version: str, texts: Sequence[str]) -> dict[str, Guess]:
        """Return what is known of these normal forms, by one MGET."""
        if not texts or not self._is_there():
            return {}
        try:
            found = self._client.mget([key(version, text) for text in texts])
        except (redis.RedisError, OSError) as error:
            self._fail(error)
            return {}
        guesses: dict[str, Guess] = {}
        for text, value in zip(texts, found, strict=True):
            guess = None if value is None else decode(value)
            if guess is not None:
                guesses[text] = guess
        return guesses

    def write(self, version: str, guesses: Mapping[str, Guess], ttl_s: int) -> None:
        """Keep guesses for `ttl_s` seconds, in one pipeline."""
        if not guesses or not self._is_there():
            return
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                for text, guess in guesses.items():
                    pipeline.set(key(version, text), encode(guess), ex=ttl_s)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            self._fail(error)

    def _is_there(self) -> bool:
        return self._clock() - self._failed_at >= LEFT_ALONE_S

    def _fail(self, error: Exception) -> None:
        self.failures += 1
        self._failed_at = self._clock()
        logger.warning(
            "shared guesses can't be reached, each router asks for itself for %g s: %s",
            LEFT_ALONE_S,
            error,
        )


def key(version: str, text: str) -> str:
    """Return the key of a normal form."""
    seen = blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{GUESS_KEY_PREFIX}{version}:{seen}"


def encode(guess: Guess) -> str:
    """Return a guess as JSON."""
    said = [guess.intent, float(guess.confidence), bool(guess.unknown)]
    return json.dumps(said, separators=(",", ":"))


def decode(value: bytes | str) -> Said | None:
    """Return a guess that `encode` made, or None for anything else."""
    try:
        intent, confidence, unknown = json.loads(value)
    except (ValueError, TypeError):
        return None
    fine = isinstance(intent, str) and isinstance(confidence, float) and isinstance(unknown, bool)
    return Said(intent, confidence, unknown) if fine and 0.0 <= confidence <= 1.0 else None
