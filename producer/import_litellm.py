"""LiteLLM's config as a catalog: a pure translation, with what has no counterpart as findings.

The format: https://docs.litellm.ai/docs/proxy/config_settings, its strategies:
https://docs.litellm.ai/docs/router/learn/strategies
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from modelyard.price_file import Prices
from producer.litellm_advice import GENERAL, LITELLM, NONE, PARAMS, QUIET, ROUTER, SECTIONS
from producer.litellm_deployment import READ_PARAMS, Deployment, Deployments
from producer.litellm_file import ConfigFile
from producer.litellm_notes import Finding, Notes
from producer.litellm_parts import endpoints_of, parts_of
from producer.litellm_routes import CHAINS, Routes
from producer.output import UsageError

STRATEGIES: Final[Mapping[str, str]] = {
    "simple-shuffle": "weighted",
    "least-busy": "least_in_flight",
    "latency-based-routing": "lowest_latency",
    "usage-based-routing": "lowest_used",
    "usage-based-routing-v2": "lowest_used",
    "cost-based-routing": "weighted",
}
"""LiteLLM's strategies, and how endpoints are chosen here."""

MAX_WEIGHT: Final = 1e6

_SHARED: Final = frozenset(
    {*CHAINS, "default_fallbacks", "num_retries", "allowed_fails", "cooldown_time"}
)
"""Keys that count in router_settings and in litellm_settings."""
_READ_ROUTER: Final = _SHARED | {
    *("routing_strategy", "timeout", "model_group_alias", "default_max_parallel_requests"),
    "default_litellm_params",
}
_READ_LITELLM: Final = _SHARED | {"request_timeout"}
_SECTIONS: Final = frozenset({"model_list", "credential_list", "litellm_settings"}) | {
    *("router_settings", "general_settings"),
}


@dataclass(frozen=True)
class Imported:
    """A catalog as YAML text. `variables` are those that its keys and addresses come from."""

    text: str
    models: tuple[str, ...]
    routes: tuple[str, ...]
    variables: tuple[str, ...]
    findings: tuple[Finding, ...]


def translate(config: ConfigFile, prices: Prices | None = None) -> Imported:
    """Return the catalog that the config amounts to.

    Models without costs in the config get them from `prices`. Raises `UsageError` with the line
    of each mistake, and if no model of the config can be translated.
    """
    notes = Notes(config)
    for loc in config.doubled:
        notes.note(loc, "is given twice: the last one counts")
    reader = Deployments(notes, prices)
    deployments = list(reader.read())
    notes.section("general_settings")
    if notes.problems:
        raise UsageError("\n".join(dict.fromkeys(notes.problems)))
    if not deployments:
        told = "".join(f"\n{each.path}: {each.what}" for each in notes.findings)
        line = config.line(("model_list",))
        raise config.error(line, f"model_list: no model can be imported{told}")
    strategy, cheapest = balance(notes)
    models = Models(notes, strategy, cheapest)
    models.add(deployments)
    routes = Routes(notes, models.groups, models.ids).make(cheapest)
    note_leftovers(notes)
    catalog = {"models": list(models.models.values()), "routes": routes}
    return Imported(
        "# Made by `modelyard import litellm`.\n" + _dump(catalog),
        tuple(models.models),
        tuple(routes),
        tuple(sorted(reader.variables.used)),
        tuple(sorted(dict.fromkeys(notes.findings), key=lambda each: each.line)),
    )


def balance(notes: Notes) -> tuple[str, bool]:
    """Return how endpoints are chosen, and whether LiteLLM takes the cheapest."""
    given = notes.section("router_settings").get("routing_strategy")
    if given is None:
        return "weighted", False
    if not isinstance(given, str) or given not in STRATEGIES:
        known = ", ".join(STRATEGIES)
        notes.note(
            ("router_settings", "routing_strategy"),
            f"is none of {known}: balance: weighted is written",
        )
        return "weighted", False
    if given == "cost-based-routing":
        notes.note(
            ("router_settings", "routing_strategy"),
            "routes choose by price, endpoints of one model don't differ in it: routes "
            "of several models have choose: cheapest",
        )
    return STRATEGIES[given], given == "cost-based-routing"


class Models:
    """Makes the catalog's models of deployments. `groups` are the models of each model_name.

    `cheapest`: LiteLLM takes the cheapest, so those whose price may differ are models of their own.
    """

    def __init__(self, notes: Notes, balance: str, cheapest: bool) -> None:
        self.notes = notes
        self.balance = balance
        self.cheapest = cheapest
        self.models: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, list[str]] = {}
        self.ids: dict[str, str] = {}

    def add(self, deployments: Sequence[Deployment]) -> None:
        """Make models of all deployments."""
        grouped: dict[str, list[Deployment]] = {}
        for each in deployments:
            grouped.setdefault(each.group, []).append(each)
        # First models keep their names, whatever others get a number.
        first: dict[str, str] = {}
        for name in grouped:
            first[name] = _name(name, {*grouped, *first.values()})
        for name, group in grouped.items():
            parts = parts_of(group, apart=self.cheapest)
            names = self.groups[name] = []
            for number, part in enumerate(parts, 1):
                model = first[name] if number == 1 else self._numbered(first, name, number)
                self.models[model] = self._model(model, part.deployments)
                self.ids |= {each.id: model for each in part.deployments if each.id is not None}
                names.append(model)
            for part, model in zip(parts[1:], names[1:], strict=True):
                one = part.deployments[0]
                why = parts[0].clash(one) or "has another provider or model than"
                self.notes.note(
                    one.loc,
                    f"{why} {names[0]!r}: it is model {model!r}, tried after {names[0]!r} and not "
                    "beside it",
                )
            if first[name] != name:
                self.notes.note(
                    (*parts[0].deployments[0].loc, "model_name"),
                    f"can't be the name of a model: that is {first[name]!r}; the route keeps it",
                )

    def _numbered(self, first: Mapping[str, str], name: str, number: int) -> str:
        taken = {*first.values(), *self.models}
        while (model := f"{first[name]}-{number}") in taken:
            number += 1
        return model

    def _model(self, name: str, parts: Sequence[Deployment]) -> dict[str, Any]:
        model: dict[str, Any] = {"name": name, "provider": parts[0].place.provider}
        model["model"] = parts[0].place.model
        if self.balance == "weighted":
            self._weigh(parts)
        endpoints = endpoints_of(parts)
        if endpoints:
            model["endpoints"] = endpoints
        if len(endpoints) > 1:
            model["balance"] = self.balance
        settings: dict[str, Any] = {}
        for each in parts:
            for key, value in each.settings.items():
                if settings.setdefault(key, value) != value:
                    self.notes.note(
                        each.loc,
                        f"has another {key} than the first entry of model {name!r}, which counts",
                    )
        priced = {each.kind for each in parts if "price" in each.settings}
        for each in parts:
            if priced and each.kind not in priced:
                self.notes.note(each.loc, f"has no price: the one of model {name!r} counts")
        return {**model, **settings}

    def _weigh(self, parts: Sequence[Deployment]) -> None:
        """Write the weights by which LiteLLM's simple-shuffle picks: weight, else rpm, else tpm."""
        if len(parts) < 2:
            return
        key = next((key for key in ("weight", "rpm", "tpm") if key in parts[0].shares), None)
        if key is None:
            return
        shares = [each.shares.get(key, 0.0) for each in parts]
        most = max(shares)
        scale = MAX_WEIGHT / most if most > MAX_WEIGHT else 1.0
        for each, share in zip(parts, shares, strict=True):
            if each.place.endpoint is None:
                continue
            weight = float(f"{share * scale:.6g}")
            if weight < 1e-6:
                weight = 1e-6
                self.notes.note(
                    (*each.loc, "litellm_params", key),
                    "is 0, and a weight must be more: it is next to nothing",
                )
            each.place.endpoint["weight"] = int(weight) if weight == int(weight) else weight


def note_leftovers(notes: Notes) -> None:
    """Say what to do about the settings that were not read."""
    for section, read, advice in (
        ("router_settings", _READ_ROUTER, ROUTER),
        ("litellm_settings", _READ_LITELLM, LITELLM),
        ("general_settings", frozenset[str](), GENERAL),
    ):
        for key in map(str, notes.section(section)):
            if key not in read and key not in QUIET.get(section, ()):
                notes.note((section, key), advice.get(key, NONE))
    defaults = notes.section("router_settings").get("default_litellm_params")
    for key in map(str, defaults if isinstance(defaults, dict) else ()):
        if key not in READ_PARAMS:
            loc = ("router_settings", "default_litellm_params", key)
            notes.note(loc, PARAMS.get(key, NONE))
    for key, value in notes.config.data.items():
        if str(key) not in _SECTIONS and value not in (None, [], {}):
            notes.note((str(key),), SECTIONS.get(str(key), NONE))


def _name(name: str, taken: Collection[str]) -> str:
    """Return a model's name for a group: its own if a model can be called so."""
    fit = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:70].rstrip("-._") or "model"
    if fit == name:
        return name
    free, number = fit, 1
    while free in taken:
        number += 1
        free = f"{fit}-{number}"
    return free


class _Dumper(yaml.SafeDumper):
    """Writes each list out: people will edit them one by one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump(catalog: Mapping[str, Any]) -> str:
    return yaml.dump(dict(catalog), Dumper=_Dumper, sort_keys=False, width=1000)
