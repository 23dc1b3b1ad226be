"""`make bench` measures what it says: runs that are too small to say how fast anything is."""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import backlog, balancing, comparison, gateway, results, stages
from benchmarks.__main__ import main
from benchmarks.comparison import Amount
from benchmarks.environment import Environment, NoEnvironment
from benchmarks.litellm_proxy import GatewayClient, litellm_proxy
from benchmarks.pace import arrivals, paced
from benchmarks.zero_endpoint import BODY, Calls, Endpoint, ZeroEndpoint


def read(folder: Path, what: str) -> tuple[dict[str, Any], str]:
    (file,) = folder.glob(f"*-{what}.json")
    return json.loads(file.read_text()), file.with_suffix(".md").read_text()


@pytest.mark.usefixtures("redis_server")
def test_the_pipeline_is_measured_beside_plain_celery(tmp_path: Path) -> None:
    assert main(["pipeline", "--quick", "--requests", "20", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "pipeline")
    assert set(result["rounds"]) == {"modelyard", "plain Celery"}
    for name in ("p50_ms", "p99_ms", "requests_per_s", "paced p50_ms", "cpu_ms together"):
        figure = result["figures"][name]
        assert figure["ours"]["median"] > 0
        assert figure["ratio"]["median"] == pytest.approx(
            figure["ours"]["median"] / figure["peer"]["median"], rel=0.01, abs=0.001
        )
    for rounds in result["rounds"].values():
        cpu_ms = rounds[0]["cpu_ms"]
        assert cpu_ms["together"] == pytest.approx(
            cpu_ms["client"] + cpu_ms["router"] + cpu_ms["pool"]
        )
        assert cpu_ms["redis"] > 0
        assert all(mib > 1 for mib in rounds[0]["rss_mib"].values())
    assert result["machine"]["cores"] >= 1
    assert "| one at a time, p50, ms |" in page
    assert "| requests/s, times plain Celery | ≥ 5 |" in page


@pytest.mark.usefixtures("redis_server")
def test_a_pool_that_waits_is_measured(tmp_path: Path) -> None:
    assert main(["waiting", "--quick", "--requests", "20", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "waiting")
    assert [each["in_flight"] for each in result["rounds"]] == [20] * 3
    assert all(each["mib"] > 1 and each["core"] >= 0 for each in result["rounds"])
    assert "Wanted: under 300 MB" in page


@pytest.mark.usefixtures("redis_server")
def test_endpoints_with_moods_are_measured_without_the_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Environment(tmp_path / "nowhere", ("litellm",))
    monkeypatch.setattr(balancing, "ENVIRONMENT", missing)
    assert main(["balancing", "--quick", "--no-install", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "balancing")
    ((ours,),) = result["rounds"].values()
    assert ours["answered"] == ours["requests"] > 0
    assert ours["paid"] >= ours["answered"]
    assert "LiteLLM was not there" in page


@pytest.mark.usefixtures("redis_server")
def test_a_backlog_is_measured_part_by_part(tmp_path: Path) -> None:
    assert main(["backlog", "--quick", "--depths", "50", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "backlog")
    figures = result["depths"]["50"]
    assert all(figures[part]["cpu_ms"]["median"] > 0 for part in ("client", "router", "pool"))
    assert figures["redis_mib"]["submitted"]["median"] > 0
    assert "| 50 |" in page


@pytest.mark.parametrize(("cost_ms", "flat"), [(1.06, "yes"), (1.3, "no"), (0.7, "no")])
def test_a_backlog_is_flat_if_the_deepest_costs_as_much_as_the_least(
    cost_ms: float, flat: str
) -> None:
    def depth(cpu_ms: float) -> dict[str, Any]:
        part = {"requests_per_s": 1000.0, "cpu_ms": cpu_ms / 3, "redis_cpu_ms": 0.0}
        return {
            **dict.fromkeys(("client", "router", "pool"), part),
            "cpu_ms": cpu_ms,
            "redis_cpu_ms": 0.1,
            "redis_mib": {"submitted": 5.0, "routed": 6.0},
        }

    depths = {"1000": depth(1.0), "1000000": depth(cost_ms)}
    result = {
        "window": 5_000,
        "warm_up": 1_000,
        "depths": {name: backlog.summary([one]) for name, one in depths.items()},
    }

    assert backlog.growth(result)["1000000"] == pytest.approx((cost_ms + 0.1) / 1.1)
    assert f"Flat within 10 %: {flat}." in backlog.table(result)


def test_a_wait_for_what_does_not_move_ends() -> None:
    clock = iter(range(0, 1_000, 25))

    with pytest.raises(TimeoutError, match="stuck at 3 of 5"):
        backlog.wait_for(5, lambda: 3, lambda: float(next(clock)))


@pytest.mark.usefixtures("redis_server")
def test_endurance_tells_every_id_that_was_called(tmp_path: Path) -> None:
    assert main(["endurance", "--requests", "200", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "endurance")
    assert result["answered"] == result["calls"] == result["ids_called"] == 200
    assert result["doubled"] == {}
    assert [sample["answered"] for sample in result["rss_mib"]] == list(range(20, 201, 20))
    assert "Each called once: yes." in page


@pytest.mark.usefixtures("redis_server")
def test_the_stages_of_a_request_are_found_in_all_three_processes(tmp_path: Path) -> None:
    assert main(["stages", "--requests", "20", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "stages")
    spent = result["cpu_us_per_request"]
    for part, probes in stages.PROBES.items():
        seen = {stage for threads in spent[part].values() for stage in threads}
        assert seen >= {stage for stage, _ in probes}, f"a probe of the {part} never ran"
    assert "| pool, committer: commit the outcomes (one script for all) |" in page


def test_a_probe_counts_while_it_is_in_and_leaves_no_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probes = {"client": (("sort", "benchmarks.results:percentile"),)}
    monkeypatch.setattr(stages, "PROBES", probes)
    counts, before = stages.Counts(), results.percentile

    take_out = stages.put_probes("client", counts)
    probed = results.percentile
    assert probed([2.0, 1.0], 50) == 1.0
    take_out()

    assert probed is not before
    assert results.percentile is before
    assert counts.read()["main"]["sort"] > 0


def test_a_probe_whose_function_has_moved_says_so() -> None:
    with pytest.raises(LookupError, match=r"modelyard\.client:gone is not there any more"):
        stages.find("publish", "modelyard.client:gone")


def test_litellm_is_left_out_where_it_must_not_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = Environment(tmp_path / "none", ("litellm[proxy]",))
    with pytest.raises(NoEnvironment):
        gateway.run(Amount(), install=False, environment=nowhere)

    monkeypatch.setattr(gateway.run, "__kwdefaults__", {"install": True, "environment": nowhere})
    assert main(["litellm", "--no-install", "-o", str(tmp_path)]) == 0
    assert "litellm: left out, LiteLLM is not installed" in capsys.readouterr().err


def test_an_environment_that_can_not_be_made_says_why(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    with pytest.raises(NoEnvironment, match="venv"):
        Environment(blocked / "venv", ("nothing",)).make()


def test_the_proxy_is_told_where_the_endpoint_is_and_to_be_quiet(tmp_path: Path) -> None:
    system = litellm_proxy(tmp_path, workers=2, environment=Environment(tmp_path / "venv", ()))

    command = list(system.commands["proxy"])
    assert command[0] == str(tmp_path / "venv" / "bin" / "litellm")
    assert command[command.index("--num_workers") + 1] == "2"
    assert system.env["LITELLM_TELEMETRY"] == "False"
    assert "api_base: os.environ/ENDPOINT_BASE_URL" in (tmp_path / "litellm.yaml").read_text()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroEndpoint]:
    with ZeroEndpoint.running(tmp_path_factory.mktemp("endpoint"), count=True) as running:
        yield running


def test_a_gateway_is_called_one_at_a_time_at_once_and_at_a_pace(endpoint: ZeroEndpoint) -> None:
    client = GatewayClient(endpoint.base_url.removesuffix("/v1"), ready="/")
    with contextlib.closing(client), endpoint.teller() as teller:
        before = teller.calls()

        assert client.one("a", 10) == json.loads(BODY)["choices"][0]["message"]["content"]
        assert client.many(["a"] * 120, 10) == 120
        took = client.paced("a", [0.0, 0.001, 0.002], 10)

        assert len(took) == 3
        assert min(took) > 0
        assert teller.calls() == before + 124


@contextlib.asynccontextmanager
async def connected(
    calls: Calls,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Endpoint(calls), "127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()
    finally:
        server.close()
        await server.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the status line and the body of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head.partition(b"\r\n")[0], await reader.readexactly(length)


def message(id: str, body: bytes = b"{}") -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nX-Request-Id: {id}\r\nContent-Length: "
    return head.encode() + b"%d\r\n\r\n%b" % (len(body), body)


async def test_the_endpoint_takes_messages_in_pieces_and_several_in_one_piece() -> None:
    calls = Calls(by_id=True)
    stream = message("a", b"x" * 100) + message("b") + message("b") + b"GET /calls HTTP/1.1\r\n\r\n"
    rng = random.Random(1)
    async with connected(calls) as (reader, writer):
        while stream:
            size = rng.randrange(1, 60)
            writer.write(stream[:size])
            await writer.drain()
            await asyncio.sleep(0)
            stream = stream[size:]

        for _ in range(3):
            assert await answer(reader) == (b"HTTP/1.1 200 OK", BODY)
        _, report = await answer(reader)
        assert json.loads(report) == {"calls": 3, "ids": 2, "doubled": {"b": 2}}

        writer.write(message("c") * 2)
        assert [await answer(reader), await answer(reader)] == 2 * [(b"HTTP/1.1 200 OK", BODY)]


@pytest.mark.parametrize(
    "length", [b"transfer-encoding: chunked", b"content-length: many", b"x: y"]
)
async def test_the_endpoint_refuses_what_has_no_length(length: bytes) -> None:
    calls = Calls(by_id=False)
    async with connected(calls) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % length)

        assert (await answer(reader))[0] == b"HTTP/1.1 411 Length Required"
        assert await reader.read() == b""
    assert calls.count == 0


def test_arrivals_come_at_the_asked_rate_within_the_asked_time() -> None:
    at_s = arrivals(100.0, 50.0, random.Random(7))

    assert at_s == sorted(at_s)
    assert 0 < at_s[0] < at_s[-1] < 50.0
    assert len(at_s) == pytest.approx(5_000, rel=0.06)


def test_who_is_late_is_told_when_it_was_due() -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    due = []
    for at in paced([1.0, 2.0, 3.0], clock=lambda: now[0], sleep=sleep):
        due.append(at)
        now[0] += 1.5  # slower than asked

    assert due == [101.0, 102.0, 103.0]
    assert now[0] == 105.5


def test_a_ratio_compares_the_two_systems_in_the_same_round() -> None:
    ours = [{"p50_ms": 1.0, "busy": {"router": 0.5}}, {"p50_ms": 30.0, "busy": {"router": 0.5}}]
    peer = [{"p50_ms": 2.0, "busy": {"proxy": 1.0}}, {"p50_ms": 60.0, "busy": {"proxy": 0.5}}]

    figures = comparison.figures(ours, peer)

    assert figures["p50_ms"]["ratio"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert figures["busy router"]["peer"] is None
    assert figures["busy router"]["ratio"] is None
    assert figures["busy proxy"]["ours"] is None


def test_a_percentile_is_one_of_the_values() -> None:
    assert results.percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.0
    assert results.percentile([4.0, 1.0, 3.0, 2.0], 99) == 4.0
    assert results.percentile([1.0], 50) == 1.0
