"""What a measurement leaves behind: a JSON file and a Markdown page, with date and machine."""

import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "results"
LIBRARIES = ("celery", "kombu", "redis", "httpx", "httpx-aiohttp", "aiohttp", "pydantic")


def machine() -> dict[str, Any]:
    """Return what the figures depend on. No host name and no path: results are published."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name, or its architecture where the system does not say."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def stamp() -> str:
    """Return the time of a measurement, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def spread(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Return the median, the least and the most of some rounds."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that `percent` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first hold numbers."""
    marks = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, marks, *rows))


def write(what: str, result: dict[str, Any], tables: str, folder: Path = FOLDER) -> Path:
    """Write `YYYY-MM-DD-<what>.json` and `.md`, over those of the same day; return the page."""
    folder.mkdir(parents=True, exist_ok=True)
    here = machine()
    measured_at = str(result.get("measured_at") or result.get("date") or stamp())
    whole = {**result, "measured_at": measured_at, "machine": here}
    libraries = ", ".join(f"{name} {number}" for name, number in here["libraries"].items())
    intro = (
        f"{measured_at} · {here['cpu']}, {here['cores']} cores, {here['memory_gib']} GiB, "
        f"{here['system']}, Python {here['python']} · {libraries}"
    )
    page = folder / f"{measured_at[:10]}-{what}.md"
    page.write_text(f"# {what}\n\n{intro}\n\n{tables}\n", encoding="utf-8")
    page.with_suffix(".json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    return page
