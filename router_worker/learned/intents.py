"""The intent classifier: what a text is about, how surely, and whether it is none of what it knows.

A text's features (`vocabulary`) are summed as rows of small integers, pass one layer of rectified
units (`network`) and become a logit for each intent. From these come two separate answers:

- `confidence`: the probability that the intent is right if it is any of them, softmax at a
  temperature fitted on rows that the network had not seen (Guo et al. 2017, arXiv:1706.04599);
- `unknown`: whether the best logit stands too little above the others, and above that of the
  out-of-scope rows if there were any in training. Such rows have a logit of their own, which is
  never an answer: alone it finds few of them, against the best logit it finds most. A text in a
  script that was hardly trained on (`scripts`) is unknown, too.

One that was trained with embeddings (`embeddings`) adds a text's embedding to these features. Else
deciding needs numpy only, and takes some 0.05 ms for a short text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router_worker.learned.embeddings import FARTHEST, SCALE, Embedder, distance, probes
from router_worker.learned.model_file import Model, load_model
from router_worker.learned.network import Floats, Network, softmax
from router_worker.learned.ngrams import gist
from router_worker.learned.part import Part
from router_worker.learned.scripts import is_foreign, scripts_of
from router_worker.learned.vocabulary import Vocabulary

PART: Final = "intents"
"""The name of the classifier's part in a model folder."""

_LABEL_CHARS: Final = 80

_BLOCK: Final = 512
"""Rows of so many features become numbers of 4 bytes at once: they fit the processor's cache."""

_LARGE: Final = 1e6
"""No trained weight comes near; larger ones could add up to infinity."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a text is about.

    `confidence` (0 to 1) is how often such a guess is right, given that the text is about one of
    the known intents; `unknown` says that it is probably about none of them. `runner_up` is the
    second-best intent, and `margin` how far its probability is below that of the first.
    `score` is what the gate looks at: the guess is unknown if it is below the gate.
    """

    intent: str
    confidence: float
    unknown: bool
    runner_up: str
    margin: float
    score: float


class IntentClassifier:
    """A trained classifier, ready to decide.

    It is immutable and safe to share between threads, if its embedder is.
    """

    def __init__(self, part: Part, embedder: Embedder | None = None) -> None:
        """Take a part of a model, and the embedder it was trained with if it was with one.

        Raises `ModelFileError` if it is not a classifier, or wants embeddings and these are none or
        others, and `EmbeddingsError` if the embedder fails. One that wants none leaves it alone.
        """
        self.labels = part.names("labels")
        if len(self.labels) < 2:
            raise part.error("has fewer than two labels")
        self.temperature = part.number("temperature", 1e-3, 1e3)
        self.gate = part.number("gate", -_LARGE, _LARGE)
        packed = part.array("keys", "uint8", (None,))
        weights = part.array("weights", "float32", (None,))
        try:
            self._vocabulary = Vocabulary.unpack(packed, weights)
        except ValueError as error:
            raise part.error(f"its vocabulary {error}") from error
        self._scripts = scripts_of(self._vocabulary.keys)
        self._rows = part.array("rows", "int8", (len(weights), None))
        units = self._rows.shape[1]
        self._scales = part.array("scales", "float32", (len(weights),))
        self._b1 = part.array("b1", "float32", (units,))
        self._w2 = part.array("w2", "float32", (units, None))
        outputs = self._w2.shape[1]
        self._b2 = part.array("b2", "float32", (outputs,))
        if outputs - len(self.labels) not in (0, 1):
            raise part.error(f"has {len(self.labels)} labels, and {outputs} outputs for them")
        for array in (weights, self._scales, self._b1, self._w2, self._b2):
            if array.size and np.abs(array).max() > _LARGE:
                raise part.error("has weights that are too large")
        self._embedder = None
        label = embeddings_of(part)
        if label is not None:
            self._embedding = part.array("embedding", "float32", (None, units))
            if np.abs(self._embedding).max(initial=0) > _LARGE:
                raise part.error("has weights that are too large")
            self._embedder = self._checked(part, label, embedder)

    @classmethod
    def load(cls, folder: Path, embedder: Embedder | None = None) -> "IntentClassifier":
        """Return the classifier of a model folder. Raises as the constructor does."""
        return cls.of(load_model(folder), embedder)

    @classmethod
    def of(cls, model: Model, embedder: Embedder | None = None) -> "IntentClassifier":
        """Return the classifier of a model. Raises as the constructor does."""
        return cls(model.part(PART), embedder)

    def classify(self, text: str) -> Guess:
        """Return what a text is about.

        A text without any known feature, or in a script that was hardly trained on, is unknown.
        """
        logits, known = self._logits(text)
        # Embeddings may know the script, whatever the words are.
        if self._embedder is None:
            known = known and not is_foreign(gist(text), self._scripts)
        count = len(self.labels)
        inside = logits[:count]
        best = int(inside.argmax())
        powers = np.exp((inside - inside[best]) / self.temperature)
        total = float(powers.sum())
        powers[best] = -1
        second = int(powers.argmax())
        score = float(gate_scores(logits, count))
        return Guess(
            intent=self.labels[best],
            confidence=1 / total,
            unknown=not known or score < self.gate,
            runner_up=self.labels[second],
            margin=(1 - float(powers[second])) / total,
            score=score,
        )

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return texts x labels: the probability of each intent, for evaluation."""
        logits = np.zeros((len(texts), self._w2.shape[1]), np.float32)
        for number, text in enumerate(texts):
            logits[number] = self._logits(text)[0]
        return softmax(logits[:, : len(self.labels)] / np.float32(self.temperature))

    def _logits(self, text: str) -> tuple[Floats, bool]:
        ids, values = self._vocabulary.encode(text)
        values *= self._scales[ids]
        hidden = self._b1.copy()
        for top in range(0, len(ids), _BLOCK):
            block = slice(top, top + _BLOCK)
            hidden += values[block] @ self._rows[ids[block]].astype(np.float32)
        known = len(ids) > 0
        if self._embedder is not None:
            (embedded,) = self._embedder([text])
            hidden += embedded @ self._embedding
            known = known or bool(embedded.any())
        return np.maximum(hidden, 0, out=hidden) @ self._w2 + self._b2, known

    def _checked(self, part: Part, label: str, embedder: Embedder | None) -> Embedder:
        """Return the embedder if it is the one that was trained with."""
        if embedder is None:
            raise part.error(
                f"was trained with embeddings ({label}), and none are given: name them by "
                "`embeddings:` beside `classifier:` in the catalog, or by --embeddings"
            )
        texts = probes(self._vocabulary.keys)
        kept = part.array("probes", "float32", (len(texts), len(self._embedding)))
        found = embedder(texts)
        instead = f"and {embedder.label} is given: name the right ones, or train the model again"
        if found.shape != kept.shape:
            raise part.error(
                f"was trained with embeddings ({label}) of {kept.shape[1]} numbers, "
                f"not of {found.shape[1]}, {instead}"
            )
        if distance(found, kept) > FARTHEST:
            raise part.error(f"was trained with other embeddings ({label}), {instead}")
        return embedder


def wants_embeddings(model: Model) -> bool:
    """Return whether the classifier of a model needs an embedder. Raises `ModelFileError`."""
    return embeddings_of(model.part(PART)) is not None


def embeddings_of(part: Part) -> str | None:
    """Return what people call the embeddings that a classifier wants, or None if it wants none."""
    label = part.meta.get("embeddings")
    if label is not None and not isinstance(label, str):
        raise part.error("'embeddings' is not a text")
    return None if label is None else repr(label[:_LABEL_CHARS])


def gate_scores(logits: Floats, count: int) -> NDArray[np.float32]:
    """Return how far the best of the first `count` logits stands out, for each row of logits.

    It is measured from the mean of these, and where there is one more logit, which is that of
    out-of-scope rows, from halfway between that mean and it.
    """
    inside = logits[..., :count]
    ground = inside.mean(axis=-1)
    if logits.shape[-1] > count:
        ground = (ground + logits[..., count]) / 2
    found: NDArray[np.float32] = inside.max(axis=-1) - ground
    return found


def to_part(
    vocabulary: Vocabulary,
    network: Network,
    labels: Sequence[str],
    temperature: float,
    gate: float,
    embedder: Embedder | None = None,
) -> Part:
    """Return a classifier as a part of a model, with the first layer rounded to 8 bits.

    With an embedder, the network's last inputs are an embedding times `SCALE`.
    """
    w1 = network.w1[: len(vocabulary)]
    largest = np.abs(w1).max(axis=1, initial=0)
    scales = np.maximum(largest, np.float32(1e-8)) / np.float32(127)
    rows = np.rint(w1 / scales[:, None]).astype(np.int8)
    more_meta: dict[str, str] = {}
    more_arrays: dict[str, Floats] = {}
    if embedder is not None:
        more_meta = {"embeddings": embedder.label}
        more_arrays = {
            "embedding": network.w1[len(vocabulary) :] * np.float32(SCALE),
            "probes": embedder(probes(vocabulary.keys)),
        }
    return Part(
        meta={"labels": list(labels), "temperature": temperature, "gate": gate, **more_meta},
        arrays={
            "keys": vocabulary.pack(),
            "weights": vocabulary.weights,
            "rows": rows,
            "scales": scales.astype(np.float32),
            "b1": network.b1,
            "w2": network.w2,
            "b2": network.b2,
            **more_arrays,
        },
    )
