"""What a yard in the foreground does, in a file: a terminal forgets, and has less of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append what the yard says to a file in a folder that there is. Raises `OSError`.

    What is no warning stays out of the terminal, as it was.
    """
    yard = logging.getLogger("modelyard.yard")
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(LINE))
    root = logging.getLogger()
    levels = [(handler, handler.level) for handler in root.handlers]
    before, least = yard.level, yard.getEffectiveLevel()
    for handler, level in levels:
        handler.setLevel(max(level, least))
    yard.addHandler(file)
    yard.setLevel(min(least, logging.INFO))
    try:
        yield
    finally:
        yard.removeHandler(file)
        yard.setLevel(before)
        file.close()
        for handler, level in levels:
            handler.setLevel(level)
