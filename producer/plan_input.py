"""Shares and limits as people write them for a plan: of all models, of one, or of an endpoint."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from modelyard.catalog import Model
from modelyard.news import labels
from producer.output import UsageError
from producer.plan_endpoints import Weather
from producer.plan_search import rate_per_s

SHARE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(%?)")


@dataclass(frozen=True, slots=True)
class Given:
    """A value and whose it is: '' for all models, and of a model '' for all its endpoints."""

    model: str
    endpoint: str
    value: str


def given(option: str, written: Sequence[str], models: Sequence[Model]) -> list[Given]:
    """Read `VALUE`, `MODEL=VALUE` and `MODEL/ENDPOINT=VALUE`. Raises `UsageError`."""
    names = {model.name: [*labels(model)] for model in models}
    found = []
    for each in written:
        place, _, value = each.rpartition("=")
        model, _, endpoint = place.partition("/")
        if model and model not in names:
            raise UsageError(f"{option} {each}: the plan has the models {', '.join(names)}")
        if endpoint and endpoint not in names[model]:
            known = ", ".join(names[model]) or "none"
            raise UsageError(f"{option} {each}: the endpoints of {model} are {known}")
        found.append(Given(model, endpoint, value))
    # What is said of one counts before what is said of all.
    return sorted(found, key=lambda each: (bool(each.model), bool(each.endpoint)))


def share(written: str) -> float:
    """Read a share such as 5% or 0.05. Raises `UsageError`."""
    found = SHARE.fullmatch(written.strip())
    value = float(found[1]) / (100.0 if found[2] else 1.0) if found else 2.0
    if value > 1.0:
        raise UsageError(f"{written!r} is no share: write 5% or 0.05")
    return value


def weather_of(
    models: Sequence[Model], failures: Sequence[str], limits: Sequence[str]
) -> dict[str, tuple[Weather, ...]]:
    """Return how the endpoints of each model do. Raises `UsageError`."""
    names = {model.name: labels(model) or ["here"] for model in models}
    every = {model: [Weather(name=label) for label in some] for model, some in names.items()}

    def spread(some: Sequence[Given], changed: Callable[[Weather, str], Weather]) -> None:
        for one in some:
            for model in [one.model] if one.model else list(every):
                for at, label in enumerate(names[model]):
                    if one.endpoint in {"", label}:
                        every[model][at] = changed(every[model][at], one.value)

    spread(
        given("--failures", failures, models),
        lambda weather, value: replace(weather, failures=share(value)),
    )
    spread(
        given("--limit", limits, models),
        lambda weather, value: replace(weather, limit_per_min=60.0 * rate_per_s(value)),
    )
    return {model: tuple(some) for model, some in every.items()}


def escalations(models: Sequence[Model], written: Sequence[str]) -> dict[str, float]:
    """Return which share of a model's answers goes on to the next. Raises `UsageError`."""
    shares = dict.fromkeys((model.name for model in models), 0.0)
    for each in given("--escalate", written, models):
        if each.endpoint:
            raise UsageError(
                f"--escalate {each.model}/{each.endpoint}: an endpoint escalates nothing"
            )
        for model in [each.model] if each.model else list(shares):
            shares[model] = share(each.value)
    return shares
