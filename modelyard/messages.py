"""The messages that travel: frozen models with one encoding, JSON.

A `Request` goes into the queue `requests`; the router turns it into a `Call` on a model's queue;
the outcome is an `Answer` in the result backend, or a `DeadLetter`. Times on the wire are seconds
since the epoch (UTC) as floats; durations carry their unit in their name.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, FiniteFloat, ValidationError, model_validator

from modelyard.errors import FailureKind
from modelyard.plan import Decision
from modelyard.wire import Fraction, Positive, Wire


class Lane(StrEnum):
    """How urgent a request is."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class TextPart(Wire):
    """Text inside a message that has more than text."""

    type: Literal["text"]
    text: str


class ImageUrl(Wire):
    """Where an image lies: an `https://` address, or `data:image/png;base64,...`."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Wire):
    """An image inside a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


Content = str | tuple[Annotated[TextPart | ImagePart, Field(discriminator="type")], ...]


class FunctionCall(Wire):
    """Which function a model wants called; `arguments` is JSON as the model wrote it."""

    name: str
    arguments: str


class ToolCall(Wire):
    """One call that a model asks for.

    `opaque` is what its provider wants back with it in the next turn, unchanged (the signature of a
    thought, for one), under the name of the model that wrote it. Others leave it out.
    """

    id: str
    type: Literal["function"]
    function: FunctionCall
    opaque: dict[str, Any] | None = None

    @classmethod
    def of(cls, id: str, name: str, arguments: str, opaque: dict[str, Any] | None = None) -> Self:
        """Return the call of a function."""
        function = FunctionCall(name=name, arguments=arguments)
        return cls(id=id, type="function", function=function, opaque=opaque)


class Message(Wire):
    """One turn of a conversation, as OpenAI's chat API has it; providers translate it.

    `tool_calls` are what an assistant's turn asked for, and `tool_call_id` says which of them a
    turn of role `tool` answers: https://platform.openai.com/docs/api-reference/chat/create
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content = ""
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _calls_belong(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            raise ValueError("only a message of role 'assistant' has tool_calls")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("a message of role 'tool', and no other, has a tool_call_id")
        return self

    @property
    def text(self) -> str:
        """What it says, without images."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImageUrl, ...]:
        """The images in it, in order."""
        if isinstance(self.content, str):
            return ()
        return tuple(part.image_url for part in self.content if isinstance(part, ImagePart))


class Limits(Wire):
    """What the models that answer must keep to; what is not given is the route's to say.

    `quality_floor`: the chance that the answer is good enough, as predicted, or the catalog's
    `quality` where nothing was learned. `max_cost_usd` and `max_latency_s`: as estimated for one
    call. `region` and `data_class`: only models that the catalog lists for them.
    """

    quality_floor: Fraction | None = None
    max_cost_usd: Positive | None = None
    max_latency_s: Positive | None = None
    region: str | None = None
    data_class: str | None = None


class Request(Wire):
    """What a producer submits.

    `Request.of("...")`, or `{"text": "..."}` in JSON, is short for one user message. `params` are
    the sampling parameters of a chat completion (`temperature`, `max_tokens`, ...), passed on to
    the provider. `models` pins the candidates, in order, and skips the route's rules. Of
    `metadata`, the router knows `user`, `session` and `tenant`: whose request it is. `no_store`:
    its answer is neither taken from the answer cache nor kept there.
    """

    messages: tuple[Message, ...] = Field(min_length=1)
    route: str = "default"
    lane: Lane = Lane.INTERACTIVE
    models: tuple[str, ...] = ()
    params: dict[str, Any] = Field(default_factory=dict)
    limits: Limits = Limits()
    metadata: dict[str, str] = Field(default_factory=dict)
    no_store: bool = False
    deadline: FiniteFloat | None = None
    submitted_at: FiniteFloat | None = None

    @classmethod
    def of(cls, text: str, **fields: Any) -> Self:
        """Return a request of one user message. Raises `pydantic.ValidationError`."""
        return cls.model_validate({"text": text, **fields})

    @model_validator(mode="before")
    @classmethod
    def _can_travel(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            check_encodable(data)
        return data

    @model_validator(mode="before")
    @classmethod
    def _text_is_one_user_message(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "text" in data:
            rest = {key: value for key, value in data.items() if key != "text"}
            if "messages" in rest:
                raise ValueError("give either text or messages, not both")
            return {**rest, "messages": [{"role": "user", "content": data["text"]}]}
        return data

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not any(each.text.strip() or each.images for each in self.messages):
            raise ValueError("the request has no text")
        return self

    @property
    def text(self) -> str:
        """All that is said, one message after the other."""
        return "\n".join(message.text for message in self.messages)


class Usage(Wire):
    """Tokens of one answer, as the provider counted them.

    `cached_input_tokens` and `cache_write_tokens` (read from and written to the provider's prompt
    cache) are among `input_tokens`, and `reasoning_tokens` among `output_tokens`, whichever way the
    provider counts.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def told(self) -> dict[str, int]:
        """Return it for people and files: input and output, and of the parts what there is."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            **self.encode(),
        }

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


class Attempt(Wire):
    """One call of one endpoint. `kind` is None when it succeeded.

    `usage` and `cost_usd` are what it was charged for, as far as the provider said.
    `first_token_ms` is the time to the first piece of a streamed answer.
    """

    model: str
    endpoint: str
    started_at: float
    duration_ms: float
    kind: FailureKind | None = None
    status: int | None = None
    message: str = ""
    retry_after_s: float | None = None
    provider_model: str = ""
    usage: Usage = Usage()
    cost_usd: float = 0.0
    first_token_ms: float | None = None


class Part(StrEnum):
    """What the model whose turn it is has to do."""

    ANSWER = "answer"
    """Answer the request."""
    MEMBER = "member"
    """Answer it as one of an ensemble: the answer goes to where they are joined."""
    SHADOW = "shadow"
    """Answer it for the record only."""
    JUDGE = "judge"
    """Grade the last draft of a cascade."""
    COMBINE = "combine"
    """Make one answer of an ensemble's."""
    MAP = "map"
    """Answer a piece of it: the answer goes to where all pieces are joined."""
    REDUCE = "reduce"
    """Answer the request from what its pieces became."""

    @property
    def is_apart(self) -> bool:
        """Whether its end is not the request's."""
        return self in {Part.MEMBER, Part.SHADOW, Part.MAP}

    @property
    def joins(self) -> bool:
        """Whether it goes on with what others came to, which is forgotten with its end."""
        return self in {Part.COMBINE, Part.REDUCE}


class Call(Wire):
    """A request on its way to the model of `decision.plan.steps[step]`, or to a judge.

    `drafts` are answers that were not accepted, or not yet. `origin` is the request's id where the
    message has one of its own, as an ensemble's members have. `request` of a piece is the piece.
    """

    request: Request
    decision: Decision
    step: int = 0
    part: Part = Part.ANSWER
    attempts: tuple[Attempt, ...] = ()
    drafts: tuple["Draft", ...] = ()
    origin: str | None = None

    @property
    def model(self) -> str:
        """Catalog name of the model whose turn it is."""
        plan = self.decision.plan
        judge = None
        if self.part is Part.JUDGE and plan.accept is not None:
            judge = plan.accept.judge
        if self.part is Part.COMBINE and plan.combine is not None:
            judge = plan.combine.judge
        if self.part is Part.SHADOW and plan.shadow is not None:
            return plan.shadow
        return judge or plan.steps[self.step].model


class Cached(Wire):
    """Where an answer comes from that was given before, and what it saved.

    `of` is the request that was answered so; `usage` and `saved_usd` are what that took.
    `similarity` is the cosine of the two requests' embeddings, None where they are the same.
    """

    of: str
    usage: Usage = Usage()
    saved_usd: float = 0.0
    similarity: float | None = None


class Draft(Wire):
    """The answer of one model on the way to the final one.

    `verdict` says why it was not accepted; `score` is the judge's, from 0 to 1; `confidence` the
    mean probability of its tokens; `cached` that no call was made for it. `processed` are the
    steps of the plan's `after` that changed it; an `unfit` one did not pass them and never stands.
    """

    model: str
    provider_model: str = ""
    text: str
    usage: Usage = Usage()
    cost_usd: float = 0.0
    finish_reason: str = "stop"
    confidence: float | None = None
    score: float | None = None
    verdict: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    cached: Cached | None = None
    processed: tuple[str, ...] = ()
    unfit: bool = False


class Timings(Wire):
    """Where the time of an answer went, in milliseconds.

    `routing_ms`: from submit to the router's decision; `queued_ms`: from there to the first call
    (the wait in the model's queue); `calling_ms`: in calls, waits between them included;
    `total_ms`: from submit to the outcome.
    """

    routing_ms: float = 0.0
    queued_ms: float = 0.0
    calling_ms: float = 0.0
    total_ms: float = 0.0


class Answer(Wire):
    """The final response to a request.

    `model` is the catalog's name and `provider_model` what the provider says it ran. `extractive`
    marks text that was picked from the input and not written by a model. `drafts` are the answers
    of other models that were paid for on the way; usage and cost include them. `tool_calls` are
    what the model asks the producer to call; the text may be empty then. `cached`: it was given
    before, to another request; usage and cost are then those of what was called all the same.
    `processed`: which steps of the plan's `after` changed the text.
    """

    id: str
    text: str
    model: str
    provider_model: str
    decision: Decision
    usage: Usage = Usage()
    cost_usd: float = 0.0
    finish_reason: str = "stop"
    tool_calls: tuple[ToolCall, ...] = ()
    extractive: bool = False
    attempts: tuple[Attempt, ...] = ()
    drafts: tuple[Draft, ...] = ()
    timings: Timings = Timings()
    cached: Cached | None = None
    processed: tuple[str, ...] = ()


Call.model_rebuild()


class DeadReason(StrEnum):
    """Why a request could not be answered."""

    EXHAUSTED = "exhausted"
    """Every model of the plan was tried and failed."""
    EXPIRED = "expired"
    """Its deadline passed before a call."""
    INVALID = "invalid"
    """It can't be read, routed or accepted by any model."""
    REFUSED = "refused"
    """A provider declined its content, a person did not want it, or a budget is spent."""
    POISON = "poison"
    """Each worker that had its message was lost: the message is suspected to kill them."""


class DeadLetter(Wire):
    """A request that could not be answered, whole, with all that is known about why.

    `request` is the JSON that was submitted: it may be what is wrong. `traceback` is where a worker
    failed in an unforeseen way, without values. `reply_to` is the channel of who submitted it.
    """

    id: str
    reason: DeadReason
    message: str
    request: dict[str, Any]
    decision: Decision | None = None
    attempts: tuple[Attempt, ...] = ()
    died_at: float
    traceback: str = ""
    reply_to: str = ""


def problems(error: ValidationError) -> str:
    """Return what is wrong with a message in one line, without its content: it may be private."""
    return "; ".join(
        ": ".join([*filter(None, [".".join(map(str, problem["loc"]))]), told(problem["msg"])])
        for problem in error.errors(include_input=False)
    )


def told(message: str) -> str:
    """Return a validation message without pydantic's name for our own errors."""
    return message.removeprefix("Value error, ")


MAX_DEPTH = 64
"""How deep parameters may be nested: JSON parsers end at some hundreds."""


def check_encodable(value: Any, depth: int = 0) -> None:
    """Raise `ValueError` if some text in `value` is no Unicode, or it is nested too deep."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ValueError(
                    f"its text is not valid Unicode (a lone surrogate at {error.start})"
                ) from None
    elif isinstance(value, Mapping):
        if depth == MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        for key, item in value.items():
            check_encodable(key, depth + 1)
            check_encodable(item, depth + 1)
    elif isinstance(value, list | tuple):
        if depth == MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        for item in value:
            check_encodable(item, depth + 1)
