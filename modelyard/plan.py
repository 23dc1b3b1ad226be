"""What the router concludes, and what the workers execute: a `Decision` with its `Plan`.

Workers know nothing of classification. What they need to judge and to combine answers is in the
plan.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from modelyard.after import After
from modelyard.wire import Fraction, Positive, Wire


class Accept(Wire):
    """When the answer of a cascade's model is good enough; all that is given must hold.

    `expression`: a condition on `text`, `finish_reason`, `output_tokens`, `confidence` and `json`,
    in the small language of `modelyard.expression`. `json_schema`: the text is JSON that fits it.
    `min_confidence`: the mean probability of the answer's tokens, from the provider's
    log-probabilities; an answer without them fails. `agreement`: the share of `samples` answers,
    the first among them, that say the same. `judge`: a model that grades the answer, which must
    reach `judge_floor`.
    """

    expression: str | None = None
    json_schema: dict[str, Any] | None = None
    min_confidence: Fraction | None = None
    agreement: Fraction | None = None
    samples: Annotated[int, Field(ge=2, le=20)] = 3
    judge: str | None = None
    judge_floor: Fraction = 0.7

    @field_validator("expression", "json_schema")
    @classmethod
    def _can_be_used(cls, value: Any, info: ValidationInfo) -> Any:
        # Clients read the plan in an answer as JSON. To them it is news, whatever it says.
        if value is None or info.mode == "json":
            return value
        # Imported when there is one: both are more than most programs need.
        if info.field_name == "expression":
            from modelyard.expression import parse  # noqa: PLC0415

            parse(value)
        else:
            from modelyard.json_schema import check_schema  # noqa: PLC0415

            check_schema(value)
        return value


class Combine(Wire):
    """How the answers of an ensemble become one.

    `vote`: what most say; `best`: what `judge` picks; `concatenate`: all of them, in the plan's
    order; `entry_point`: what the Python function `function` (`module:name`) makes of them. It
    happens once `quorum` members have answered (default: all that can), or `deadline_s` seconds
    after the decision with those that have, or then with the first that answers.
    """

    how: Literal["vote", "best", "concatenate", "entry_point"] = "vote"
    judge: str | None = None
    function: str | None = None
    quorum: Annotated[int, Field(ge=1)] | None = None
    deadline_s: Positive = 60.0

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.how == "best" and self.judge is None:
            raise ValueError("how: best needs a judge, the name of a model")
        if self.how == "entry_point" and self.function is None:
            raise ValueError("how: entry_point needs a function, module:name")
        return self


class AnswerCache(Wire):
    """That an answer may be one that was given before, up to `ttl_s` seconds ago (0: it may not).

    To the same request, or, where `similar` is given, to one that differs only in the words of its
    last message, whose embeddings have at least this cosine. `embeddings` is what makes them, a
    folder or a function; a route's own where nothing is said.
    """

    ttl_s: Annotated[int, Field(ge=0, le=30 * 24 * 3600)]
    similar: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    embeddings: Annotated[str, Field(min_length=1)] | None = None


class Pieces(Wire):
    """How a request that is too long is cut: into `count` pieces of at most `piece_tokens`.

    Each is asked about in `asked_tokens` at most, with all that goes with it, and answered in
    `answer_tokens`; what is put together has at most `final_tokens`. All are estimates.
    """

    count: Annotated[int, Field(ge=1)]
    piece_tokens: Annotated[int, Field(ge=1)]
    asked_tokens: Annotated[int, Field(ge=1)]
    answer_tokens: Annotated[int, Field(ge=1)]
    final_tokens: Annotated[int, Field(ge=1)]


class Step(Wire):
    """One model to try."""

    model: str


class Strategy(StrEnum):
    """How a plan's steps are taken."""

    SINGLE = "single"
    """In order, each one after the one before it failed."""
    CASCADE = "cascade"
    """In order, each one after the one before it failed or its answer was not accepted."""
    ENSEMBLE = "ensemble"
    """All at once; their answers are combined."""
    HANDOFF = "handoff"
    """To a person, who answers when there is time."""
    MAP_REDUCE = "map_reduce"
    """In pieces, side by side, and then what they became; each in order, as `single`."""


class Plan(Wire):
    """What the workers execute. `accept` belongs to a cascade, `combine` to an ensemble, `pieces`
    to map-reduce.

    `shadow`: a model that is called as well, and whose answer is only recorded. `cache`: that
    answers are kept and found. `after`: what is done to the final answer, in order.
    """

    strategy: Strategy = Strategy.SINGLE
    steps: tuple[Step, ...] = Field(min_length=1)
    accept: Accept | None = None
    combine: Combine | None = None
    pieces: Pieces | None = None
    shadow: str | None = None
    cache: AnswerCache | None = None
    after: tuple[After, ...] = ()

    @model_validator(mode="after")
    def _has_its_pieces(self) -> Self:
        if (self.strategy is Strategy.MAP_REDUCE) != (self.pieces is not None):
            raise ValueError("pieces belong to map_reduce, and it needs them")
        return self

    @property
    def words(self) -> str:
        """What the workers will do, in a few words."""
        models = [step.model for step in self.steps]
        match self.strategy:
            case Strategy.CASCADE:
                words = f"cascade {' then '.join(models)}"
            case Strategy.ENSEMBLE:
                how = self.combine.how if self.combine else "vote"
                words = f"ensemble of {', '.join(models)} by {how}"
            case Strategy.HANDOFF:
                words = f"handoff to {models[0]}"
            case Strategy.MAP_REDUCE:
                count = self.pieces.count if self.pieces else 1
                words = f"in {count} pieces to {' then '.join(models)}"
            case _:
                words = f"to {' then '.join(models)}"
        return f"{words}, shadowed by {self.shadow}" if self.shadow else words


class Excluded(Wire):
    """A candidate that the router did not put into the plan, and why."""

    model: str
    why: str


class Estimate(Wire):
    """What the router expects of one candidate. `quality` is a chance from 0 to 1."""

    model: str
    quality: float
    cost_usd: float
    latency_s: float


class Arm(Wire):
    """Which part of an experiment a request is in: `control`, or `treatment` by its `share`."""

    experiment: str
    arm: Literal["control", "treatment"]


class Decision(Wire):
    """What the router concluded and why.

    `rule` is the position of the rule that matched in its route, from 0; None if none did.
    `confidence` is the learned classifier's, None where it was not asked. `input_tokens` and
    `output_tokens` are estimates, and so is `complexity`, from 1 to 5. `budgets` are the labels of
    those that its cost counts against. `escalated`: the model that its session had been escalated
    to.
    """

    route: str
    intent: str
    why: str
    rule: int | None = None
    confidence: float | None = None
    input_tokens: int
    output_tokens: int = 0
    complexity: int = 1
    excluded: tuple[Excluded, ...] = ()
    estimates: tuple[Estimate, ...] = ()
    arms: tuple[Arm, ...] = ()
    budgets: tuple[str, ...] = ()
    escalated: str | None = None
    decided_at: float
    plan: Plan
