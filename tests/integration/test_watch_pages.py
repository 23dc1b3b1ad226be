"""How the ledger of a busy yard is read: page by page, and never faster than it has to be."""

import threading
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from ledger_entries import entry, put
from test_watch import BROKEN, NOW, canary, catalog
from waiting import eventually

from modelyard.decision_ledger import PAGE, Entry
from modelyard.holdings import ledger
from modelyard.settings import Settings
from router_worker.basis import Basis
from router_worker.batch import Batch
from router_worker.experiments.watch import Progress, Watch
from router_worker.now import read_all


class Busy(redis.Redis):
    """A yard in which a request is answered between any two looks at its ledger."""

    looks = 0

    def xrange(self, *args: Any, **options: Any) -> Any:
        type(self).looks += 1
        assert self.looks < 10, "it never ends"
        put(self, entry())
        return super().xrange(*args, **options)


def test_only_a_full_page_says_that_there_may_be_more(store: redis.Redis) -> None:
    progress = Progress(catalog(canary()), store)
    assert not progress.read(NOW)
    put(store, entry())
    assert not progress.read(NOW)

    put(store, *[entry()] * (PAGE + 1))
    assert progress.read(NOW)
    assert not progress.read(NOW)


def test_reading_all_of_a_busy_yard_s_ledger_ends(
    redis_url: str, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Busy, "looks", 0)
    put(store, *[entry(model="large")] * (PAGE + 20))
    with Busy.from_url(redis_url) as busy:
        known = read_all(catalog(choose="cheapest"), busy).seen().observed.latency_s
    assert known["large"] == pytest.approx(0.2)
    assert Busy.looks == 2


def test_while_it_is_behind_routers_keep_what_they_knew_of_models(
    redis_url: str, store: redis.Redis
) -> None:
    """But what is taken back is so at once."""
    second, go_on = threading.Event(), threading.Event()

    class Slow(redis.Redis):
        pages = 0

        def xrange(self, *args: Any, **options: Any) -> Any:
            type(self).pages += 1
            if self.pages == 3:  # one page of the two was acted on, and so was what it took back
                second.set()
                assert go_on.wait(30)
            return super().xrange(*args, **options)

    def took(seconds: float) -> Entry:
        return entry(calls={"small": {"made": 1, "failed": 0, "answered_s": seconds}})

    put(store, *[BROKEN] * 10, *[took(30.0)] * (2 * PAGE - 10), *[took(0.5)] * 200)
    watch = Watch(catalog(canary()), lambda: Slow.from_url(redis_url))
    known = watch.seen.observed
    watch.start()
    try:
        assert second.wait(30)
        assert watch.seen.observed is known
        assert watch.seen.taken_back == {"try"}
        go_on.set()
        eventually(lambda: watch.seen.observed is not known)
        assert watch.seen.observed.latency_s["small"] == pytest.approx(0.5, rel=0.01)
    finally:
        go_on.set()
        watch.stop()


@pytest.mark.parametrize(
    ("payload", "asked"),
    [
        ({"text": "hello", "deadline": "x"}, False),
        ({"text": "hello", "deadline": 1.0}, False),
        ({"text": "hello", "route": "nope", "limits": {"max_latency_s": 1}}, False),
        ({"text": "hello", "limits": {"max_latency_s": 60}}, True),
        ({"text": "hello"}, False),
    ],
)
def test_only_a_request_that_was_forwarded_has_the_ledger_followed(
    redis_url: str, store: redis.Redis, payload: Any, asked: bool
) -> None:
    basis = Basis(catalog(), Settings(), redis_url)
    batch = Batch("route", lambda: basis, 60, consumer())
    ledger.claimed(["a"])
    batch.take(
        SimpleNamespace(
            headers={"id": "a"},
            properties={},
            delivery_tag="a",
            payload=([payload], {}, {}),
            channel=SimpleNamespace(
                claims=SimpleNamespace(settle=lambda all: [1] * len(all)),
                handover=SimpleNamespace(after=[]),
            ),
            ack=lambda: None,
        )
    )
    before = watches()
    try:
        batch.flush()
        assert bool(watches() - before) is asked
    finally:
        basis.stop()


def watches() -> set[threading.Thread]:
    """Who follows a ledger."""
    return {thread for thread in threading.enumerate() if thread.name == "watch"}


def consumer() -> Any:
    """Celery's, as far as a batch needs it."""
    after: Callable[..., None] = lambda _seconds, _act: None  # noqa: E731
    state = SimpleNamespace(revoked=set(), total_count=Counter[str](), maybe_shutdown=int)
    return SimpleNamespace(
        controller=SimpleNamespace(state=state),
        event_dispatcher=None,
        timer=SimpleNamespace(call_after=after),
    )
