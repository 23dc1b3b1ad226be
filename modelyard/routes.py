"""Routes: which rules and candidates a request has, how it is decided, and what is tried out."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import re2
from pydantic import Field, field_validator, model_validator

from modelyard.after import After
from modelyard.catalog_part import Part
from modelyard.expression_terms import said
from modelyard.plan import Accept, AnswerCache, Combine, Strategy
from modelyard.wire import Fraction, Positive

Word = Annotated[str, Field(min_length=1)]
TooLong = Literal["refuse", "map_reduce"]
Percent = Annotated[float, Field(ge=0.0, le=100.0)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Trait = Literal["code", "math", "question", "list", "steps", "logic", "url", "json"]
_ByWords = Literal["de", "en", "es", "fr", "it", "nl", "pl", "pt", "sv", "tr"]
Language = Literal[_ByWords, "ar", "el", "he", "hi", "ja", "ko", "ru", "th", "uk", "zh"]
"""Those that the router can tell: a rule for another one could never match."""

BUILTIN = "builtin"
"""Stands for the classifier that comes with modelyard."""

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class When(Part):
    """The conditions of a rule; all that are given must hold.

    `keywords`: any of them occurs in the text as a word or phrase, whatever its case. `pattern`: a
    regular expression in RE2's syntax, found anywhere in the text, whatever its case; RE2 takes
    linear time. `metadata`: each key has one of the values; `"*"` is any. `languages`: the text's,
    as two letters. `has`: all of these traits. `hours`: `"22:00-06:00"`, from the first to before
    the second, with `days` those on which it begins, in `timezone`. `escalated`: whether the
    request's session was escalated before. `any`, `all`, `not`: conditions in conditions.
    """

    keywords: tuple[Word, ...] = ()
    pattern: Word | None = None
    min_tokens: Annotated[int, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = None
    min_complexity: Annotated[int, Field(ge=1, le=5)] | None = None
    max_complexity: Annotated[int, Field(ge=1, le=5)] | None = None
    has: tuple[Trait, ...] = ()
    languages: tuple[Language, ...] = ()
    metadata: dict[str, Annotated[tuple[str, ...], Field(min_length=1)]] = Field(
        default_factory=dict
    )
    hours: str | None = None
    days: tuple[Day, ...] = ()
    timezone: str = "UTC"
    escalated: bool | None = None
    any: tuple["When", ...] = ()
    all: tuple["When", ...] = ()
    not_: "When | None" = Field(default=None, alias="not")

    @field_validator("metadata", mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: [item] if isinstance(item, str) else item for key, item in value.items()}

    @field_validator("pattern")
    @classmethod
    def _pattern_is_one(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                compiled(value)
            except re2.error as error:
                what = f"not a regular expression that RE2 knows: {said(error)}"
                raise ValueError(what) from None
        return value

    @field_validator("hours")
    @classmethod
    def _hours_are_some(cls, value: str | None) -> str | None:
        if value is None:
            return None
        found = _HOURS.fullmatch(value)
        if found is None:
            raise ValueError('write hours as "22:00-06:00"')
        if found.group(1, 2) == found.group(3, 4):
            raise ValueError("it ends when it begins: the rule can never match")
        return value

    @field_validator("timezone")
    @classmethod
    def _timezone_is_one(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"unknown time zone {value!r}, write it as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _can_match(self) -> Self:
        # An empty list is no condition: a rule with that alone would match everything.
        asked = self.model_fields_set - {"timezone"}
        if all(getattr(self, name) in (None, (), {}) for name in asked):
            raise ValueError(
                "a rule needs a condition, such as keywords, pattern, min_tokens or metadata"
            )
        for least, most, what in (
            (self.min_tokens, self.max_tokens, "tokens"),
            (self.min_complexity, self.max_complexity, "complexity"),
        ):
            if least is not None and most is not None and least > most:
                raise ValueError(f"min_{what} is larger than max_{what}: the rule can never match")
        return self

    @property
    def is_always(self) -> bool:
        """Whether it holds for every request, as `min_tokens: 0` does."""
        bounds = {"min_tokens": 0, "min_complexity": 1, "max_complexity": 5}
        nested = {"any": any, "all": all}
        return all(
            getattr(self, name) in (None, (), {}, bounds.get(name))
            or (name in nested and nested[name](each.is_always for each in getattr(self, name)))
            for name in self.model_fields_set - {"timezone"}
        )

    @property
    def span(self) -> tuple[int, int] | None:
        """`hours` as minutes since midnight: from, to."""
        found = _HOURS.fullmatch(self.hours or "")
        if found is None:
            return None
        hour, minute, end_hour, end_minute = map(int, found.groups())
        return 60 * hour + minute, 60 * end_hour + end_minute


def compiled(pattern: str) -> Any:
    """Return the compiled pattern, whatever the text's case. Raises `re2.error`."""
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    return re2.compile(pattern, options)


class Target(Part):
    """Where requests go: the candidates, how one is chosen, and how they are called.

    `choose`: `given` keeps the order; `cheapest` takes the cheapest of those that keep to the
    limits, and fails over to the next cheapest. The limits apply where the request has none of its
    own. `accept` belongs to a cascade, `combine` to an ensemble. `answer_cache`, `after` and
    `too_long` are in place of the route's.
    """

    models: Annotated[tuple[str, ...], Field(min_length=1)]
    strategy: Literal[Strategy.SINGLE, Strategy.CASCADE, Strategy.ENSEMBLE] = Strategy.SINGLE
    choose: Literal["given", "cheapest"] = "given"
    quality_floor: Fraction | None = None
    max_cost_usd: Positive | None = None
    max_latency_s: Positive | None = None
    accept: Accept | None = None
    combine: Combine | None = None
    answer_cache: AnswerCache | None = None
    after: tuple[After, ...] | None = None
    too_long: TooLong | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_its_models(cls, data: Any) -> Any:
        if isinstance(data, list | tuple):
            return {"models": data}
        if isinstance(data, str):
            raise ValueError("must be a list of models, or a mapping with models")
        return data

    @model_validator(mode="after")
    def _strategy_has_its_part(self) -> Self:
        if self.strategy is Strategy.CASCADE:
            accept = self.accept
            if accept is None or not accept.model_fields_set - {"samples", "judge_floor"}:
                raise ValueError("a cascade needs accept: when an answer is good enough")
        elif self.accept is not None:
            raise ValueError("accept belongs to strategy: cascade")
        if self.combine is not None and self.strategy is not Strategy.ENSEMBLE:
            raise ValueError("combine belongs to strategy: ensemble")
        function = self.combine.function if self.combine else None
        if function is not None and not all(function.partition(":")):
            raise ValueError(f"function {function!r} must be written as module:name")
        if self.strategy is Strategy.ENSEMBLE:
            quorum = self.combine.quorum if self.combine else None
            if quorum is not None and quorum > len(self.models):
                raise ValueError(f"a quorum of {quorum} of {len(self.models)} models never comes")
        return self


class Rule(Target):
    """When it matches, the request has this intent and goes there."""

    when: When
    intent: Word


class Stage(Part):
    """From `after_s` seconds after its start, an experiment has this share."""

    after_s: Annotated[float, Field(ge=0.0)]
    percent: Percent


class Rollback(Part):
    """When a treatment is taken back. Any of what is given is enough.

    Each is tested again and again while answers come in, so that the chance of ever taking back a
    treatment that keeps to them is at most `alpha`. `max_error_rate`: the share of its calls that
    fail; `max_latency_s`, `max_cost_usd`: their means; `min_score`: the mean of `feedback`.
    """

    max_error_rate: Fraction | None = None
    max_latency_s: Positive | None = None
    max_cost_usd: Positive | None = None
    min_score: Fraction | None = None
    min_requests: Annotated[int, Field(ge=1)] = 20
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.05

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        bounds = (self.max_error_rate, self.max_latency_s, self.max_cost_usd, self.min_score)
        if all(bound is None for bound in bounds):
            raise ValueError(
                "a rollback needs a bound: max_error_rate, max_latency_s, max_cost_usd or min_score"
            )
        return self


class Experiment(Part):
    """A part of the requests gets something else.

    Where `of` would be called, `to` is called for `percent` of them, or for what the last `ramp`
    stage that was reached says; both are models. With `route` in place of `of` and `to`, they are
    decided by that route. `by` is whose requests stay together (`metadata.user`, ...). Kinds:
    `ab` keeps its share, `canary` may grow and is taken back by `rollback`, `shadow` calls `to` as
    well and only records its answer.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
    kind: Literal["ab", "canary", "shadow"] = "canary"
    of: str | None = None
    to: str | None = None
    route: str | None = None
    percent: Percent | None = None
    ramp: tuple[Stage, ...] = ()
    starts: datetime | None = None
    by: Literal["user", "session", "tenant", "request"] = "user"
    rollback: Rollback | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.route is None and (self.of is None or self.to is None):
            raise ValueError("an experiment needs of and to (two models), or a route")
        if self.route is not None and (self.of or self.to or self.kind == "shadow"):
            raise ValueError("an experiment with a route has no of and to, and is no shadow")
        if self.of is not None and self.of == self.to:
            raise ValueError("of and to are the same model: there is nothing to try")
        if (self.percent is None) == (not self.ramp):
            raise ValueError("an experiment needs either percent or a ramp")
        if self.ramp and self.starts is None:
            raise ValueError("a ramp needs starts, such as 2026-11-23T09:00:00Z")
        if self.starts is not None and self.starts.tzinfo is None:
            raise ValueError("starts needs a time zone: end it with Z or +01:00")
        if any(one.after_s >= two.after_s for one, two in zip(self.ramp, self.ramp[1:])):  # noqa: B905
            raise ValueError("the stages of a ramp must be in the order of after_s")
        return self

    def percent_at(self, now: float) -> float:
        """Return the share of the treatment at `now`, in seconds since the epoch."""
        began = self.starts.timestamp() if self.starts else now
        if now < began:
            return 0.0
        reached = [stage.percent for stage in self.ramp if now - began >= stage.after_s]
        return (reached[-1] if reached else 0.0) if self.ramp else (self.percent or 0.0)


class Cache(Part):
    """What is kept of what a classifier and a predictor said, for texts that come again.

    `entries` texts in each router (0: none). `similar`: a text that shares this part of its words
    with one that was asked about gets the same guess. `shared`: guesses are in Redis too, for
    `ttl_s` seconds, for the other routers. Both are for classifiers that take milliseconds.
    """

    entries: Annotated[int, Field(ge=0, le=10_000_000)] = 20_000
    similar: Annotated[float, Field(ge=0.7, le=1.0)] | None = None
    shared: bool = False
    ttl_s: Annotated[int, Field(gt=0)] = 86_400


class Route(Part):
    """A named set of rules and candidates.

    `decide_by`: `rules`, the first that matches; `learned`, the classifier; `hybrid`, the rules
    where those that match agree, else the classifier. It is `hybrid` where there is a `classifier`
    (`builtin`, or the folder of a model that `modelyard train` made) and `rules` otherwise.
    `intents` says where each intent of the classifier goes. What is unknown, is less sure than
    `min_confidence`, or has no place goes to `otherwise`, the safe choice.

    `embeddings` is what a classifier that was trained with embeddings, and an answer cache that
    finds what is similar, get them from: the folder of a static model, or a function
    (`module:name`). Others leave it alone.

    `predictor` is the folder of a model that predicts each model's quality; `predicts` gives its
    names for models their names here. `if_none`: what happens where no candidate keeps to the
    limits: `refuse`, or `otherwise` without limits. `sticky`: a session that was escalated starts
    where it got to. `cache`: what is remembered of the learned models' answers. `answer_cache`:
    for how long answers are kept for requests that come again; without it they are not. `after`:
    what is done to the text of a final answer, in order. `too_long`: what becomes of a request that
    is too long for every candidate: `refuse`, or `map_reduce`, in pieces.
    """

    decide_by: Literal["rules", "learned", "hybrid"] | None = None
    classifier: str | None = None
    embeddings: Word | None = None
    min_confidence: Fraction = 0.0
    predictor: str | None = None
    predicts: dict[str, str] = Field(default_factory=dict)
    cache: Cache = Cache()
    answer_cache: AnswerCache | None = None
    after: tuple[After, ...] = ()
    rules: tuple[Rule, ...] = ()
    intents: dict[str, Target] = Field(default_factory=dict)
    otherwise: Target
    if_none: Literal["refuse", "otherwise"] = "refuse"
    too_long: TooLong = "refuse"
    sticky: bool = False
    experiments: tuple[Experiment, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.decide_by in {"learned", "hybrid"} and self.classifier is None:
            raise ValueError(f"decide_by: {self.decide_by} needs a classifier, such as builtin")
        if self.intents and self.classifier is None:
            raise ValueError("intents need a classifier, such as builtin")
        likens = [each for each in self.answer_caches if each.similar is not None]
        if self.embeddings is None and any(each.embeddings is None for each in likens):
            raise ValueError(
                "answer_cache: similar needs embeddings, the folder of a static model or a function"
            )
        if self.embeddings is not None and self.classifier is None and not likens:
            raise ValueError(
                "embeddings need a classifier, the folder of a trained model, or an answer_cache "
                "with similar"
            )
        if self.predicts and self.predictor is None:
            raise ValueError("predicts needs a predictor, the folder of a trained model")
        for n, rule in enumerate(self.rules, 1):
            for m, other in enumerate(self.rules[: n - 1], 1):
                # In a hybrid route two intents for the same are a question to the classifier.
                counts = self.mode == "hybrid" and other.intent != rule.intent
                if other.when == rule.when and not counts:
                    raise ValueError(f"rule {n} can never match: rule {m} has the same conditions")
        names = [experiment.name for experiment in self.experiments]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two experiments are called {name!r}")
        return self

    @property
    def mode(self) -> Literal["rules", "learned", "hybrid"]:
        """How it is decided."""
        return self.decide_by or ("hybrid" if self.classifier else "rules")

    @property
    def answer_caches(self) -> tuple[AnswerCache, ...]:
        """What the route and its targets say of the answer cache, in no order."""
        said = (self.answer_cache, *(target.answer_cache for target in self.targets))
        return tuple(each for each in said if each is not None)

    def cache_of(self, target: Target) -> AnswerCache | None:
        """Return how answers of a target are cached, with the embeddings for it; None: not."""
        cache = target.answer_cache or self.answer_cache
        if cache is None or cache.ttl_s == 0:
            return None
        if cache.similar is None:
            return cache.model_copy(update={"embeddings": None})
        return cache.model_copy(update={"embeddings": cache.embeddings or self.embeddings})

    def after_of(self, target: Target) -> tuple[After, ...]:
        """Return what is done to the answers of a target."""
        return self.after if target.after is None else target.after

    def too_long_of(self, target: Target) -> TooLong:
        """Return what becomes of a request that is too long for all models of a target."""
        return target.too_long or self.too_long

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets, in no order."""
        return (*self.rules, *self.intents.values(), self.otherwise)
