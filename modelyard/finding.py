"""What is not as it should be, and how bad it is."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. A probe succeeds unless it is unhealthy."""

    HEALTHY = "healthy"
    WARNING = "warning"
    ALERT = "alert"
    """A person has to act, and nothing that a restart could mend."""
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be, and what it is about: `broker`, a node, a queue."""

    level: Level
    about: str
    message: str
