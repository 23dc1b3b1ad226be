"""modelyard and a peer in turns, on the same machine in the same run, and the ratio of each round.

The endpoint needs no time, so all of the time is the systems' own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks import direct
from benchmarks.load import TOGETHER, at_a_rate, at_once, one_at_a_time
from benchmarks.results import markdown_table, percentile, spread, stamp
from benchmarks.system import CONCURRENCY, PROMPT, WARM_UP, System, running
from benchmarks.yard import OURS, YardProducer

LEAST: Final = 20
"""Fewest requests of a batch, however slow a system is."""


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured: at once, one at a time, and for how long at a fifth of the peak rate.

    `warm_up` requests go before all that, of each system.
    """

    requests: int = 20_000
    rounds: int = 3
    singles: int = 200
    paced_s: float = 10.0
    warm_up: int = WARM_UP
    share: float = 0.2


def measure(system: System, amount: Amount, round: int = 0) -> dict[str, Any]:
    """Measure one system once, from its start to its end."""
    with running(system, warm_up=amount.warm_up) as run:
        ours = run.producer if isinstance(run.producer, YardProducer) else None
        if ours:
            ours.timings.clear()
        times = one_at_a_time(run.producer, amount.singles)
        timings = list(ours.timings) if ours else []
        count = amount.requests
        if system.at_most_s is not None:
            trial = at_once(run, min(count, max(LEAST, amount.warm_up)))
            count = min(count, max(LEAST, int(system.at_most_s * trial["requests_per_s"])))
        result: dict[str, Any] = {
            "p50_ms": percentile(times, 50),
            "p99_ms": percentile(times, 99),
            **at_once(run, count),
        }
        rate_per_s = amount.share * result["requests_per_s"]
        result["paced"] = at_a_rate(run, rate_per_s, amount.paced_s, round)
        if ours:
            url = run.site.endpoint.base_url
            result["direct"] = direct.at_a_rate(url, rate_per_s, amount.paced_s, round)
        if timings:
            stages = {key: percentile([each[key] for each in timings], 50) for key in timings[0]}
            result["timings_p50_ms"] = {**stages, "submit_to_answer_ms": result["p50_ms"]}
        return result


def compare(what: str, ours: System, peer: System, amount: Amount) -> dict[str, Any]:
    """Measure both systems in turns; return it as plain JSON values."""
    rounds: dict[str, list[dict[str, Any]]] = {ours.name: [], peer.name: []}
    for number in range(amount.rounds):
        # Who comes first changes: a machine that slows down must not favour one of them.
        for system in (ours, peer)[:: -1 if number % 2 else 1]:
            rounds[system.name].append(measure(system, amount, number))
    result: dict[str, Any] = {
        "benchmark": what,
        "measured_at": stamp(),
        "singles": amount.singles,
        "concurrency": CONCURRENCY,
        "prompt_chars": len(PROMPT),
        "figures": figures(rounds[ours.name], rounds[peer.name]),
        "rounds": rounds,
    }
    if ours is OURS:
        kept = [each["timings_p50_ms"] for each in rounds[ours.name]]
        result["timings_p50_ms"] = {key: spread([each[key] for each in kept]) for key in kept[0]}
    return result


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return nested figures under joined names: `cpu_ms router`."""
    flattened: dict[str, float] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            flattened |= flat(value, f"{prefix}{key} ")
        else:
            flattened[prefix + key] = value
    return flattened


Figures = dict[str, dict[str, dict[str, float] | None]]


def figures(ours: Sequence[Mapping[str, Any]], peer: Sequence[Mapping[str, Any]]) -> Figures:
    """Return each figure of both systems, and the ratio ours / peer round by round.

    What only one of them has, as a router, stands for itself.
    """
    left, right = [flat(each) for each in ours], [flat(each) for each in peer]
    found: Figures = {}
    for name in dict.fromkeys((*left[0], *right[0])):
        mine, its = ([each[name] for each in side if name in each] for side in (left, right))
        ratio = None
        if len(mine) == len(its) == len(left) and all(its):
            ratio = spread([a / b for a, b in zip(mine, its, strict=True)])
        found[name] = {
            "ours": spread(mine) if mine else None,
            "peer": spread(its) if its else None,
            "ratio": ratio,
        }
    return found


WORDS: Final = {
    "p50_ms": "one at a time, p50, ms",
    "p99_ms": "one at a time, p99, ms",
    "requests": "requests at once",
    "requests_per_s": "all at once, requests/s",
    "cpu_ms": "CPU ms a request,",
    "busy": "share of a core used,",
    "rss_mib": "memory, MiB,",
    f"cpu_ms {TOGETHER}": "CPU ms a request, without Redis and the endpoint",
    "paced requests_per_s": "at a fifth of its own peak, requests/s",
    "paced p50_ms": "at a fifth of its own peak, p50, ms",
    "paced p99_ms": "at a fifth of its own peak, p99, ms",
    "direct p50_ms": "the same calls made directly at that rate, p50, ms",
    "direct p99_ms": "the same calls made directly at that rate, p99, ms",
}


def words(name: str) -> str | None:
    """Return a figure's name for people, or None if it is not for the table."""
    if name in WORDS:
        return WORDS[name]
    key, _, role = name.partition(" ")
    return f"{WORDS[key]} {role}" if key in WORDS else None


def number(figure: Mapping[str, float] | None) -> str:
    """Return a median in three digits that count."""
    if figure is None:
        return "–"
    median = figure["median"]
    return f"{median:,.0f}" if abs(median) >= 100 else f"{median:.3g}"


def table(result: Mapping[str, Any]) -> str:
    """Return the comparison as Markdown: medians, and the ratio with its least and most."""
    rows = []
    for name, figure in result["figures"].items():
        said, ratio = words(name), figure["ratio"]
        if said is None:
            continue
        across = "–"
        if ratio is not None:
            across = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        rows.append((said, number(figure["ours"]), number(figure["peer"]), across))
    ours, peer = result["rounds"]
    rounds = len(result["rounds"][ours])
    intro = (
        f"{rounds} rounds each in turn: {result['singles']} requests one at a time, then many at "
        "once, then by a Poisson process (from when a request was due to its answer). "
        f"{result['concurrency']} calls in flight at most, prompts of {result['prompt_chars']} "
        "characters, an endpoint on the same machine that answers at once. Medians; ratios are "
        "ours / peer of the same round, with least and most."
    )
    return intro + "\n\n" + markdown_table(("", ours, peer, "ratio"), rows)


def wanted(result: Mapping[str, Any], times_faster: float) -> str:
    """Return what issue 3 asks for beside what was measured, as Markdown."""
    figures = result["figures"]

    def row(what: str, name: str, side: str, bound: float, *, least: bool) -> tuple[str, ...]:
        median = figures[name][side]["median"]
        met = median >= bound if least else median <= bound
        asked = f"{'≥' if least else '≤'} {bound:g}"
        return what, asked, f"{median:.3g}", "yes" if met else "no"

    peer = list(result["rounds"])[1]
    rows = [
        row(f"requests/s, times {peer}", "requests_per_s", "ratio", times_faster, least=True),
        row("CPU ms of client, router and pool", f"cpu_ms {TOGETHER}", "ours", 1.0, least=False),
        row("p50 at a fifth of the peak, ms", "paced p50_ms", "ours", 5.0, least=False),
        row("p99 at a fifth of the peak, ms", "paced p99_ms", "ours", 20.0, least=False),
    ]
    return markdown_table(("wanted", "at", "measured", "met"), rows)
