"""What autoscalers are told: read from a real Redis, served over HTTP."""

import json
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError

import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from modelyard.alerts import BudgetNews, EndpointNews, News
from modelyard.beat import Beat
from modelyard.catalog import Catalog
from modelyard.client import Client
from modelyard.due import MOST_BYTES, NEXT, SPREAD, Waiting, read_due
from modelyard.errors import BrokerUnavailable
from modelyard.health import Broker, QueueState, Snapshot
from modelyard.messages import Request
from modelyard.names import WORKERS_KEY
from modelyard.publish import envelope
from modelyard.routes import Route
from producer.cli import app
from producer.scale_metrics import ScaleServer
from producer.scale_numbers import Numbers, numbers, read_numbers
from producer.scale_prometheus import State, exposition

CATALOG = Catalog.model_validate(
    {
        "models": [
            {"name": "small", "provider": "extractive", "concurrency": 10, "latency_s": 20},
            {"name": "large", "provider": "extractive", "concurrency": 30, "latency_s": 20},
            {"name": "support", "provider": "people"},
        ],
        "routes": {"default": Route.model_validate({"otherwise": ["small", "large"]})},
    }
)
NOW = 1000.0
QUIET = State(News(), 0, 0)


def beat(node: str, in_flight: int, *models: str, at: float = NOW, stopping: bool = False) -> Beat:
    return Beat(
        node=node,
        at=at,
        consumed_at=at,
        turned_at=at,
        lease_s=10.0,
        queues=tuple(f"{lane}model.{model}" for model in models for lane in ("", "batch.")),
        in_flight=in_flight,
        prefetch=10,
        pid=1,
        app="model_workers",
        version="0",
        stopping=stopping,
    )


def told(
    *beats: Beat,
    queues: tuple[QueueState, ...] = (),
    due: Mapping[str, Sequence[Waiting]] | None = None,
    wait_s: float = 10.0,
) -> dict[str, Numbers]:
    snapshot = Snapshot(broker=Broker(address="x"), at=NOW, beats=beats, queues=queues)
    return numbers(snapshot, CATALOG, wait_s, due)


def test_both_lanes_count_and_the_older_one_tells_the_age() -> None:
    queues = (
        QueueState("model.small", 3, NOW - 5.0),
        QueueState("batch.model.small", 40, NOW - 90.0),
    )
    small = told(beat("a", 10, "small"), queues=queues)["small"]
    assert small == Numbers(queue_length=43, oldest_age_s=90.0, in_flight=10, processes=1, wanted=6)


def test_a_pool_with_nothing_to_do_wants_nobody() -> None:
    assert told()["small"] == Numbers(0, None, 0, 0, 0)
    assert told(beat("a", 0, "small"))["small"].wanted == 0


def test_without_a_worker_one_begins() -> None:
    queues = (QueueState("model.small", 500, NOW),)
    assert told(queues=queues)["small"].wanted == 1


def test_a_lost_workers_calls_are_not_counted_and_a_stopping_ones_are() -> None:
    lost, stopping = beat("a", 5, "small", at=0.0), beat("b", 7, "small", stopping=True)
    small = told(lost, stopping)["small"]
    assert (small.in_flight, small.processes) == (7, 0)


def test_a_worker_of_two_models_is_divided_by_their_concurrency() -> None:
    both = told(beat("a", 20, "small", "large"))
    assert (both["small"].in_flight, both["large"].in_flight) == (5, 15)


def test_what_has_a_deadline_wants_more_than_what_may_wait() -> None:
    queues = (QueueState("model.small", 100, NOW), QueueState("batch.model.small", 400, NOW))
    busy = beat("a", 10, "small")
    patient = told(busy, queues=queues, wait_s=3600.0)["small"]
    assert (patient.due_s, patient.wanted) == (None, 2)
    due = {"model.small": [Waiting(0, NOW - 3.0), Waiting(79, NOW + 55.0)]}
    small = told(busy, queues=queues, due=due, wait_s=3600.0)["small"]
    # 80 and a quarter as many of the other lane, of 30.24 s each, within 50 s.
    assert (small.due_s, small.wanted) == (-3.0, 8)
    assert "due" not in small.as_json()
    # What is in the batch lane waits for four times as many of the other.
    due = {"batch.model.small": [Waiting(9, NOW + 55.0)]}
    assert told(busy, queues=queues, due=due, wait_s=3600.0)["small"].due[0].requests == 50


def test_people_have_no_processes() -> None:
    assert set(told()) == {"small", "large"}


def test_it_is_read_from_redis(redis_url: str) -> None:
    with Client(redis_url) as yard:
        yard.submit_many(["hello"] * 3)
    with redis.Redis.from_url(redis_url) as client:
        # As the router would: onto the model's queue.
        client.rename("requests", "model.small")
        seconds, _ = client.time()
        client.hset(WORKERS_KEY, "a", beat("a", 4, "small", at=seconds).encode())
    small = read_numbers(redis_url, CATALOG, 10.0)["small"]
    assert (small.queue_length, small.in_flight, small.processes) == (3, 4, 1)
    assert small.oldest_age_s is not None
    assert 0.0 <= small.oldest_age_s < 60.0


def queued(client: redis.Redis, texts: Sequence[str], **fields: Any) -> None:
    """Put requests onto the model's queue, as the router would."""
    for text in texts:
        call = {"request": Request.of(text, **fields).encode(), "decision": {}}
        put = envelope(task="modelyard.call", id="x", payload=call, queue="q", summary="")
        client.lpush("model.small", put)


def test_deadlines_are_found_in_messages_and_nowhere_else_in_them(redis_url: str) -> None:
    fake = '{"a":1,"deadline":1900000000.0}'
    with redis.Redis.from_url(redis_url) as client:
        queued(
            client,
            [fake],
            params={"a": 1, "deadline": 9},
            metadata={"a": "b", "deadline": "1900000000"},
        )
        queued(client, [fake], params={"a": 1, "deadline": 9}, deadline=1800000000.25)
        queued(client, ["plain"])
        [found] = read_due(client, ["model.small"])
        assert found == (Waiting(1, 1800000000.25),)
        assert read_due(client, ["model.none", "model.small"]) == [(), found]


def test_of_a_long_queue_the_next_and_some_of_the_rest_are_looked_at(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for number in range(200):
            queued(client, ["x"], deadline=1800000000.0 + number)
        [found] = read_due(client, ["model.small"])
        before = [each.before for each in found]
        assert before[:NEXT] == list(range(NEXT))
        assert (len(before), before[-1]) == (NEXT + SPREAD, 199)
        assert all(each.deadline == 1800000000.0 + each.before for each in found)
        # Of long ones as many as may be read.
        client.delete("model.small")
        queued(client, ["x" * (MOST_BYTES // 2)] * 10, deadline=1800000000.0)
        assert len(read_due(client, ["model.small"])[0]) == 2


def test_prometheus_reads_all_of_it() -> None:
    odd = 'a "b"\\c'
    news = News(
        (EndpointNews("small", odd, "denied", NOW, NOW + 60), EndpointNews("large", "b")),
        (BudgetNews("acme", "*", 1.25, 5.0, "stop"),),
    )
    text = exposition({"small": Numbers(1, 2.5, 3, 1, 4, due_s=-1.5)}, State(news, 7, 100))
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["modelyard_endpoint_open", "small", odd, "denied"] == 1.0
    assert found["modelyard_endpoint_open", "small", odd, "failing"] == 0.0
    assert found["modelyard_endpoint_open", "large", "b", "denied"] == 0.0
    assert (found["modelyard_model_open", "small"], found["modelyard_model_open", "large"]) == (
        1,
        0,
    )
    assert found["modelyard_queue_due_seconds", "small"] == -1.5
    assert found["modelyard_processes_wanted", "small"] == 4.0
    assert (found["modelyard_dead_letters",], found["modelyard_dead_letters_limit",]) == (7, 100)
    assert found["modelyard_budget_spent_usd", "acme", "*", "stop"] == 1.25


def test_a_redis_that_is_away_is_no_empty_queue() -> None:
    with pytest.raises(BrokerUnavailable):
        read_numbers("redis://127.0.0.1:1/0", CATALOG, 10.0)


@contextmanager
def serving(server: ScaleServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_each_model_has_its_path() -> None:
    seen = {"small": Numbers(1, 2.5, 3, 1, 4), "large@v2": Numbers(0, None, 0, 0, 0)}
    with serving(ScaleServer(("127.0.0.1", 0), lambda: seen, lambda: QUIET)) as url:
        small = {
            "queue_length": 1,
            "oldest_age_s": 2.5,
            "due_s": None,
            "in_flight": 3,
            "processes": 1,
            "wanted": 4,
        }
        assert get(f"{url}/scale/small") == (200, small)
        assert get(f"{url}/scale/large%40v2")[1]["wanted"] == 0
        status, every = get(f"{url}/scale")
        assert (status, every["small"], set(every)) == (200, small, set(seen))
        assert get(f"{url}/scale/smal")[0] == 404
        assert get(f"{url}/elsewhere")[0] == 404


def test_what_can_t_be_read_is_an_error_and_no_number() -> None:
    def away() -> dict[str, Numbers]:
        raise BrokerUnavailable("it can't be reached")

    with serving(ScaleServer(("127.0.0.1", 0), away, lambda: QUIET)) as url:
        for path in ("scale/small", "metrics"):
            assert get(f"{url}/{path}") == (503, {"error": "it can't be reached"})


def test_the_command_prints_them_once(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_BROKER_URL", redis_url)
    done = CliRunner().invoke(app, ["scale-metrics", "--once"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["local-small"] == {
        "queue_length": 0,
        "oldest_age_s": None,
        "due_s": None,
        "in_flight": 0,
        "processes": 0,
        "wanted": 0,
    }
