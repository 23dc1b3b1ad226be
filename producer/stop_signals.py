"""What tells a yard to stop: signals, and the end of a pipe."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Final, Self


class StopSignals:
    """Counts SIGINT, SIGTERM and SIGHUP instead of dying of them, in the main thread only.

    A signal that whoever started us chose to ignore, as `nohup` does, stays ignored.
    """

    SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def set_when_closed(descriptor: int, event: threading.Event) -> None:
    """Set `event` when the last holder of the other end of this pipe closes it or dies."""

    def read_to_the_end() -> None:
        try:
            while os.read(descriptor, 4096):
                pass
        finally:
            event.set()

    threading.Thread(target=read_to_the_end, name="stdin", daemon=True).start()
