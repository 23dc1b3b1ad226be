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

_SAYS: Final = b"\nstopping; Ctrl-C again ends it at once, without waiting for calls in flight\n"
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
            if sys.stderr is not None and sys.stderr.isatty():
                write_error(_SHOW_CURSOR)
            os._exit(EXIT_INTERRUPTED)
        write_error(_SAYS)
        if self._raises:
            self._raises = False
            raise KeyboardInterrupt


def write_error(data: bytes) -> None:
    """Write to standard error, if there is one: allowed in a signal handler, as `print` is not."""
    try:
        if sys.stderr is not None:
            os.write(sys.stderr.fileno(), data)
    except OSError:
        # Nobody can be told, and the signal counts all the same.
        return
