"""`make bench` measures what it says: a run that is too small to say how fast anything is."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import pipeline, results, stages
from benchmarks.__main__ import main
from modelyard import waiter

pytestmark = pytest.mark.usefixtures("redis_server")


def read(folder: Path, what: str) -> tuple[dict[str, Any], str]:
    (file,) = folder.glob(f"*-{what}.json")
    return json.loads(file.read_text()), file.with_suffix(".md").read_text()


def test_the_pipeline_is_measured_beside_plain_celery(tmp_path: Path) -> None:
    assert main(["pipeline", "--requests", "20", "--rounds", "1", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "pipeline")
    assert set(result["rounds"]) == {"modelyard", "plain Celery"}
    for name in ("p50_ms", "p99_ms", "requests_per_s"):
        figure = result["figures"][name]
        assert figure["ours"]["median"] > 0
        assert figure["ratio"]["median"] == pytest.approx(
            figure["ours"]["median"] / figure["peer"]["median"], rel=0.01
        )
    for rounds in result["rounds"].values():
        assert set(rounds[0]["cpu_s_per_1000"]) >= {"client", "router", "pool", "redis"}
        assert all(mib > 1 for mib in rounds[0]["rss_mib"].values())
    assert result["machine"]["cores"] >= 1
    assert "| one at a time, p50, ms |" in page


def test_the_stages_of_a_request_are_found_in_all_three_processes(tmp_path: Path) -> None:
    assert main(["stages", "--requests", "20", "-o", str(tmp_path)]) == 0

    result, page = read(tmp_path, "stages")
    spent = result["cpu_us_per_request"]
    for part, probes in stages.PROBES.items():
        seen = {stage for threads in spent[part].values() for stage in threads}
        assert seen >= {stage for stage, _ in probes}, f"a probe of the {part} never ran"
    assert "| pool, finishers: write the result |" in page


def test_probes_leave_no_trace_in_this_process() -> None:
    before = vars(waiter)["read_outcome"]
    take_out = stages.put_probes("client", stages.Counts())
    probed = vars(waiter)["read_outcome"]
    take_out()

    assert probed is not before
    assert vars(waiter)["read_outcome"] is before


def test_a_ratio_compares_the_two_systems_in_the_same_round() -> None:
    ours = [{"p50_ms": 1.0, "busy": {"router": 0.5}}, {"p50_ms": 30.0, "busy": {"router": 0.5}}]
    peer = [{"p50_ms": 2.0, "busy": {"router": 1.0}}, {"p50_ms": 60.0, "busy": {"router": 0.5}}]

    figures = pipeline.figures(ours, peer)

    assert figures["p50_ms"]["ratio"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert figures["busy router"]["ratio"] == {"median": 0.75, "min": 0.5, "max": 1.0}


def test_a_percentile_is_one_of_the_values() -> None:
    assert results.percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.0
    assert results.percentile([4.0, 1.0, 3.0, 2.0], 99) == 4.0
    assert results.percentile([1.0], 50) == 1.0
