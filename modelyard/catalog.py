"""Models, endpoints, prices and routes: what the catalog says, validated.

`catalog_file.load_catalog` reads it from YAML. All parts are frozen pydantic models, so that
deciding can be pure functions on them.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from modelyard.aliases import check_aliases, of_budget, of_route
from modelyard.budgets import Budget, check_budgets
from modelyard.catalog_doubts import check_experiments
from modelyard.catalog_part import Part
from modelyard.errors import ModelyardError
from modelyard.link_local import is_link_local
from modelyard.messages import Usage
from modelyard.plan import Strategy
from modelyard.provider_address import with_address
from modelyard.routes import Route
from modelyard.wording import are_not_set

ModelName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+)?$", max_length=80),
]
"""A name, with `@version` where a model has several."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Provider = Literal[
    "openai", "azure", "anthropic", "bedrock", "vertex", "litellm", "python", "extractive", "people"
]
LOCAL: Final[frozenset[str]] = frozenset({"extractive", "people", "python", "litellm"})
"""Providers that need no endpoint: what answers is in the worker, or a person."""
WITHOUT_ENDPOINTS: Final = LOCAL - {"litellm"}
"""Providers that have none."""

Balance = Literal["weighted", "least_in_flight", "lowest_latency", "lowest_used", "sticky"]
"""How the endpoint of a call is chosen among those that are well and have room."""


class UnknownName(ModelyardError):
    """A name that the catalog does not have. The message suggests the nearest one."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {what} {name!r}{suggestion(name, known)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)`, or ` (known: a, b)` if nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f" (did you mean {near[0]!r}?)"
    return f" (known: {', '.join(names)})" if names else ""


class Quota(Part):
    """What may be asked for in a minute, and at a time, by all workers together.

    `interactive_share` of it is kept for the interactive lane: requests of the batch lane have the
    rest. What is None has no limit.
    """

    requests_per_min: Annotated[float, Field(gt=0.0)] | None = None
    tokens_per_min: Annotated[float, Field(gt=0.0)] | None = None
    concurrency: Annotated[int, Field(gt=0)] | None = None
    interactive_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return (self.requests_per_min, self.tokens_per_min, self.concurrency) == (None,) * 3


class Breaker(Part):
    """When an endpoint is left alone, and for how long.

    It opens when, of the last calls within `window_s`, `failures` or more failed and these are at
    least `failure_rate` of them; a failure is one that a retry may mend. After `cooldown_s` (with
    jitter; twice as long each time, up to `longest_s`) `probes` calls may try it: the first that
    is answered closes it. An endpoint that denies (key, bill, name) is left alone for `denied_s`.
    """

    failures: Annotated[int, Field(ge=1)] = 5
    failure_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    window_s: Annotated[float, Field(gt=0.0)] = 30.0
    cooldown_s: Annotated[float, Field(gt=0.0)] = 5.0
    longest_s: Annotated[float, Field(gt=0.0)] = 120.0
    probes: Annotated[int, Field(ge=1)] = 1
    denied_s: Annotated[float, Field(gt=0.0)] = 600.0


class Probe(Part):
    """How endpoints are asked whether they live, without a call: a GET of `path` below their
    address, every `every_s` seconds, by each worker that called them within the last minute.
    """

    every_s: Annotated[float, Field(ge=1.0)] = 15.0
    path: Annotated[str, Field(pattern=r"^/[!-~]*$")] = "/models"


class Endpoint(Part):
    """One address that serves a model.

    `disabled` names the environment variable that is missing, if one is; such an endpoint is
    never called. `api_key` comes from the environment only. `name` is what people call it, and
    its `label` where it has none. `weight` is its share under `balance: weighted`; `region` says
    where it lies, for requests that are limited to a region, and for Bedrock and Vertex AI whose
    address follows from it; `project` is Vertex AI's, `api_version` Azure's or Anthropic's.
    `key_name` is the variable that the key came from. `allow_link_local`: it may be where a cloud's
    machines have their metadata (`modelyard.link_local`). `provider` and `model`, the name there,
    are the model's where they are None: see `Model.at`.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9][^\s]*)?$", max_length=120)] = ""
    weight: Annotated[float, Field(gt=0.0, le=1e6)] = 1.0
    region: str | None = None
    project: str | None = None
    api_version: str | None = None
    quota: Quota = Quota()
    allow_link_local: bool = False
    provider: Provider | None = None
    model: Annotated[str, Field(min_length=1)] | None = None
    api_key: SecretStr | None = None
    disabled: str | None = None
    key_name: str | None = None

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        if self.provider in WITHOUT_ENDPOINTS:
            raise ValueError(f"provider {self.provider!r} has no endpoints: it can't be one's")
        parts = urlsplit(self.base_url)
        # Raises ValueError for a port that is none.
        parts.port  # noqa: B018
        if is_link_local(parts.hostname or "") and not self.allow_link_local:
            raise ValueError(
                "'base_url' is a link-local or metadata address: set allow_link_local: true if a "
                "model is there"
            )
        return self

    @property
    def label(self) -> str:
        """Its name, or the address without scheme, credentials and query, for logs and attempts."""
        address = self.base_url.split("://", 1)[1].rsplit("@", 1)[-1].split("?", 1)[0]
        return self.name or address.rstrip("/")


class Price(Part):
    """US dollars per million tokens.

    Input that the provider read from its prompt cache, or wrote to it, has prices of its own where
    they are given. Reasoning tokens are output.
    """

    input_usd_per_mtok: Annotated[float, Field(ge=0.0)] = 0.0
    output_usd_per_mtok: Annotated[float, Field(ge=0.0)] = 0.0
    cached_input_usd_per_mtok: Annotated[float, Field(ge=0.0)] | None = None
    cache_write_usd_per_mtok: Annotated[float, Field(ge=0.0)] | None = None

    def cost_usd(self, usage: Usage) -> float:
        """Return what `usage` costs, in US dollars."""
        plain = self.input_usd_per_mtok
        cached, written = self.cached_input_usd_per_mtok, self.cache_write_usd_per_mtok
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        return (
            max(0, fresh) * plain
            + usage.cached_input_tokens * (plain if cached is None else cached)
            + usage.cache_write_tokens * (plain if written is None else written)
            + usage.output_tokens * self.output_usd_per_mtok
        ) / 1e6


class Retry(Part):
    """How often and how patiently one model is called before the next one's turn.

    `calls` counts the first call too. The wait before retry n is drawn from 0 to
    `base_s * 2**n`, at most `cap_s` ("full jitter"). A Retry-After up to `patience_s` is waited
    for; for a longer one the request goes to the next model, if there is one. Nobody waits for more
    than 15 minutes.
    """

    calls: Annotated[int, Field(ge=1, le=20)] = 3
    base_s: Annotated[float, Field(ge=0.0)] = 0.5
    cap_s: Annotated[float, Field(ge=0.0)] = 20.0
    patience_s: Annotated[float, Field(ge=0.0)] = 30.0


class Model(Part):
    """A model that requests can be routed to.

    `concurrency` is calls in flight per worker process; `timeout_s` bounds one call;
    `max_output_tokens` is kept free in the window when deciding whether a request fits.
    `quality` is the chance of a good answer where nothing was learned; `latency_s` and
    `tokens_per_s` are what a call takes until it was observed. `regions` and `data_classes`: the
    only ones for whose requests it may be called, where a request names one.
    `stream` has the provider send its answer in pieces, where it can: the worker hears of the first
    one, and a call that is given up ends there. `entry_point` is the `module:function` of provider
    `python`.

    Provider `people` is no program: its requests wait in its queue for `modelyard inbox`.
    """

    name: ModelName
    provider: Provider
    model: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    price: Price = Price()
    context_tokens: Annotated[int, Field(gt=0)] = 128_000
    max_output_tokens: Annotated[int, Field(gt=0)] = 1_024
    quality: Fraction = 0.5
    latency_s: Annotated[float, Field(ge=0.0)] = 1.0
    tokens_per_s: Annotated[float, Field(gt=0.0)] = 50.0
    regions: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    concurrency: Annotated[int, Field(gt=0)] = 100
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    retry: Retry = Retry()
    balance: Balance = "weighted"
    quota: Quota = Quota()
    breaker: Breaker = Breaker()
    probe: Probe | None = None
    stream: bool = False
    entry_point: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_addresses(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("endpoints"), list | tuple):
            return data
        endpoints = [with_address(str(data.get("provider")), each) for each in data["endpoints"]]
        return {**data, "endpoints": endpoints}

    @model_validator(mode="after")
    def _remote_models_have_endpoints(self) -> Self:
        if self.provider == "python" and self.entry_point is None:
            raise ValueError("provider 'python' needs an entry_point, `module:function`")
        if self.entry_point is not None and self.provider != "python":
            raise ValueError("only provider 'python' has an entry_point")
        if self.is_remote and not self.endpoints:
            raise ValueError(f"provider {self.provider!r} needs at least one endpoint")
        if self.provider in {"extractive", "python"} and self.endpoints:
            raise ValueError(
                f"provider {self.provider!r} runs inside the worker and has no endpoints"
            )
        if self.provider == "people" and self.endpoints:
            raise ValueError("provider 'people' answers by modelyard inbox and has no endpoints")
        return self

    @property
    def is_people(self) -> bool:
        """Whether persons answer, and no worker does."""
        return self.provider == "people"

    @property
    def is_remote(self) -> bool:
        """Whether its provider has to have an endpoint."""
        return self.provider not in LOCAL

    @property
    def provider_model(self) -> str:
        """The name at the provider."""
        return self.model or self.name

    @property
    def provider_models(self) -> tuple[str, ...]:
        """The names at the providers, each once: endpoints may have names of their own."""
        names = (self.at(endpoint).provider_model for endpoint in self.endpoints)
        return tuple(dict.fromkeys(names)) or (self.provider_model,)

    def at(self, endpoint: Endpoint) -> Self:
        """Return the model as it is at an endpoint: with its provider, and its name there."""
        own = {"provider": endpoint.provider, "model": endpoint.model}
        changed = {name: value for name, value in own.items() if value is not None}
        return self.model_copy(update=changed) if changed else self

    @property
    def live_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that can be called."""
        return tuple(endpoint for endpoint in self.endpoints if endpoint.disabled is None)

    @property
    def disabled(self) -> str | None:
        """Why the model can't be called at all, or None."""
        if self.live_endpoints or not self.endpoints:
            return None
        return are_not_set(e.disabled for e in self.endpoints if e.disabled)

    @property
    def input_limit_tokens(self) -> int:
        """The longest input that leaves room for the output."""
        return max(1, self.context_tokens - self.max_output_tokens)


class Quotas(Part):
    """What tenants may ask for, and what keys may bear, whichever models they use.

    `tenants`: by the request's metadata `tenant`; `"*"` is what each of the others may. `keys`: by
    the environment variable that holds the key.
    """

    tenants: dict[str, Quota] = Field(default_factory=dict)
    keys: dict[str, Quota] = Field(default_factory=dict)


class Catalog(Part):
    """All models and routes. Every model that a route names exists.

    `aliases` are other names for models; in routes and budgets they are the models' own ones here.
    """

    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    aliases: dict[ModelName, ModelName] = Field(default_factory=dict)
    routes: Annotated[dict[str, Route], Field(min_length=1)]
    quotas: Quotas = Quotas()
    budgets: tuple[Budget, ...] = ()

    @model_validator(mode="after")
    def _aliases_are_models(self) -> Self:
        check_aliases(self.aliases, frozenset(model.name for model in self.models))
        if self.aliases:
            # Frozen for others: it is not made yet.
            routes = {name: of_route(each, self.aliases) for name, each in self.routes.items()}
            object.__setattr__(self, "routes", routes)
            budgets = tuple(of_budget(each, self.aliases) for each in self.budgets)
            object.__setattr__(self, "budgets", budgets)
        return self

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        check_budgets(self.budgets, (model.name for model in self.models), self.routes)
        people = {model.name for model in self.models if model.is_people}
        tried: dict[str, str] = {}
        embedded: dict[str, tuple[str, str | None]] = {}
        for name, route in self.routes.items():
            if route.classifier is not None:
                first, place = embedded.setdefault(route.classifier, (name, route.embeddings))
                if place != route.embeddings:
                    raise ValueError(
                        f"routes {first!r} and {name!r} have the classifier {route.classifier!r} "
                        "with different embeddings: it was trained with one kind"
                    )
            for experiment in route.experiments:
                if experiment.name in tried:
                    raise ValueError(
                        f"routes {tried[experiment.name]!r} and {name!r} both have an experiment "
                        f"{experiment.name!r}: its figures would be those of both"
                    )
                tried[experiment.name] = name
            check_experiments(name, route, people)
            for target in route.targets:
                judges = {part.judge for part in (target.accept, target.combine) if part}
                if judges & people:
                    raise ValueError(f"route {name!r}: people can't be a judge")
                if target.strategy is Strategy.ENSEMBLE and people.intersection(target.models):
                    raise ValueError(f"route {name!r}: people can't be one of an ensemble")
        return self

    def model(self, name: str) -> Model:
        """Return the model called `name`, or whose alias it is. Raises `UnknownName`."""
        own = self.aliases.get(name, name)
        for model in self.models:
            if model.name == own:
                return model
        raise UnknownName("model", name, (*(model.name for model in self.models), *self.aliases))

    def route(self, name: str) -> Route:
        """Return the route called `name`. Raises `UnknownName`."""
        try:
            return self.routes[name]
        except KeyError:
            raise UnknownName("route", name, self.routes) from None

    def summary(self) -> str:
        """Return in one line which models can be called, and why others can't."""
        return ", ".join(
            f"{model.name} is off ({model.disabled})" if model.disabled else model.name
            for model in self.models
        )

    @property
    def live_models(self) -> tuple[Model, ...]:
        """The models that workers can call, in the catalog's order."""
        return tuple(
            model for model in self.models if model.disabled is None and not model.is_people
        )
