"""The entries of LiteLLM's model_list, each as an endpoint and what its model has."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelyard.price_file import COSTS, Prices, is_cost, usd_per_mtok
from producer.litellm_advice import NONE, PARAMS
from producer.litellm_file import Loc, shown
from producer.litellm_notes import MOST, Notes, as_number
from producer.litellm_provider import (
    CONSUMED,
    Place,
    Variables,
    default_key,
    place,
    prefix_and_model,
    references,
    text,
)

MAX_CALLS: Final = 20
_MODES: Final = frozenset({"chat", "completion", "responses"})
READ_PARAMS: Final = (
    CONSUMED
    | COSTS.keys()
    | {
        *("rpm", "tpm", "weight", "order", "max_parallel_requests", "timeout", "request_timeout"),
        *("max_retries", "num_retries", "max_tokens", "max_completion_tokens", "cooldown_time"),
        "litellm_credential_name",
    }
)
_READ_INFO: Final = COSTS.keys() | {"id", "mode", "base_model", "max_input_tokens"}
ENDPOINT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,119}")


@dataclass
class Deployment:
    """One entry of model_list that can be translated."""

    loc: Loc
    group: str
    id: str | None
    order: float
    place: Place
    settings: dict[str, Any]
    """What a model has, and not its endpoint."""
    shares: dict[str, float]
    """Of weight, rpm and tpm what is given: LiteLLM shuffles by the first."""
    base_model: str | None
    abilities: dict[str, bool]
    """What `model_info` says that it can do, or can't: `supports_vision` and the like."""

    @property
    def kind(self) -> tuple[str, str, bool]:
        """Its provider, its name there, and whether it has an address: litellm needs none."""
        return self.place.provider, self.place.model, self.place.endpoint is not None


class Deployments:
    """Reads model_list. `variables` are those that keys and addresses come from."""

    def __init__(self, notes: Notes, prices: Prices | None) -> None:
        self.notes = notes
        self.prices = prices
        self.variables = Variables()
        self._names: set[str] = set()
        self.router = notes.section("router_settings")
        self.litellm = notes.section("litellm_settings")

    def read(self) -> Iterator[Deployment]:
        """Yield what can be translated; what is wrong becomes a problem."""
        entries = self.notes.config.data.get("model_list")
        if not isinstance(entries, list):
            what = "is missing" if entries is None else "must be a list"
            self.notes.problem(
                ("model_list",), f"{what}: models that are only in a database can't be imported"
            )
            return
        credentials = self._credentials()
        read = [
            (("model_list", index), entry, self._params(("model_list", index), entry, credentials))
            for index, entry in enumerate(entries)
        ]
        # What a literal key is to be called must be free, so all other names come first.
        self.variables.taken.update(references(dict(self.notes.config.data)))
        for _, _, params in read:
            key = default_key(prefix_and_model(params)[0], params) if params else None
            if key is not None and params and text(params.get("api_key")) is None:
                self.variables.taken.add(key)
        for loc, entry, params in read:
            if params is not None:
                yield from self._deployment(loc, entry, params)

    def _credentials(self) -> dict[str, Mapping[str, Any]]:
        found = self.notes.config.data.get("credential_list")
        return {
            str(each.get("credential_name")): each["credential_values"]
            for each in (found if isinstance(found, list) else [])
            if isinstance(each, dict) and isinstance(each.get("credential_values"), dict)
        }

    def _params(
        self, loc: Loc, entry: object, credentials: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any] | None:
        """Return an entry's litellm_params with the defaults; None if the entry is wrong."""
        if not isinstance(entry, dict):
            self.notes.problem(loc, "must be a mapping with model_name and litellm_params")
            return None
        if text(entry.get("model_name")) is None:
            self.notes.problem(loc, "'model_name' is missing")
            return None
        params = entry.get("litellm_params")
        if not isinstance(params, dict) or text(params.get("model")) is None:
            self.notes.problem((*loc, "litellm_params"), "'model' is missing")
            return None
        defaults = self.router.get("default_litellm_params")
        name = text(params.get("litellm_credential_name"))
        if name is not None and name not in credentials:
            self.notes.note(
                (*loc, "litellm_params", "litellm_credential_name"),
                "is not in credential_list: set the key by hand",
            )
        return {
            **(defaults if isinstance(defaults, dict) else {}),
            **credentials.get(name or "", {}),
            # LiteLLM takes these beside litellm_params, too.
            **{key: entry[key] for key in ("rpm", "tpm", "weight") if key in entry},
            **params,
        }

    def _deployment(
        self, loc: Loc, entry: Mapping[str, Any], params: Mapping[str, Any]
    ) -> Iterator[Deployment]:
        inside = (*loc, "litellm_params")
        group = text(entry["model_name"]) or ""
        if "*" in group or "*" in str(params["model"]):
            self.notes.note(loc, "stands for any model: write an entry for each model that you use")
            return
        info = entry.get("model_info")
        info = info if isinstance(info, dict) else {}
        mode = info.get("mode")
        if mode is not None and not (isinstance(mode, str) and mode in _MODES):
            self.notes.note(
                (*loc, "model_info", "mode"), "is left out: only chat can be asked for here"
            )
            return
        found = place(
            params, self.variables, lambda key, what: self.notes.note((*inside, key), what)
        )
        quota = {
            ours: number
            for theirs, ours in (("rpm", "requests_per_min"), ("tpm", "tokens_per_min"))
            if (number := self.notes.positive(params, inside, theirs)) is not None
        }
        at_once = self.notes.positive(params, inside, "max_parallel_requests", whole=True)
        if at_once is None:
            at_once = self.notes.positive(
                self.router, ("router_settings",), "default_max_parallel_requests", whole=True
            )
        if at_once is not None:
            quota["concurrency"] = at_once
        id = text(info.get("id"))
        if found.endpoint is not None:
            if id is not None and id not in self._names and ENDPOINT_NAME.fullmatch(id):
                found.endpoint["name"] = id
                self._names.add(id)
            if quota:
                found.endpoint["quota"] = quota
        settings = self._settings(loc, params, info, found)
        if found.endpoint is None and quota:
            settings["quota"] = quota
        for key in entry["litellm_params"]:
            if str(key) not in READ_PARAMS:
                self.notes.note((*inside, str(key)), PARAMS.get(str(key), NONE))
        for key in params.keys() & {"max_tokens", "max_completion_tokens"}:
            self.notes.note(
                (*inside, key),
                "is kept free in the window; to bound answers, send it with each request",
            )
        others = sorted(shown(str(key)) for key in info if str(key) not in _READ_INFO)
        if others:
            self.notes.note((*loc, "model_info"), f"{', '.join(others)}: {NONE}")
        order = as_number(params.get("order"))
        yield Deployment(
            loc,
            group,
            id,
            math.inf if order is None else order,
            found,
            settings,
            {
                key: number
                for key in ("weight", "rpm", "tpm")
                if (number := as_number(params.get(key))) is not None and number >= 0
            },
            text(info.get("base_model")),
            {
                str(key): value
                for key, value in info.items()
                if str(key).startswith("supports_") and isinstance(value, bool)
            },
        )

    def _settings(
        self, loc: Loc, params: Mapping[str, Any], info: Mapping[str, Any], place: Place
    ) -> dict[str, Any]:
        """Return what belongs to the model and not to its endpoint."""
        inside = (*loc, "litellm_params")
        settings = self._price(loc, params, info, place)
        window = self.notes.positive(info, (*loc, "model_info"), "max_input_tokens", whole=True)
        if window is not None:
            settings["context_tokens"] = window
        for key in ("max_completion_tokens", "max_tokens"):
            tokens = self.notes.positive(params, inside, key, whole=True)
            if tokens is not None:
                settings["max_output_tokens"] = tokens
                break
        timeout = (
            self.notes.positive(params, inside, "timeout")
            or self.notes.positive(params, inside, "request_timeout")
            or self.notes.positive(self.router, ("router_settings",), "timeout")
            or self.notes.positive(self.litellm, ("litellm_settings",), "request_timeout")
        )
        if timeout is not None:
            settings["timeout_s"] = timeout
        calls = self._calls(params, inside)
        if calls is not None:
            settings["retry"] = {"calls": calls}
        breaker = self._breaker(params, inside)
        if breaker:
            settings["breaker"] = breaker
        return settings

    def _price(
        self, loc: Loc, params: Mapping[str, Any], info: Mapping[str, Any], place: Place
    ) -> dict[str, Any]:
        """Return a model's price, and its window where both come from the price file."""
        costs = {}
        for theirs, ours in COSTS.items():
            for source, at in ((info, (*loc, "model_info")), (params, (*loc, "litellm_params"))):
                if source.get(theirs) is None or ours in costs:
                    continue
                cost = as_number(source[theirs])
                if cost is not None and is_cost(cost):
                    costs[ours] = usd_per_mtok(cost)
                else:
                    self.notes.note((*at, theirs), "is not a number of 0 or more: left out")
        if costs:
            return {"price": costs}
        if self.prices is None:
            return {}
        base = text(info.get("base_model"))
        names = () if base is None else (base, base.partition("/")[2] or base)
        found = self.prices.find(*names, *place.prices)
        if found is None:
            self.notes.note(loc, "is not in the price file: write the model's price")
            return {}
        settings: dict[str, Any] = {"price": found.price.model_dump(exclude_none=True)}
        if found.max_input_tokens is not None:
            settings["context_tokens"] = found.max_input_tokens
        return settings

    def _calls(self, params: Mapping[str, Any], inside: Loc) -> int | None:
        """Return how often a model is called: LiteLLM counts the calls after the first."""
        for source, at, key in (
            (params, inside, "num_retries"),
            (params, inside, "max_retries"),
            (self.router, ("router_settings",), "num_retries"),
            (self.litellm, ("litellm_settings",), "num_retries"),
        ):
            if source.get(key) is None:
                continue
            retries = as_number(source[key])
            if retries is None or retries < 0:
                self.notes.note((*at, key), "is not a number of 0 or more: left out")
                continue
            if retries > MAX_CALLS - 1:
                self.notes.note((*at, key), f"is more than {MAX_CALLS - 1}: that many are written")
            return min(MAX_CALLS, int(min(retries, MAX_CALLS)) + 1)
        return None

    def _breaker(self, params: Mapping[str, Any], inside: Loc) -> dict[str, Any]:
        breaker: dict[str, Any] = {}
        router, settings = ("router_settings",), ("litellm_settings",)
        for source, at in ((self.router, router), (self.litellm, settings)):
            if source.get("allowed_fails") is None:
                continue
            allowed = as_number(source["allowed_fails"])
            if allowed is None or not 0 <= allowed <= MOST:
                self.notes.note((*at, "allowed_fails"), "is not a number of 0 or more: left out")
                continue
            # LiteLLM counts the failures of a minute, and this is how many it lets pass.
            breaker = {"failures": int(allowed) + 1, "window_s": 60}
            break
        cooldown = (
            self.notes.positive(params, inside, "cooldown_time")
            or self.notes.positive(self.router, router, "cooldown_time")
            or self.notes.positive(self.litellm, settings, "cooldown_time")
        )
        if cooldown is not None:
            breaker["cooldown_s"] = cooldown
            if cooldown > 120:
                breaker["longest_s"] = cooldown
        return breaker
