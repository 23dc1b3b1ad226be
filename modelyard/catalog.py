"""Models, endpoints, prices and routes: what the catalog says, validated.

`catalog_file.load_catalog` reads it from YAML. All parts are frozen pydantic models, so that
deciding can be pure functions on them.
"""

import difflib
from collections.abc import Iterable
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from modelyard.catalog_part import Part
from modelyard.errors import ModelyardError
from modelyard.messages import Usage
from modelyard.plan import Strategy
from modelyard.routes import Route

ModelName = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9._-]+)?$", max_length=80),
]
"""A name, with `@version` where a model has several."""
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Provider = Literal["openai", "extractive", "people"]


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


class Endpoint(Part):
    """One address that serves a model.

    `disabled` names the environment variable that is missing, if one is; such an endpoint is
    never called. `api_key` comes from the environment only.
    """

    base_url: Annotated[str, Field(pattern=r"^https?://[^\s/]+")]
    api_key: SecretStr | None = None
    disabled: str | None = None

    @model_validator(mode="after")
    def _address_is_one(self) -> Self:
        # Raises ValueError for a port that is none.
        urlsplit(self.base_url).port  # noqa: B018
        return self

    @property
    def label(self) -> str:
        """The address without scheme, credentials and query, for logs and attempts."""
        return self.base_url.split("://", 1)[1].rsplit("@", 1)[-1].split("?", 1)[0].rstrip("/")


class Price(Part):
    """US dollars per million tokens."""

    input_usd_per_mtok: Annotated[float, Field(ge=0.0)] = 0.0
    output_usd_per_mtok: Annotated[float, Field(ge=0.0)] = 0.0

    def cost_usd(self, usage: Usage) -> float:
        """Return what `usage` costs, in US dollars."""
        return (
            usage.input_tokens * self.input_usd_per_mtok
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

    @model_validator(mode="after")
    def _remote_models_have_endpoints(self) -> Self:
        if self.provider == "openai" and not self.endpoints:
            raise ValueError(f"provider {self.provider!r} needs at least one endpoint")
        if self.provider == "extractive" and self.endpoints:
            raise ValueError("provider 'extractive' runs inside the worker and has no endpoints")
        if self.provider == "people" and self.endpoints:
            raise ValueError("provider 'people' answers by modelyard inbox and has no endpoints")
        return self

    @property
    def is_people(self) -> bool:
        """Whether persons answer, and no worker does."""
        return self.provider == "people"

    @property
    def provider_model(self) -> str:
        """The name at the provider."""
        return self.model or self.name

    @property
    def live_endpoints(self) -> tuple[Endpoint, ...]:
        """The endpoints that can be called."""
        return tuple(endpoint for endpoint in self.endpoints if endpoint.disabled is None)

    @property
    def disabled(self) -> str | None:
        """Why the model can't be called at all, or None."""
        if self.provider != "openai" or self.live_endpoints:
            return None
        missing = ", ".join(sorted({e.disabled for e in self.endpoints if e.disabled}))
        return f"{missing} is not set"

    @property
    def input_limit_tokens(self) -> int:
        """The longest input that leaves room for the output."""
        return max(1, self.context_tokens - self.max_output_tokens)


class Catalog(Part):
    """All models and routes. Every model that a route names exists."""

    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    routes: Annotated[dict[str, Route], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
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
                if experiment.kind == "shadow" and experiment.to in people:
                    raise ValueError(f"route {name!r}: people can't be a shadow")
            for target in route.targets:
                judges = {part.judge for part in (target.accept, target.combine) if part}
                if judges & people:
                    raise ValueError(f"route {name!r}: people can't be a judge")
                if target.strategy is Strategy.ENSEMBLE and people.intersection(target.models):
                    raise ValueError(f"route {name!r}: people can't be one of an ensemble")
        return self

    def model(self, name: str) -> Model:
        """Return the model called `name`. Raises `UnknownName`."""
        for model in self.models:
            if model.name == name:
                return model
        raise UnknownName("model", name, (model.name for model in self.models))

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
