"""What is done to a final answer before it is committed: the steps of a plan's `after`."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from modelyard.wire import Wire

Kind = Literal["email", "phone", "card"]
KindName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]

WORDS: Final[Mapping[str, Any]] = {"trim": True, "strip_reasoning": True, "json": {}, "redact": {}}
"""The steps that a word alone stands for."""


class AsJson(Wire):
    """The text must be JSON, repaired if need be, and fit `schema` if there is one."""

    # `schema` is a method of pydantic's models.
    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    schema_: dict[str, Any] | None = Field(default=None, alias="schema")

    @field_validator("schema_")
    @classmethod
    def _can_be_used(cls, value: Any, info: ValidationInfo) -> Any:
        # Clients read the plan in an answer as JSON. To them it is news, whatever it says.
        if value is not None and info.mode != "json":
            from modelyard.json_schema import check_schema  # noqa: PLC0415

            check_schema(value)
        return value


class Redact(Wire):
    """What is replaced by its kind in brackets: `[email]`.

    `kinds`: which of those that are known; `patterns`: regular expressions in RE2's syntax by the
    kind that they find.
    """

    kinds: tuple[Kind, ...] = ("email", "phone", "card")
    patterns: dict[KindName, str] = Field(default_factory=dict)

    @field_validator("patterns")
    @classmethod
    def _patterns_are_some(cls, value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        if info.mode != "json":
            for pattern in value.values():
                check_pattern(pattern)
        return value


class After(Wire):
    """One step. Exactly one of these is given; `trim` alone stands for `{trim: true}`.

    `trim`: white space around the text goes. `strip`: what a regular expression in RE2's syntax
    finds goes. `strip_reasoning`: what is between `<think>` and `</think>`, or `<reasoning>` and
    `</reasoning>`. `json`: see `AsJson`. `redact`: see `Redact`. `function`: the text is what the
    Python function `module:name` makes of it.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    trim: bool = False
    strip: Annotated[str, Field(min_length=1)] | None = None
    strip_reasoning: bool = False
    json_: AsJson | None = Field(default=None, alias="json")
    redact: Redact | None = None
    function: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_word_is_a_step(cls, data: Any) -> Any:
        if isinstance(data, str):
            if data not in WORDS:
                raise ValueError(f"must be one of {', '.join(WORDS)}, strip: or function:")
            return {data: WORDS[data]}
        return data

    @field_validator("strip")
    @classmethod
    def _strip_is_a_pattern(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.mode != "json":
            check_pattern(value)
        return value

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(value is not None for value in self._given()) != 1:
            raise ValueError(
                "a step is one of trim, strip, strip_reasoning, json, redact and function"
            )
        if self.function is not None and not all(self.function.partition(":")):
            raise ValueError(f"function {self.function!r} must be written as module:name")
        return self

    def _given(self) -> tuple[object, ...]:
        return (
            *(self.trim or None, self.strip, self.strip_reasoning or None),
            *(self.json_, self.redact, self.function),
        )

    @property
    def name(self) -> str:
        """Which step it is."""
        names = ("trim", "strip", "strip_reasoning", "json", "redact", "function")
        pairs = zip(names, self._given(), strict=True)
        return next(name for name, value in pairs if value is not None)


def check_pattern(pattern: str) -> None:
    """Raise `ValueError` if RE2 does not know this regular expression."""
    # Only who has such patterns needs it.
    import re2  # noqa: PLC0415

    from modelyard.expression_terms import said  # noqa: PLC0415

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"not a regular expression that RE2 knows: {said(error)}") from None
