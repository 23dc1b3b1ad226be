"""What makes vectors of prompts: the folder of a static model, or a function of the operator's.

The folder is that of model2vec (https://github.com/MinishLab/model2vec). Nothing is downloaded.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model_workers.answer_cache.prompts import Floats
from modelyard.catalog import Catalog
from modelyard.entry_point import EntryPointError, load_function
from modelyard.errors import ModelyardError

Embed = Callable[[list[str]], Any]
"""Gets texts and returns as many rows of numbers."""


class NoEmbeddings(ModelyardError):
    """Embeddings can't be had. The message is `embeddings PLACE: WHAT`."""


def open_embeddings(place: str, base: Path) -> Embed:
    """Return what embeds: of a folder, seen from `base`, or `module:function`.

    Raises `NoEmbeddings`.
    """
    folder = base / Path(place).expanduser()
    if folder.is_dir():
        return static_model(place, folder)
    try:
        return load_function(place)
    except EntryPointError as error:
        raise NoEmbeddings(
            f"embeddings {place}: there is no folder {folder}, and as a function it {error}"
        ) from error


def static_model(place: str, folder: Path) -> Embed:
    """Return what embeds by a folder that model2vec saved. Raises `NoEmbeddings`."""
    try:
        from model2vec import StaticModel  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NoEmbeddings(
            f"embeddings {place}: a folder needs model2vec: pip install modelyard[embeddings]"
        ) from error
    try:
        # A whole path is no name on a hub: nothing is looked for there.
        model = StaticModel.from_pretrained(folder.resolve())
    except Exception as error:
        raise NoEmbeddings(
            f"embeddings {place}: is no folder that model2vec can read: {error}"
        ) from error
    return partial(model.encode, max_length=None, use_multiprocessing=False)


def vector_of(embed: Embed, place: str, text: str) -> Floats | None:
    """Return the vector of a text, of length 1, or None for a text of which nothing is known.

    Raises `NoEmbeddings`.
    """
    try:
        rows = np.asarray(embed([text]), dtype=np.float64)
    except Exception as error:
        raise NoEmbeddings(f"embeddings {place}: failed: {type(error).__name__}") from error
    if rows.ndim != 2 or len(rows) != 1 or not rows.shape[1]:
        raise NoEmbeddings(f"embeddings {place}: gives {rows.shape} for one text, not one row")
    length = float(np.linalg.norm(rows[0]))
    if not np.isfinite(length):
        raise NoEmbeddings(f"embeddings {place}: gives numbers that are not finite, or too large")
    return (rows[0] / length).astype(np.float32) if length else None


def problems(catalog: Catalog, base: Path) -> Iterator[str]:
    """Yield why routes that ask for similar prompts find only the same; they open what is named."""
    places: dict[str, str] = {}
    for name, route in catalog.routes.items():
        for cache in route.answer_caches:
            place = cache.embeddings or route.embeddings
            if cache.ttl_s and cache.similar is not None and place is not None:
                places.setdefault(place, name)
    for place, name in places.items():
        try:
            vector_of(open_embeddings(place, base), place, "where is my order?")
        except NoEmbeddings as error:
            yield f"route {name!r}: answer_cache: {error}; only the same requests are found"
