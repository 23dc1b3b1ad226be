"""How experiments stand: which were taken back, by a test or by hand, and which were put in force
again. All routers of a yard read it, so that what one takes back is back everywhere.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

import redis
from pydantic import Field, ValidationError

from modelyard.decision_ledger import BEGIN
from modelyard.names import COUNTERS_KEY, EXPERIMENTS_KEY
from modelyard.scripts import Script
from modelyard.wire import Wire

logger = logging.getLogger("modelyard.experiments")

TAKEN_BACK_COUNTER: Final = "experiments_taken_back"

STAND: Final = Script("experiment_stand")


class Standing(Wire):
    """How one experiment stands since `at`, in seconds since the epoch, and why.

    `statistics` are the figures by which it was taken back. What the ledger had up to the entry
    `after` is not counted any more.
    """

    state: Literal["taken back", "in force"]
    at: float
    by: Literal["test", "hand"]
    why: str = ""
    statistics: dict[str, Any] = Field(default_factory=dict)
    after: str = BEGIN

    @property
    def is_back(self) -> bool:
        """Whether everybody gets the control."""
        return self.state == "taken back"


def standings(client: redis.Redis) -> dict[str, bytes]:
    """Return how each experiment stands, as it is stored. Raises `redis.RedisError`."""
    found: dict[bytes, bytes] = client.hgetall(EXPERIMENTS_KEY)  # type: ignore[assignment]
    return {name.decode(errors="replace"): raw for name, raw in found.items()}


def read_standing(name: str, raw: bytes) -> Standing:
    """Return how an experiment stands; one whose standing can't be read counts as taken back."""
    try:
        return Standing.model_validate_json(raw)
    except ValidationError:
        logger.warning("how experiment %s stands can't be read: it is taken as taken back", name)
        return Standing(state="taken back", at=0.0, by="hand", why="its standing can't be read")


def read_standings(stored: Mapping[str, bytes]) -> dict[str, Standing]:
    """Return what `standings` returned, read."""
    return {name: read_standing(name, raw) for name, raw in stored.items()}


def stand(client: redis.Redis, name: str, standing: Standing, seen: bytes | None) -> bool:
    """Set how an experiment stands, if it stands as `seen` until now (None: nothing was set).

    Returns False if somebody else was first. Raises `redis.RedisError`.
    """
    counter = TAKEN_BACK_COUNTER if standing.is_back else ""
    args = [name, seen or b"", standing.model_dump_json(), counter]
    return bool(STAND(client, [EXPERIMENTS_KEY, COUNTERS_KEY], args))
