"""A clock that nobody sets: an endpoint that is left alone for ten seconds is so for ten seconds.

A machine's own clock may be set by an hour, forward or back, while its worker runs.
"""

import time
from typing import Final

_BEGAN: Final = time.time() - time.monotonic()


def steady() -> float:
    """Return the time in seconds since the epoch, as counted on since this process began."""
    return _BEGAN + time.monotonic()
