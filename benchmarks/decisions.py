"""Decisions per second of the router on one core, beside scikit-learn's classifier alone.

    python -m benchmarks decisions

A decision is all that happens between a request and its plan: features, ten rules, the learned
classifier where they do not agree, nine intents, the cheapest of three candidates that keeps to a
floor of quality. `new` prompts were never seen before; `known` ones were. The prompts are the
validation rows of CLINC150 (Larson et al. 2019), or made ones where they are missing.

The peer is what people write first: TF-IDF and a linear support vector machine, trained on the same
rows, asked about one prompt at a time, as they come, and about all of them at once.
"""

import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import remembered
from benchmarks.process import ROOT
from benchmarks.results import markdown_table, spread, stamp
from modelyard.catalog import Catalog, Endpoint, Model, Price
from modelyard.messages import Request
from modelyard.routes import Route
from router_worker import features
from router_worker.forward import forward
from router_worker.knowledge import NOTHING
from router_worker.learned.model_file import save_model
from router_worker.learned.train_intents import train_intents
from router_worker.oracles.shelf import BUILTIN_FOLDER, Shelf
from router_worker.policy import decide
from router_worker.rules import View, matches, prepare

ROUNDS: Final = 7
NOW: Final = 1_700_000_000.0
WANTED: Final = {"known": 20_000, "new": 5_000}
"""Decisions a second that a router should make on one core."""

INTENTS: Final = (
    "factual knowledge reasoning creative math analysis code conversational translate".split()
)
KEYWORDS: Final = {
    "analysis": ("summarize", "tl;dr", "key points"),
    "translate": ("translate", "into german", "into french"),
    "code": ("traceback", "stack trace", "pull request"),
    "creative": ("poem", "short story", "song lyrics"),
    "conversational": ("good morning", "thank you"),
    "complaint": ("refund", "money back", "speak to a manager"),
    "legal": ("contract", "liability", "lawsuit"),
}


def catalog() -> Catalog:
    """Return three models, and a hybrid route of ten rules and nine intents."""
    cheapest = {
        "models": ["large", "middle", "small"],
        "choose": "cheapest",
        "quality_floor": 0.6,
    }
    rules = [
        *({"when": {"keywords": words}, "intent": name} for name, words in KEYWORDS.items()),
        {"when": {"pattern": r"\b\d+\s*[-+*/^]\s*\d+"}, "intent": "math"},
        {"when": {"min_tokens": 3_000}, "intent": "long"},
        {"when": {"has": ["code"], "min_complexity": 3}, "intent": "code"},
    ]
    route = Route.model_validate(
        {
            "classifier": "builtin",
            "rules": [{**rule, **cheapest} for rule in rules],
            "intents": dict.fromkeys(INTENTS, cheapest),
            "otherwise": cheapest,
        }
    )
    prices = {"small": (0.15, 0.6, 0.55), "middle": (0.8, 4.0, 0.7), "large": (3.0, 15.0, 0.9)}
    models = tuple(
        Model(
            name=name,
            provider="openai",
            endpoints=(Endpoint(base_url="http://127.0.0.1:9/v1"),),
            price=Price(input_usd_per_mtok=given, output_usd_per_mtok=written),
            quality=quality,
        )
        for name, (given, written, quality) in prices.items()
    )
    return Catalog(models=models, routes={"default": route})


def data_folder() -> Path:
    """Return where data sets are, if there are any."""
    return Path(os.environ.get("MODELYARD_DATA") or ROOT.parent / "shared" / "data")


def texts_of(file: Path) -> list[str]:
    """Return the texts of a file of JSON lines, each once; none if there is no file."""
    if not file.is_file():
        return []
    return list(dict.fromkeys(json.loads(line)["text"] for line in file.open(encoding="utf-8")))


def prompts() -> tuple[list[str], str]:
    """Return short prompts, all different, and what they are."""
    texts = texts_of(data_folder() / "intent_clinc150_val.jsonl")
    if texts:
        return texts, "validation rows of CLINC150"
    verbs = ("explain", "find", "what is", "tell me about", "how do i change", "compare")
    things = ("the weather", "a train", "my password", "this bill", "a recipe", "the exchange rate")
    places = ("in rome", "for my sister", "by friday", "in two words", "on my phone", "at night")
    made = itertools.product(verbs, things, places, ("please", "now", "again", "if you can"))
    return [" ".join(words) for words in made], "made"


def rows() -> list[tuple[str, str]]:
    """Return the rows that the built-in classifier is trained on."""
    return [
        (row["text"], row["intent"])
        for file in sorted((ROOT / "training" / "intents").glob("*.jsonl"))
        if file.stem != "test"
        for row in map(json.loads, file.open(encoding="utf-8"))
    ]


class Bench:
    """A router's decisions about some prompts, again and again."""

    def __init__(self, texts: Sequence[str], builtin: Path) -> None:
        self.catalog = catalog()
        self.route = self.catalog.routes["default"]
        prepare(self.route)
        self.requests = [Request.of(text) for text in texts]
        self.payloads = [{"text": text} for text in texts]
        self._builtin = builtin
        self.forget()

    def forget(self) -> None:
        """Begin as a router that never saw these prompts."""
        features.known.cache_clear()
        shelf = Shelf(Path(), self.catalog, builtin=self._builtin)
        self.knowledge = shelf.knowledge()
        self.oracle = shelf.classifiers["builtin"]

    def decide(self) -> None:
        """Decide about each request."""
        for request in self.requests:
            decide(request, self.catalog, NOW, id="x", knowledge=self.knowledge)

    def forward(self) -> None:
        """Read each request, and decide about it."""
        for payload in self.payloads:
            forward("x", payload, self.catalog, NOW, knowledge=self.knowledge)

    def features(self) -> None:
        """Read the features of each text."""
        for request in self.requests:
            features.features(request)

    def rules(self) -> None:
        """Look which rules match; the features are known."""
        for request in self.requests:
            list(matches(self.route, View(features.features(request), now=NOW)))

    def classify(self) -> None:
        """Ask the classifier about each text."""
        classifier = self.knowledge.classifiers["builtin"]
        for request in self.requests:
            classifier.classify(request.text)

    def without_classifier(self) -> None:
        """Decide about each request by rules alone."""
        for request in self.requests:
            decide(request, self.catalog, NOW, id="x", knowledge=NOTHING)


def cpu_us(work: Callable[[], object], count: int, before: Callable[[], object]) -> float:
    """Return the CPU microseconds that `work` takes for each of `count`, all threads together."""
    before()
    began = time.process_time()
    work()
    return 1e6 * (time.process_time() - began) / count


def nothing() -> None:
    """Do nothing before."""


def measure(texts: Sequence[str], builtin: Path, rounds: int) -> dict[str, Any]:
    """Return CPU microseconds for each decision, and for its parts."""
    bench, count = Bench(texts, builtin), len(texts)
    bench.decide()  # words and patterns are known to a router that runs
    works = {
        "new": (bench.decide, bench.forget),
        "known": (bench.decide, bench.decide),
        "known, with the request's JSON": (bench.forward, bench.decide),
        "known, by rules alone": (bench.without_classifier, bench.decide),
        "features, new": (bench.features, bench.forget),
        "features, known": (bench.features, bench.features),
        "rules": (bench.rules, bench.features),
        "classifier, new": (bench.classify, bench.forget),
        "classifier, known": (bench.classify, bench.classify),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, (work, before) in works.items():
            taken[name].append(cpu_us(work, count, before))
    return {name: spread(each, 1) for name, each in taken.items()}


def peer(learned: Sequence[tuple[str, str]], texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Return CPU microseconds for each prompt of scikit-learn's pipeline, trained on `learned`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    pipeline.fit(*zip(*learned, strict=True))

    def one_by_one() -> None:
        for text in texts:
            pipeline.predict([text])

    return {
        "one by one": spread(
            [cpu_us(one_by_one, len(texts), nothing) for _ in range(min(3, rounds))], 1
        ),
        "all at once": spread(
            [cpu_us(lambda: pipeline.predict(texts), len(texts), nothing) for _ in range(rounds)],
            1,
        ),
    }


def run(rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; raises `ModelyardError` where scikit-learn is missing and a model has to be made."""
    texts, source = prompts()
    learned = rows()
    with tempfile.TemporaryDirectory(prefix="bench-") as made:
        builtin = BUILTIN_FOLDER
        if not builtin.is_dir():
            builtin = Path(made)
            save_model(builtin, {"intents": train_intents(learned, folds=2).part})
        seen = texts_of(data_folder() / "intent_clinc150_train.jsonl")
        return {
            "measured_at": stamp(),
            "rounds": rounds,
            "prompts": len(texts),
            "source": source,
            "model": "built in" if builtin is BUILTIN_FOLDER else "trained for this run",
            "cpu_us": measure(texts, builtin, rounds),
            "peer_cpu_us": peer(learned, texts, rounds),
            "remembered": remembered.measure(builtin, seen, texts, rounds),
        }


def table(result: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    ours, peers = result["cpu_us"], result["peer_cpu_us"]
    single = peers["one by one"]["median"]

    def row(name: str, figures: dict[str, float], wanted: str = "") -> tuple[str, ...]:
        median = figures["median"]
        between = f"{1e6 / figures['max']:,.0f} to {1e6 / figures['min']:,.0f}"
        ratio = f"{single / median:.1f}"
        return name, f"{1e6 / median:,.0f}", between, f"{median:.1f}", ratio, wanted

    body = [
        *(
            row(name, each, f"{WANTED[name]:,}" if name in WANTED else "")
            for name, each in ours.items()
        ),
        *(row(f"scikit-learn, {name}", each) for name, each in peers.items()),
    ]
    head = ("what", "a second", "min to max", "CPU µs", "times scikit-learn", "wanted")
    intro = (
        f"{result['prompts']:,} short prompts ({result['source']}), the median of "
        f"{result['rounds']} rounds, on one core. The classifier is {result['model']}. "
        "scikit-learn only classifies; `new` and `known` decide all of it."
    )
    return f"{intro}\n\n{markdown_table(head, body)}\n\n{remembered.table(result['remembered'])}"
