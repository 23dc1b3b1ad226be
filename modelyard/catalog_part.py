"""What all parts of the catalog are: frozen, strict, and silent about what they were given."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Base of the catalog's parts."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # A validation error would print its input, and that may be an endpoint with its key.
        hide_input_in_errors=True,
    )
