"""What a plan takes for granted, for whoever has to believe it."""

from collections.abc import Sequence

from modelyard.messages import Usage
from producer.plan_endpoints import Weather
from producer.plan_latency import Lognormal
from producer.plan_station import Station, Traffic


def assumptions(stations: Sequence[Station], traffic: Traffic, usage: Usage) -> list[str]:
    """Return what a plan assumes, a sentence each, of this input and of any."""
    said = [
        f"requests come at random and independently, {traffic.rate_per_s:,.4g}/s all the time",
        f"each has {usage.input_tokens:,} tokens, its answer {usage.output_tokens:,}; calls that "
        "fail cost nothing",
    ]
    for station in stations:
        latency = station.latency
        kind = f", lognormal with {latency.spread:g}" if isinstance(latency, Lognormal) else ""
        said.append(
            f"{station.name}: a call takes {latency.mean_s:,.3g} s in the mean{kind}, however many "
            "there are at a time"
        )
        said += [f"{station.name}: {words}" for words in troubles(station)]
        if station.escalates and station is not stations[-1]:
            said.append(
                f"{station.name}: {station.escalates:.1%} of its answers are not accepted, "
                "whichever; calls of a judge or for agreement are not in the plan"
            )
    if any(station.fails for station in stations):
        said.append("breakers open for all workers at once; nothing is probed without a call")
    said.append("there are no deadlines and no answer cache, and no process, router or Redis fails")
    return said


def troubles(station: Station) -> list[str]:
    """Return in words how a model's endpoints do that do not do well."""
    said = []
    every: Sequence[Weather] = station.weather
    alike = len({(each.failures, each.limit_per_min) for each in every}) == 1
    for each in every[:1] if alike else every:
        where = "" if alike else f" of {each.name}"
        if each.failures:
            said.append(
                f"{each.failures:.1%} of the calls{where} fail, each by itself, after as long as "
                "others take"
            )
        if each.limit_per_min is not None:
            said.append(
                f"{each.limit_per_min:,.4g} calls{where or ' of each endpoint'} are taken in each "
                "minute of the clock, others are answered with 429 and a Retry-After to its end; "
                "that workers learn such a limit is left out"
            )
    return said
