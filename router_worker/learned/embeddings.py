"""Embeddings: a text as a row of numbers, made by a model that somebody else trained on much text.

They tell a classifier that two words mean about the same, although it was trained on one of them
only. They come from a folder of a static embedding model, or from a function of the operator's, and
whoever runs the program says which: a model file never does, as it is not trusted. What it has
instead are the embeddings of some texts (`probes`), by which others than those it was trained with
are told.

The folder is that of model2vec (https://github.com/MinishLab/model2vec): a vector for each token,
whose mean is the text's. Nothing is ever downloaded.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from modelyard.entry_point import EntryPointError, NotAFunction, load_function
from modelyard.errors import ModelyardError
from router_worker.learned.network import Floats
from router_worker.learned.ngrams import gist
from router_worker.normal import normal

SCALE: Final = 3.0
"""The length of an embedding among the features, where each block of the vocabulary has length 1.
The network drops many inputs in training, and of a shorter one too little is left."""

BATCH_TEXTS: Final = 1_024
"""A function is asked about so many texts at once, at most."""

PROBES: Final = (
    "where is my order?",
    "please write a short summary of this report",
    "wie lange dauert das noch?",
    "import os; print(os.getcwd())",
)
PROBED_WORDS: Final = 8
"""So many words of the vocabulary are probes, too: in its own field two embeddings may differ that
are alike elsewhere."""

FARTHEST: Final = 0.045
"""The distance between two embeddings of one probe, up to which they count as the same: cosine
0.999. Another machine, library version or precision stays far below, another model far above."""

_DOTTED: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION: Final = re.compile(f"({_DOTTED}):({_DOTTED})")


class EmbeddingsError(ModelyardError):
    """Embeddings can't be had. The message is `embeddings PLACE: WHAT`."""


@dataclass(frozen=True, slots=True, eq=False)
class Embedder:
    """Makes embeddings. It is as safe to share between threads as its function.

    `function` gets a list of texts and returns as many rows of numbers, all of one length: lists,
    or anything that numpy takes for an array. `label` names it to people.
    """

    label: str
    function: Callable[[list[str]], Any]

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Return texts x dimension: rows of length 1, or of length 0 where nothing is known.

        What is embedded of a text is what the vocabulary reads of it, in its normal form: a router
        asks about that. There must be a text. Raises `EmbeddingsError` if the function fails, or
        returns something else.
        """
        return self._rows([normal(gist(text)) for text in texts])

    def remembering(self) -> "Embedder":
        """Return one that asks about each text once. It keeps them all: for training only."""
        known: dict[str, Floats] = {}

        def recall(texts: list[str]) -> Floats:
            new = [text for text in dict.fromkeys(texts) if text not in known]
            if new:
                known.update(zip(new, self._rows(new), strict=True))
            return np.array([known[text] for text in texts])

        return Embedder(self.label, recall)

    def _rows(self, read: list[str]) -> Floats:
        starts = range(0, len(read), BATCH_TEXTS)
        rows = [self._asked(read[start : start + BATCH_TEXTS]) for start in starts]
        if len({each.shape[1] for each in rows}) != 1:
            raise self._error("gives rows of several lengths")
        return np.concatenate(rows)

    def _asked(self, texts: list[str]) -> Floats:
        try:
            # In 64 bits the square of no 32-bit number is infinite.
            rows: NDArray[np.float64] = np.asarray(self.function(texts), dtype=np.float64)
        except Exception as error:
            raise self._error(f"failed: {type(error).__name__}: {error}") from error
        if rows.ndim != 2 or len(rows) != len(texts) or not rows.shape[1]:
            shape = " x ".join(map(str, rows.shape)) or "a single number"
            raise self._error(f"gives {shape} for {len(texts)} texts, not a row for each")
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        if not np.isfinite(length).all():
            raise self._error("gives numbers that are not finite (NaN or infinity), or too large")
        return (rows / np.where(length > 0, length, 1)[:, None]).astype(np.float32)

    def _error(self, what: str) -> EmbeddingsError:
        return EmbeddingsError(f"embeddings {self.label}: {what}")


def open_embedder(place: str, base: Path = Path()) -> Embedder:
    """Return the embedder of a folder, seen from `base`, or of a function, `module:function`.

    Raises `EmbeddingsError` if it is neither, or can't be loaded.
    """
    folder = base / Path(place).expanduser()
    if folder.is_dir():
        return static_model(folder)
    if _FUNCTION.fullmatch(place):
        return Embedder(place, function_of(place))
    raise EmbeddingsError(
        f"embeddings {place}: there is no folder {folder}, and it is not written as "
        "module:function. Nothing is downloaded: put the model into a folder first"
    )


def static_model(folder: Path) -> Embedder:
    """Return the embedder of a folder that model2vec saved. Raises `EmbeddingsError`."""
    try:
        from model2vec import StaticModel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise EmbeddingsError(
            f"embeddings {folder}: a folder needs model2vec: pip install modelyard[embeddings]"
        ) from error
    # A whole path is no name on a hub: a folder that is gone by now is not looked for there.
    whole = folder.resolve()
    try:
        model = StaticModel.from_pretrained(whole)
    except Exception as error:
        raise EmbeddingsError(
            f"embeddings {folder}: is no folder that model2vec can read: {error}"
        ) from error
    # Without a limit: of a document's head and tail the tail must not be cut off.
    encode = partial(model.encode, max_length=None, use_multiprocessing=False)
    return Embedder(whole.name, encode)


def function_of(place: str) -> Callable[[list[str]], Any]:
    """Return the function that `module:function` names. Raises `EmbeddingsError`."""
    try:
        return load_function(place)
    except NotAFunction as error:
        raise EmbeddingsError(f"embeddings {place}: is not a function") from error
    except EntryPointError as error:
        raise EmbeddingsError(f"embeddings {place}: {error}") from error


def probes(keys: Sequence[str]) -> list[str]:
    """Return the texts by which embeddings are told apart, for a vocabulary's keys."""
    words = [key[1:] for key in keys if key.startswith("=")]
    return [*PROBES, *words[:: max(1, len(words) // PROBED_WORDS)][:PROBED_WORDS]]


def distance(one: Floats, other: Floats) -> float:
    """Return how far the embeddings of a probe are from each other at most; 2 is opposite."""
    return float(np.linalg.norm(one.astype(np.float64) - other, axis=1).max())
