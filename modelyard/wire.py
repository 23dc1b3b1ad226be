"""What all messages are: immutable, with one encoding, JSON."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Wire(BaseModel):
    """Base of all messages: immutable, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def encode(self) -> dict[str, Any]:
        """Return the message as plain JSON values, without what is empty or default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def decode(cls, data: Mapping[str, Any]) -> Self:
        """Return the message that `encode` made. Raises `pydantic.ValidationError`."""
        return cls.model_validate(data)
