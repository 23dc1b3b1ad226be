"""Ctrl-C in a command that has something to finish: the first asks, the second ends it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from producer.stop_signals import StopSignals

EXIT_INTERRUPTED: Final = 130
"""What shells report for a command that Ctrl-C ended: 128 and the signal's number."""

_SHOW_CURSOR: Final = b"\x1b[?25h"


class Interrupts(StopSignals):
    """Counts signals to stop: the first makes `wanted` true, the second ends us at once."""

    def __init__(self) -> None:
        super().__init__()
        self._raises = False

    def wanted(self) -> bool:
        """Return whether somebody wants us to stop."""
        return self.count > 0

    @contextmanager
    def breaking(self) -> Iterator[None]:
        """Let the first signal raise `KeyboardInterrupt`: for waiting that has no other end."""
        self._raises = True
        try:
            if self.count:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False

    def _received(self, number: int, frame: FrameType | None) -> None:
        super()._received(number, frame)
        if self.count > 1:
            # No cleaning up, which may be what takes so long: all that we leave can be resumed.
            if sys.stderr.isatty():
                os.write(sys.stderr.fileno(), _SHOW_CURSOR)
            os._exit(EXIT_INTERRUPTED)
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt
