"""What it costs to remember guesses, by how they are remembered, and what it is worth.

Exactly (the text's normal form), by likeness (MinHash), and shared by all routers in Redis. It pays
where looking up costs less than the classifier, times the share of prompts that are found.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.results import markdown_table, spread
from modelyard.embedded_redis import EmbeddedRedis
from router_worker.knowledge import Guess
from router_worker.learned.intents import IntentClassifier
from router_worker.normal import normal
from router_worker.oracles.cache import Cache
from router_worker.oracles.shared import Shared
from router_worker.oracles.similar import Similar, sketch

THRESHOLDS: Final = (0.7, 0.8, 0.9)
BATCHES: Final = (1, 200)


def measure(
    builtin: Path, seen: Sequence[str], texts: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Return microseconds for each prompt, and what likeness finds among `seen` ones."""
    classifier = IntentClassifier.load(builtin)
    forms = [normal(text) for text in texts]
    sketches = [sketch(form) for form in forms]
    guesses: dict[str, Guess] = {form: classifier.classify(form) for form in forms}
    exact, alike = Cache[Guess](), Similar[Guess](min(THRESHOLDS))
    for form, each in zip(forms, sketches, strict=True):
        exact.put(form, guesses[form])
        alike.put(each, guesses[form])
    works: dict[str, Callable[[], object]] = {
        "ask the classifier": lambda: [classifier.classify(form) for form in forms],
        "normal form": lambda: [normal(text) for text in texts],
        "look up exactly": lambda: [exact.get(form) for form in forms],
        "sketch": lambda: [sketch(form) for form in forms],
        "look up by likeness": lambda: [alike.get(each) for each in sketches],
    }
    taken = {
        name: spread([wall_us(work, len(forms)) for _ in range(rounds)], 1)
        for name, work in works.items()
    }
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        EmbeddedRedis(Path(folder)) as redis,
    ):
        shared = Shared.at(redis.url)
        shared.write("bench", guesses, 600)
        for size in BATCHES:
            batches = [forms[start : start + size] for start in range(0, len(forms), size)]
            ask = partial(read_all, shared, batches)
            times = [wall_us(ask, len(forms)) for _ in range(rounds)]
            taken[f"ask Redis, {size} at once"] = spread(times, 1)
    return {"us": taken, "likeness": [likeness(classifier, seen, texts, at) for at in THRESHOLDS]}


def read_all(shared: Shared, batches: Sequence[Sequence[str]]) -> None:
    """Ask Redis about each batch."""
    for each in batches:
        shared.read("bench", each)


def likeness(
    classifier: IntentClassifier, seen: Sequence[str], texts: Sequence[str], threshold: float
) -> dict[str, Any]:
    """Return how many of `texts` are found among those seen, and how often the guess is another."""
    similar = Similar[Guess](threshold, entries=len(seen))
    for text in seen:
        form = normal(text)
        similar.put(sketch(form), classifier.classify(form))
    found = other = 0
    for text in texts:
        form = normal(text)
        guess = similar.get(sketch(form))
        if guess is not None:
            found += 1
            other += guess.intent != classifier.classify(form).intent
    return {
        "threshold": threshold,
        "seen": len(seen),
        "found": found,
        "of": len(texts),
        "other_intent": other,
    }


def wall_us(work: Callable[[], object], count: int) -> float:
    """Return the microseconds that `work` takes for each of `count`."""
    began = time.perf_counter()
    work()
    return 1e6 * (time.perf_counter() - began) / count


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    costs = markdown_table(
        ("a prompt's guess", "µs", "min", "max"),
        [
            (name, *(f"{each[key]:.1f}" for key in ("median", "min", "max")))
            for name, each in result["us"].items()
        ],
    )
    found = markdown_table(
        ("similar to at least", "seen before", "found", "share", "of these, other intent"),
        [
            (
                f"{each['threshold']:g}",
                f"{each['seen']:,}",
                f"{each['found']:,} of {each['of']:,}",
                f"{100 * each['found'] / each['of']:.1f} %",
                f"{100 * each['other_intent'] / max(1, each['found']):.1f} %",
            )
            for each in result["likeness"]
        ],
    )
    return f"{costs}\n\n{found}"
