"""Following the catalog file: a worker goes on with what was changed in it, without a restart."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.errors import ModelyardError
from modelyard.settings import Settings

logger = logging.getLogger("modelyard.catalog")

LOOK_EVERY_S: Final = 1.0
"""How often it is looked whether the file changed."""

Signature = tuple[tuple[int, int, int], ...]


class CatalogFollower:
    """Looks at the catalog file, and the price file if there is one, and has a change used.

    A file is read once it has stayed the same from one look to the next: somebody may be writing
    it. One that can't be read, or is no catalog, changes nothing and is told once. `use` is given
    the new catalog. Not for threads; `clock` is in seconds since the epoch.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        use: Callable[[Catalog], None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._use = use
        self._clock = clock
        self.catalog = catalog
        self.loaded_at = clock()
        self.problem: str | None = None
        self._half_used = False
        # What was read at the start may be older than what is there now.
        self._read: Signature | None = None
        self._met: Signature | None = None

    def look(self) -> None:
        """Read the file if it changed. Whatever is wrong with it, nothing is raised."""
        found = signature(self._files)
        if found == self._read:
            return
        if found != self._met:
            self._met = found
            return
        self._read = found
        try:
            catalog = default_catalog(self._settings)
        except ModelyardError as error:
            self.problem = str(error)
            logger.error("the catalog was changed and stays as it was: %s", error)
            return
        except Exception as error:
            self.problem = f"it can't be read: {type(error).__name__}: {error}"
            logger.exception("the catalog was changed and stays as it was")
            return
        if self.problem is not None:
            logger.info("the catalog %s can be read again", self._settings.catalog_path)
        self.problem = None
        if catalog == self.catalog and not self._half_used:
            return
        try:
            self._half_used = True
            self._use(catalog)
        except Exception as error:
            # A catalog that can be read and not used must not end the worker.
            self.problem = f"it can't be used: {type(error).__name__}: {error}"
            logger.exception("the catalog was changed and can't be used")
            return
        self._half_used = False
        self.catalog, self.loaded_at = catalog, self._clock()
        logger.info("catalog %s, changed: %s", self._settings.catalog_path, catalog.summary())

    def report(self) -> dict[str, Any]:
        """Return which catalog is in use, since when, and what is wrong with a newer one."""
        return {
            "path": str(self._settings.catalog_path),
            "loaded_at": self.loaded_at,
            "models": [model.name for model in self.catalog.models],
            "aliases": dict(self.catalog.aliases),
            "problem": self.problem,
        }

    @property
    def _files(self) -> tuple[Path, ...]:
        prices = self._settings.prices
        path = self._settings.catalog_path
        return (path,) if prices is None else (path, prices.expanduser())


def signature(files: tuple[Path, ...]) -> Signature:
    """Return what changes with a file, or when another one takes its place; zeros for none."""
    found = []
    for file in files:
        try:
            stat = os.stat(file)  # noqa: PTH116 - of what a link shows, as Kubernetes mounts it
        except OSError:
            found.append((0, 0, 0))
        else:
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(found)
