"""Where a router sends what waits in a queue that no model of the catalog has, and when."""

import time

import pytest
import redis
from inbox_requests import call, send

from modelyard.beat import Beat
from modelyard.catalog import Catalog
from modelyard.claims import DONE, Back, Claims, Want
from modelyard.inbox_item import Item
from modelyard.messages import Call, Draft, Part, Usage
from modelyard.names import BEHIND_KEY_PREFIX, WORKERS_KEY
from modelyard.settings import Settings
from modelyard.stranded import advice
from router_worker.stranded import Stranded, onward

CATALOG = Catalog.model_validate(
    {
        "models": [
            {"name": "a", "provider": "extractive"},
            {"name": "b", "provider": "extractive"},
            {"name": "support", "provider": "people"},
        ],
        "aliases": {"old": "b"},
        "routes": {"default": {"otherwise": ["a"]}},
    }
)
ALL = frozenset({"model.a", "model.b", "batch.model.a", "batch.model.b"})
DRAFT = Draft(model="a", provider_model="p", text="t", usage=Usage(), cost_usd=0.0)


def item(waits: Call | None, queue: str = "model.gone") -> Item:
    model = queue.rpartition("model.")[2]
    return Item("id", model, queue, b"", call=waits)


def sent(
    waits: Call | None,
    queue: str = "model.gone",
    *,
    served: frozenset[str] = ALL,
    due: frozenset[str] | None = None,
) -> str | None:
    due = frozenset({queue}) if due is None else due
    return onward(item(waits, queue), catalog=CATALOG, served=served, due=due)


@pytest.mark.parametrize(
    ("models", "step", "part", "queue"),
    [
        (("gone", "b"), 0, Part.ANSWER, "model.b"),
        (("gone", "gone-too", "a"), 0, Part.MAP, "model.a"),
        (("a", "gone"), 1, Part.ANSWER, None),
        (("gone",), 0, Part.REDUCE, None),
        # Any worker hands it to the people.
        (("gone", "support"), 0, Part.ANSWER, "model.a"),
        (("b", "gone"), 1, Part.MEMBER, "model.b"),
        (("gone", "gone-too"), 1, Part.MEMBER, None),
        (("a", "b"), 0, Part.JUDGE, "model.b"),
        (("gone",), 0, Part.COMBINE, "model.a"),
        (("gone",), 0, Part.SHADOW, "model.a"),
    ],
)
def test_it_goes_to_a_worker_that_can_do_something_about_it(
    models: tuple[str, ...], step: int, part: Part, queue: str | None
) -> None:
    waits = call(models=models, step=step, part=part)
    assert sent(waits) == queue
    assert sent(waits, "batch.model.gone") == (queue and f"batch.{queue}")
    assert sent(waits, due=frozenset()) is None
    assert sent(waits, served=frozenset()) is None


def test_it_goes_to_a_model_whose_queue_is_served() -> None:
    waits = call(models=("gone", "b"))
    assert sent(waits, served=frozenset({"model.a"})) == "model.a"


def test_under_an_alias_it_goes_to_the_models_own_queue_served_or_not() -> None:
    assert sent(call("old"), "batch.model.old", served=frozenset()) == "batch.model.b"


def test_what_expired_ends_unless_there_is_an_answer_to_be_had() -> None:
    late = time.time() - 1
    assert sent(call(models=("gone", "b"), deadline=late)) is None
    assert sent(call(models=("a", "gone"), step=1, drafts=(DRAFT,), deadline=late)) == "model.a"
    assert sent(call(models=("a",), part=Part.JUDGE, deadline=late), due=frozenset()) == "model.a"
    assert sent(None) is None


def test_what_to_do_is_told_of_names_that_are_no_models() -> None:
    assert advice("model.a", CATALOG) == advice("requests", CATALOG) == ""
    assert "'old' is an alias of 'b'" in advice("batch.model.old", CATALOG)
    assert "'gone' is not in the catalog" in advice("model.gone", CATALOG)


def test_nothing_is_moved_before_the_queue_had_no_worker_for_three_leases(
    store: redis.Redis,
) -> None:
    now = [1000.0]
    settings = Settings(lease_s=10.0)
    stranded = Stranded(CATALOG, settings, ("gone",), clock=lambda: now[0])
    send(store, "x", call(models=("gone", "b")), model="gone")
    beat(store, "model.a", "model.b")

    assert list(stranded.sweep(store)) == []
    now[0] += 29
    assert list(stranded.sweep(store)) == []
    # A worker began, and was lost again: the time begins anew.
    beat(store, "model.gone", "model.a", "model.b")
    assert list(stranded.sweep(store)) == []
    now[0] += 2
    beat(store, "model.a", "model.b")
    assert list(stranded.sweep(store)) == []
    now[0] += 30
    (words,) = stranded.sweep(store)
    assert "goes on to model.b" in words
    assert (store.llen("model.gone"), store.llen("model.b")) == (0, 1)
    assert list(stranded.sweep(store)) == []


def test_a_sweep_leaves_off_when_a_worker_has_come(store: redis.Redis) -> None:
    now = [1000.0]
    stranded = Stranded(CATALOG, Settings(lease_s=10.0), ("gone",), clock=lambda: now[0])
    for id in ("x", "y", "z"):
        send(store, id, call(models=("gone", "b")), model="gone")
    beat(store, "model.a", "model.b")
    assert list(stranded.sweep(store)) == []
    now[0] += 31

    sweeping = stranded.sweep(store)
    assert "goes on to model.b" in next(iter(sweeping))
    beat(store, "model.gone", "model.a", "model.b")
    now[0] += 1
    assert list(sweeping) == []
    assert (store.llen("model.gone"), store.llen("model.b")) == (2, 1)


def test_what_is_put_back_is_found_though_its_queue_was_forgotten(store: redis.Redis) -> None:
    """A submit forgets a queue that is empty, as all of it is in a worker's hands."""
    now = [1000.0]
    send(store, "x", call(models=("gone", "b")), model="gone")
    claims = Claims(store)
    (claimed,), _ = claims.claim([Want("model.gone", 1, 1)], 1)
    store.delete(BEHIND_KEY_PREFIX + "requests")
    assert claims.settle([Back(claimed.claim, "model.gone", claimed.message, "next")]) == [DONE]

    stranded = Stranded(CATALOG, Settings(lease_s=10.0), clock=lambda: now[0])
    beat(store, "model.a", "model.b")
    assert list(stranded.sweep(store)) == []
    now[0] += 31
    assert len(list(stranded.sweep(store))) == 1


def beat(store: redis.Redis, *queues: str) -> None:
    """Leave the beat of a worker of these queues."""
    at = store.time()[0]
    said = Beat(
        node="pool@a",
        at=at,
        consumed_at=at,
        turned_at=at,
        lease_s=10.0,
        queues=queues,
        in_flight=0,
        prefetch=4,
        pid=1,
        app="model_workers",
        version="1",
    )
    store.hset(WORKERS_KEY, "pool@a", said.encode())
