"""Learned models that are small enough to be written by hand, for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from router_worker.learned.intents import to_part as intents_part
from router_worker.learned.model_file import save_model
from router_worker.learned.network import Network
from router_worker.learned.part import Part
from router_worker.learned.quality import BUCKETS, QualityPredictor
from router_worker.learned.shape import NAMES
from router_worker.learned.trees import LEAVES, NODES, Trees
from router_worker.learned.vocabulary import Vocabulary


def classifier_part(intents: Mapping[str, str]) -> Part:
    """Return a classifier that knows words and their intents; all else is unknown to it."""
    words, labels = sorted(intents), sorted(set(intents.values()))
    first = np.array([[intents[word] == label for label in labels] for word in words], np.float32)
    network = Network(
        w1=first,
        b1=np.zeros(len(labels), np.float32),
        w2=10 * np.eye(len(labels), dtype=np.float32),
        b2=np.zeros(len(labels), np.float32),
    )
    vocabulary = Vocabulary([f"={word}" for word in words], np.ones(len(words), np.float32))
    return intents_part(vocabulary, network, labels, temperature=1.0, gate=0.0)


def predictor_part(chances: Mapping[str, float]) -> Part:
    """Return a predictor that says the same of every text; chances are between 0 and 1."""
    n, size = len(chances), len(NAMES)
    odds = [np.log(chance / (1 - chance)) for chance in chances.values()]
    predictor = QualityPredictor(
        models=tuple(chances),
        table=np.zeros((BUCKETS, n + 1), np.float32),
        shape_mean=np.zeros(size, np.float32),
        shape_deviation=np.ones(size, np.float32),
        shape_weight=np.zeros((size, n), np.float32),
        bias=np.array(odds, np.float32),
        trees=Trees(
            feature=np.zeros((n, 1, NODES), np.int16),
            threshold=np.zeros((n, 1, NODES), np.float32),
            leaf=np.zeros((n, 1, LEAVES), np.float32),
        ),
        blend=np.array([[1.0] * n, [0.0] * n, [0.0] * n], np.float32),
    )
    return Part(*predictor.to_part())


def write_classifier(folder: Path, intents: Mapping[str, str]) -> None:
    """Write a model folder with a classifier, or replace it."""
    save_model(folder, {"intents": classifier_part(intents)})


def write_predictor(folder: Path, chances: Mapping[str, float]) -> None:
    """Write a model folder with a predictor, or replace it."""
    save_model(folder, {"quality": predictor_part(chances)})


def write_embeddings(folder: Path, vectors: Mapping[str, Sequence[float]]) -> None:
    """Write a folder of a static embedding model that knows these words, as model2vec saves it."""
    from model2vec import StaticModel
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = ["[UNK]", *vectors]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    width = len(next(iter(vectors.values())))
    table = np.array([[0.0] * width, *vectors.values()], np.float32)
    StaticModel(table, tokenizer).save_pretrained(folder)
