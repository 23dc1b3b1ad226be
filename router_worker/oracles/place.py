"""A model's place on the shelf: the folder that is watched, and what was read from it last."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from modelyard.errors import ModelyardError
from router_worker.learned.model_file import Model, load_model
from router_worker.oracles.oracle import Oracle

logger = logging.getLogger("modelyard.router")

V = TypeVar("V")

READING: Final = 1
"""How texts are read and answers written by this code. It is raised where that changes: guesses in
Redis outlive a router, and the next one must not take them for its own."""


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V]):
    """A model in use: its oracle, the version that tells it from others, and when it was made."""

    oracle: Oracle[V]
    version: str
    created: str


class Place(Generic[V]):
    """One model. `what` names it in the log, `read` makes an oracle of what is in the folder."""

    def __init__(self, what: str, folder: Path, read: Callable[[Model], Oracle[V]]) -> None:
        self.loaded: Loaded[V] | None = None
        self.problem = ""
        self.refused = 0
        self.what = what
        self._folder = folder
        self._read = read
        self._failures = 0
        self._files: object = None

    @property
    def failures(self) -> int:
        """How often this model and those before it failed to answer."""
        return self._failures + (self.loaded.oracle.failures if self.loaded else 0)

    def look(self) -> None:
        """Read the folder if its files changed. What can't be read is told once a change."""
        files = files_of(self._folder)
        if files == self._files:
            return
        self._files = files
        try:
            model = load_model(self._folder)
            version = version_of(model)
            if self.loaded is None or self.loaded.version != version:
                self._take(model, version)
            self.problem = ""
        except ModelyardError as error:
            self._refuse(str(error))
        except Exception as error:
            # The folder may hold anything, and routing goes on whatever that is.
            logger.exception("%s can't be read", self.what)
            self._refuse(f"{type(error).__name__}: {error}")

    def report(self) -> dict[str, Any]:
        """Return how it is, as JSON."""
        said: dict[str, Any] = {
            "problem": self.problem,
            "refused": self.refused,
            "failures": self.failures,
        }
        if self.loaded is not None:
            oracle = self.loaded.oracle
            said["version"], said["created"] = self.loaded.version, self.loaded.created
            said["cache"] = {
                "entries": len(oracle.cache),
                "size_bytes": oracle.cache.size_bytes,
                "hits": oracle.cache.hits,
                "misses": oracle.cache.misses,
                "similar_hits": oracle.similar.hits if oracle.similar is not None else 0,
            }
        return said

    def _take(self, model: Model, version: str) -> None:
        # A new oracle remembers nothing: what the old model said is gone with it.
        oracle = self._read(model)
        self._failures = self.failures
        self.loaded = Loaded(oracle, version, model.created)
        logger.info("%s: version %s of %s is in use", self.what, version, model.created)

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        self.refused += 1
        instead = "rules carry on" if self.loaded is None else "the one from before stays in use"
        logger.warning("%s can't be used, %s: %s", self.what, instead, problem)


def files_of(folder: Path) -> object:
    """Return what changes whenever a file of a model does; a folder that is not there has none."""
    try:
        with_sizes = (
            (path.name, path.stat())
            for path in folder.iterdir()
            if path.name == "model.json" or path.suffix == ".npz"
        )
        return sorted(
            (name, seen.st_mtime_ns, seen.st_size, seen.st_ino) for name, seen in with_sizes
        )
    except OSError as error:
        return error.errno


def version_of(model: Model) -> str:
    """Return 16 hex digits that two models share only if they say the same, by the same code."""
    metas = {name: dict(part.meta) for name, part in model.parts.items()}
    whole = json.dumps([READING, model.sha256, metas], sort_keys=True)
    return sha256(whole.encode()).hexdigest()[:16]
