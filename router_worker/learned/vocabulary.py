"""The features that a classifier knows, with their numbers and weights.

A text becomes a sparse row: each of its features that is known, once, with the weight
ln((1 + rows) / (1 + rows with the feature)) + 1, the inverse document frequency as in scikit-learn
(https://scikit-learn.org/stable/modules/feature_extraction.html#tfidf-term-weighting). What is
made of whole words and the pieces of words are two blocks, each scaled to length 1, so that the
many pieces do not drown the few words.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router_worker.learned.ngrams import gist, pieces, word_keys, words

MIN_ROWS: Final = 2
"""A feature of a single row teaches only that row."""

CONTEXT_WEIGHT: Final = 0.7
"""What two words, a place or a trait count, where a word counts 1."""

_CACHED_WORDS: Final = 4096


class Vocabulary:
    """The known features in order: their numbers are their positions. `weights` is float32."""

    def __init__(self, keys: Sequence[str], weights: NDArray[np.float32]) -> None:
        self.keys = tuple(keys)
        self.weights = weights
        self._ids = {key: number for number, key in enumerate(self.keys)}
        # The same words come again and again, and their pieces are most of the features.
        self._piece_ids = lru_cache(maxsize=_CACHED_WORDS)(self._look_up_pieces)

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, texts: Sequence[str], limit: int) -> "Vocabulary":
        """Return the features of texts that are in at least two of them, at most `limit`.

        Where there are more, those in the most texts are kept.
        """
        rows: Counter[str] = Counter()
        pieces_of = lru_cache(maxsize=_CACHED_WORDS)(pieces)
        for text in texts:
            read = gist(text)
            found = words(read)
            rows.update(set(word_keys(read, found)))
            rows.update(set(chain.from_iterable(map(pieces_of, set(found)))))
        common = [(count, key) for key, count in rows.items() if count >= MIN_ROWS]
        common.sort(key=lambda each: (-each[0], each[1]))
        kept = sorted(key for _, key in common[:limit])
        counts = np.array([rows[key] for key in kept], dtype=np.float64)
        weights = np.log((1 + len(texts)) / (1 + counts)) + 1
        weights *= [CONTEXT_WEIGHT if is_context(key) else 1.0 for key in kept]
        return cls(kept, weights.astype(np.float32))

    @classmethod
    def unpack(cls, packed: NDArray[np.uint8], weights: NDArray[np.float32]) -> "Vocabulary":
        """Return the vocabulary of packed keys. Raises `ValueError` if they are not one."""
        text = packed.tobytes().decode()
        keys = text.split("\n") if text else []
        if len(keys) != len(weights):
            raise ValueError(f"has {len(keys)} features, and {len(weights)} weights for them")
        if len(set(keys)) != len(keys):
            raise ValueError("has a feature twice")
        if len(weights) and weights.min() <= 0:
            raise ValueError("has a weight that is not above zero")
        return cls(keys, weights)

    def pack(self) -> NDArray[np.uint8]:
        """Return the keys as UTF-8 with newlines between them, which no key has."""
        return np.frombuffer("\n".join(self.keys).encode(), dtype=np.uint8)

    def encode(self, text: str) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Return the numbers of the features of a text, each once, and their values."""
        read = gist(text)
        found = words(read)
        get = self._ids.get
        whole = {i for i in map(get, word_keys(read, found)) if i is not None}
        # In the order of the text: that of a set of texts is another one in each process.
        parts: set[int] = set().union(*map(self._piece_ids, dict.fromkeys(found)))
        ids = np.fromiter(chain(whole, parts), np.intp, len(whole) + len(parts))
        values = self.weights[ids]
        for block in (slice(len(whole)), slice(len(whole), None)):
            if len(values[block]):
                values[block] /= np.sqrt(values[block] @ values[block])
        return ids, values

    def _look_up_pieces(self, word: str) -> tuple[int, ...]:
        get = self._ids.get
        return tuple({i for i in map(get, pieces(word)) if i is not None})


def is_context(key: str) -> bool:
    """Return whether a key is two words, a place or a trait: neither a word nor a piece."""
    return key[0] in "^$~" or " " in key[1:-1]
