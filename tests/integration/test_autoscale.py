"""Pools that grow by what waits and shrink after it, and lose nothing by it."""

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from test_yard import running
from waiting import eventually
from workers import CATALOG, KEY

from modelyard.beat import Beat
from modelyard.catalog_file import load_catalog
from modelyard.client import Client
from modelyard.names import WORKERS_KEY
from modelyard.settings import Settings
from modelyard.testing import FakeProvider, Gate, Reply
from producer.autoscale import Scale
from producer.children import Children, ChildSpec
from producer.yard import Yard

NOTES_SIGTERM = """
import pathlib, signal, sys, time
told = pathlib.Path(sys.argv[1])
def finish(*_):
    with told.open("a") as file: file.write("TERM ")
    time.sleep(0.3)  # a call in flight takes a moment to come back
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
told.write_text("ready ")
while True: signal.pause()
"""

MOST = 3
PLACES = 2


def pool(url: str) -> list[str]:
    """The processes of `small` that take requests."""
    with redis.Redis.from_url(url) as client:
        beats = [Beat.decode(each) for each in client.hvals(WORKERS_KEY)]
    return [beat.node for beat in beats if "model.small" in beat.queues and not beat.stopping]


def test_a_process_that_is_retired_is_told_once_and_not_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def spec(name: str) -> ChildSpec:
        return ChildSpec(name, (sys.executable, "-c", NOTES_SIGTERM, str(tmp_path / name)))

    def said(name: str) -> str:
        path = tmp_path / name
        return path.read_text() if path.exists() else ""

    children = Children([spec("first")], log_dir=tmp_path / "logs", env=os.environ)
    children.start()
    try:
        children.add(spec("second"))
        eventually(lambda: said("first") and said("second"))
        children.retire("second")
        children.retire("second")
        children.watch()
        eventually(lambda: "TERM" in said("second"))

        def has_ended() -> bool:
            children.watch()
            return children.names() == {"first"}

        eventually(has_ended)
    finally:
        children.stop(20)
    assert said("second") == said("first") == "ready TERM "
    assert "died" not in caplog.text


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProvider]:
    text = CATALOG.replace("concurrency: 20", f"concurrency: {PLACES}", 1)
    (tmp_path / "catalog.yaml").write_text(text)
    monkeypatch.setenv("MODELYARD_LEASE_S", "2")
    with FakeProvider(api_key=KEY) as provider:
        monkeypatch.setenv("FAKE_URL", provider.base_url)
        monkeypatch.setenv("FAKE_KEY", KEY)
        yield provider


@pytest.mark.timeout(300)
def test_a_backlog_grows_a_pool_that_shrinks_after_it_and_all_is_answered_once(
    tmp_path: Path, redis_url: str, fake: FakeProvider
) -> None:
    path = tmp_path / "catalog.yaml"
    catalog = load_catalog(path, os.environ)
    scale = Scale(catalog, MOST, cooldown_s=3.0)
    yard = Yard(redis_url, tmp_path, ["small"], flower=False, catalog=path, scale=scale)
    backlog, later = Gate(), Gate()
    fake.always("provider-small", Reply(text="first", gate=backlog))
    settings = Settings(catalog=path)
    told: list[str] = []
    with running(yard, told.append), Client(redis_url, settings=settings) as client:
        handles = client.submit_many(["Summarize: a story"] * 40, models=["small"])
        # All places of all processes that there may be, and no more.
        fake.wait_until(lambda fake: fake.in_flight == MOST * PLACES, timeout_s=90)
        assert len(fake.calls) == 0
        backlog.open()
        assert [handle.result(90).text for handle in handles] == ["first"] * 40

        # Three calls are too few for three processes and too many for one.
        fake.always("provider-small", Reply(text="second", gate=later))
        handles = client.submit_many(["Summarize: a story"] * 3, models=["small"])
        fake.wait_until(lambda fake: fake.in_flight == 3, timeout_s=60)
        eventually(lambda: len(pool(redis_url)) == 2, timeout_s=90)
        later.open()
        assert [handle.result(90).text for handle in handles] == ["second"] * 3

        eventually(lambda: len(pool(redis_url)) == 1, timeout_s=90)
        assert client.submit("Summarize: more", models=["small"]).result(90).text == "second"
    assert len(fake.calls) == 44
    # Each change is one line for people.
    assert told[0].startswith(f"small: {MOST} processes, 1 before: ")
    assert told[-1].startswith("small: 1 process, 2 before: ")


def growth(caplog: pytest.LogCaptureFixture) -> str:
    """How the pool grew first, as its yard says it; nothing if it did not."""
    said = [record.getMessage() for record in caplog.records if record.name == "modelyard.yard"]
    return next((each for each in said if "processes, 1 before" in each), "")


@pytest.mark.timeout(300)
def test_what_has_a_deadline_grows_a_pool_at_once_and_what_may_wait_does_not(
    tmp_path: Path, redis_url: str, fake: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "catalog.yaml"
    # A call takes two minutes, says the catalog, and what waits may wait for an hour.
    slow = path.read_text().replace("timeout_s: 20", "timeout_s: 200\n    latency_s: 120", 1)
    path.write_text(slow)
    scale = Scale(load_catalog(path, os.environ), MOST, max_wait_s=3600.0, cooldown_s=3.0)
    yard = Yard(redis_url, tmp_path, ["small"], flower=False, catalog=path, scale=scale)
    urgent, patient = Gate(), Gate()
    fake.always("provider-small", Reply(text="urgent", gate=urgent))
    caplog.set_level(logging.INFO, "modelyard.yard")
    with running(yard), Client(redis_url, settings=Settings(catalog=path)) as client:
        texts = ["Summarize: a story"] * (MOST * PLACES)
        handles = client.submit_many(texts, models=["small"], deadline_s=150.0)
        # All of them are called long before that, by processes that were started together.
        fake.wait_until(lambda fake: fake.in_flight == MOST * PLACES, timeout_s=90)
        assert growth(caplog).startswith(f"small: {MOST} processes, 1 before")
        assert "the first deadline in" in growth(caplog)
        urgent.open()
        assert [each.result(90).text for each in handles] == ["urgent"] * len(texts)
        eventually(lambda: len(pool(redis_url)) == 1, timeout_s=90)

        caplog.clear()
        fake.always("provider-small", Reply(text="patient", gate=patient))
        handles = client.submit_many(texts, models=["small"])
        eventually(lambda: growth(caplog), timeout_s=90)
        assert growth(caplog).startswith("small: 2 processes, 1 before")
        patient.open()
        assert [each.result(90).text for each in handles] == ["patient"] * len(texts)
