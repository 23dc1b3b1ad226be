"""Routers that decide by learned models, as real processes, while the models come and go."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from small_models import write_classifier, write_embeddings
from waiting import eventually
from workers import Workers, own_yard

from modelyard.catalog import Catalog, Model
from modelyard.client import Client
from modelyard.messages import Request
from modelyard.names import GUESS_KEY_PREFIX, ROUTER_NODE
from modelyard.plan import Decision
from modelyard.routes import Route
from producer.commands import model_command, router_command
from router_worker.knowledge import Guess
from router_worker.learned.embeddings import open_embedder
from router_worker.learned.intents import IntentClassifier
from router_worker.learned.model_file import save_model
from router_worker.learned.train_intents import train_intents
from router_worker.oracles.shared import Said, Shared, key
from router_worker.oracles.shelf import Shelf

CATALOG = """
models:
  - {name: small, provider: extractive, model: lead}
  - {name: large, provider: extractive, model: lead}
routes:
  default:
    classifier: models/mine
    rules:
      - {when: {keywords: [invoice]}, intent: billing, models: [small]}
    intents: {creative: [large], math: [small]}
    otherwise: [small]
"""
ONE = {"poem": "creative", "sum": "math"}
OTHER = {"poem": "math", "sum": "creative"}


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    with own_yard(tmp_path, catalog=CATALOG) as yard:
        yield yard


def start(yard: Workers) -> None:
    yard.start_router()
    yard.start("pool", model_command("small", "large"))


def decided(client: Client, text: str) -> Decision:
    return client.submit(text).result(30).decision


def test_models_are_replaced_while_the_router_runs(yard: Workers, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    start(yard)
    with yard.client() as client:
        assert decided(client, "a poem about rain").intent == "creative"
        assert decided(client, "the invoice").rule == 0

        write_classifier(folder, OTHER)
        eventually(lambda: decided(client, "a poem about rain").intent == "math")

        for path in folder.glob("*.npz"):
            path.write_bytes(b"no longer a model")
        eventually(
            lambda: decided(client, "a sum") and "stays in use" in yard.log("router"),
            message="the damage is noticed",
        )
        assert decided(client, "another sum").intent == "creative"

        write_classifier(folder, ONE)
        eventually(lambda: decided(client, "a poem about rain").intent == "creative")
        told = inspected(yard)["classifiers"]["models/mine"]
    # A look may fall between the two files of the last model: once more, and no harm.
    assert yard.log("router").count("can't be used") == told["refused"] in {1, 2}
    assert (told["failures"], told["problem"]) == (0, "")


def test_a_model_with_embeddings_is_swapped_in_and_out_while_the_router_runs(
    tmp_path: Path,
) -> None:
    vectors = {"poem": (1.0, 0.0), "sonnet": (1.0, 0.0), "sum": (0.0, 1.0), "total": (0.0, 1.0)}
    write_embeddings(tmp_path / "vectors", vectors)
    rows = [
        (f"{start} {word}", intent)
        for start in ("a", "my", "the", "this")
        for word, intent in ONE.items()
    ]
    rows += [(text, "oos") for text in ("who won", "where am i", "how are you", "is it late")]
    embedder = open_embedder(str(tmp_path / "vectors"))
    part = train_intents(rows, folds=2, embedder=embedder).part
    folder = tmp_path / "models" / "mine"
    write_classifier(folder, ONE)
    catalog = CATALOG.replace("models/mine", "models/mine\n    embeddings: vectors")
    with own_yard(tmp_path, catalog=catalog) as yard, yard.client() as client:
        start(yard)
        assert decided(client, "a sum").intent == "math"
        assert decided(client, "the sonnet").intent == "unknown"

        save_model(folder, {"intents": part})
        eventually(lambda: decided(client, "the sonnet").intent == "creative")
        assert decided(client, "the TOTAL").intent == "math"

        write_classifier(folder, OTHER)
        eventually(lambda: decided(client, "a sum").intent == "creative")
        assert inspected(yard)["classifiers"]["models/mine"]["failures"] == 0


def test_rules_carry_on_without_a_model_until_there_is_one(yard: Workers, tmp_path: Path) -> None:
    start(yard)
    with yard.client() as client:
        assert decided(client, "the invoice").intent == "billing"
        found = decided(client, "a poem about rain")
        assert (found.intent, found.plan.steps[0].model) == ("other", "small")
        assert "rules carry on" in yard.log("router")

        write_classifier(tmp_path / "models" / "mine", ONE)
        eventually(lambda: decided(client, "a poem about rain").intent == "creative")


def test_a_router_process_is_told_what_another_one_found_out(tmp_path: Path) -> None:
    """The second one classifies nothing: what it is asked was asked of the first."""
    write_classifier(tmp_path / "models" / "mine", ONE)
    catalog = CATALOG.replace("    rules:\n", "    cache: {shared: true}\n    rules:\n")
    with own_yard(tmp_path, catalog=catalog) as yard, yard.client() as client:
        yard.start("pool", model_command("small", "large"))
        misses = []
        for _ in range(2):
            yard.start_router()
            assert decided(client, "a poem about rain").intent == "creative"
            cache = inspected(yard)["classifiers"]["models/mine"]["cache"]
            assert isinstance(cache, dict)
            misses.append(cache["misses"])
            yard.stop("router")
    assert misses == [1, 0]


def inspected(yard: Workers) -> dict[str, dict[str, dict[str, object]]]:
    """What `celery inspect learned` says of the router; pools don't know what that is."""
    command = router_command()
    done = subprocess.run(
        [*command[: command.index("worker")], "inspect", "learned", "--json"],
        env=yard.env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said: dict[str, dict[str, dict[str, dict[str, object]]]] = json.loads(done.stdout)
    (router,) = (node for node in said if node.startswith(f"{ROUTER_NODE}@"))
    return said[router]


def shelf_of(folder: Path, url: str) -> Shelf:
    """A shelf of a router that shares its guesses."""
    route = {"classifier": "mine", "cache": {"shared": True}, "otherwise": ["small"]}
    catalog = Catalog(
        models=(Model(name="small", provider="extractive"),),
        routes={"default": Route.model_validate(route)},
    )
    shelf = Shelf(folder, catalog, shared=lambda: Shared.at(url))
    shelf.knowledge()
    return shelf


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """All texts that any classifier was asked about."""
    texts: list[str] = []
    classify = IntentClassifier.classify

    def noting(self: IntentClassifier, text: str) -> Guess:
        texts.append(text)
        return classify(self, text)

    monkeypatch.setattr(IntentClassifier, "classify", noting)
    return texts


def routed(shelf: Shelf, *texts: str) -> list[str]:
    """Route a batch as a router does, and return the intents."""
    payloads = [Request.of(text).encode() for text in texts]
    classifier = shelf.knowledge().classifiers["mine"]
    shelf.ahead([*payloads, {"no": "request"}, None])
    guesses = [classifier.classify(text) for text in texts]
    shelf.share()
    return [guess.intent for guess in guesses if guess is not None]


def test_what_one_router_found_out_the_other_is_told(
    tmp_path: Path, redis_url: str, asked: list[str]
) -> None:
    write_classifier(tmp_path / "mine", ONE)
    one, two = (shelf_of(tmp_path, redis_url) for _ in range(2))

    assert routed(one, "a poem", "a sum") == ["creative", "math"]
    assert routed(two, "A  POEM", "a sum", "my poem") == ["creative", "math", "creative"]

    assert asked == ["a poem", "a sum", "my poem"]
    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys(f"{GUESS_KEY_PREFIX}*")
        assert len(keys) == 3
        assert all(0 < client.ttl(key) <= 86_400 for key in keys)
        assert not any(b"poem" in key for key in keys)


def test_another_model_is_told_nothing_of_the_first(
    tmp_path: Path, redis_url: str, asked: list[str]
) -> None:
    write_classifier(tmp_path / "mine", ONE)
    write_classifier(tmp_path / "new" / "mine", OTHER)
    assert routed(shelf_of(tmp_path, redis_url), "a poem") == ["creative"]
    assert routed(shelf_of(tmp_path / "new", redis_url), "a poem") == ["math"]
    assert asked == ["a poem", "a poem"]


def test_what_is_no_guess_in_redis_is_passed_over(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        shared, good = Shared(client), Said("math", 0.5, unknown=False)
        shared.write("v", {"good": good}, 60)
        values = ("", "{}", "[1, 0.5, false]", '["x", 7.0, true]', '["x", NaN, true]', b"\xff")
        for number, value in enumerate(values):
            client.set(key("v", f"bad {number}"), value)

        bad = [f"bad {number}" for number in range(len(values))]
        assert shared.read("v", ["good", *bad, "unheard of"]) == {"good": good}


def test_a_redis_that_is_away_is_left_alone_for_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: list[str]
) -> None:
    write_classifier(tmp_path / "mine", ONE)
    shelf = shelf_of(tmp_path, "redis://127.0.0.1:1")

    assert routed(shelf, "a poem") == ["creative"]
    assert routed(shelf, "a sum") == ["math"]

    assert caplog.text.count("shared guesses can't be reached") == 1
