"""The environment: every `MODELYARD_*` variable, with its default."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelyard.errors import SettingsError

HERE = Path(__file__).resolve().parent


class Settings(BaseSettings):
    """Settings of one process, read from the environment once."""

    model_config = SettingsConfigDict(env_prefix="MODELYARD_", extra="ignore", frozen=True)

    broker_url: str | None = None
    """Redis, as `redis://[:password@]host:port/db`, or its sentinels (`modelyard.sentinel`). Unset:
    commands start one of their own."""
    catalog: Path | None = None
    """The catalog file. Unset: the one that came with modelyard."""
    prices: Path | None = None
    """A price file in LiteLLM's format, for models that have no price in the catalog."""
    state_dir: Path = Path("~/.local/state/modelyard")
    """Where an embedded Redis keeps its data, and its and the workers' logs."""
    max_message_bytes: Annotated[int, Field(gt=0)] = 4 * 1024 * 1024
    """A larger request is refused at submit."""
    result_ttl_s: Annotated[int, Field(gt=0)] = 7 * 24 * 3600
    """How long an answer is kept, in seconds."""
    region: str | None = None
    """Where this worker is: endpoints of this region come before others."""
    lease_s: Annotated[float, Field(ge=0.1)] = 10.0
    """After how many seconds without a sign of life a worker's messages are given to others. A
    worker renews its leases while it lives, so calls may be much longer."""
    queue_limit: Annotated[int, Field(ge=0)] = 200_000
    """Most requests in one queue (0: no bound): a submit waits then, or raises `QueueFull`."""
    dead_letter_limit: Annotated[int, Field(ge=0)] = 100_000
    """Most dead letters (0: no bound): nothing is submitted then until some are dropped."""
    ledger_entries: Annotated[int, Field(ge=0)] = 100_000
    """About how many requests the decision ledger keeps (0: it is off)."""
    ledger_text: bool = False
    """Whether the decision ledger keeps requests, for replays, and what shadows answered."""
    batch_share: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """What the batch lane gets of a worker while the interactive lane has work too."""
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 120.0
    """How long a worker that was told to stop waits for its calls before it hands them back."""

    @property
    def catalog_path(self) -> Path:
        """The catalog that this process uses."""
        return (self.catalog or config_dir() / "catalog.yaml").expanduser()


def load_settings() -> Settings:
    """Read the environment. Raises `SettingsError` that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        problems = (
            f"MODELYARD_{str(problem['loc'][0]).upper()}: {problem['msg']} "
            f"(it is {problem['input']!r})"
            for problem in error.errors()
        )
        raise SettingsError("\n".join(problems)) from error


def config_dir() -> Path:
    """Return the folder with the default catalog and the other data files.

    In a wheel it lies inside this package, in a checkout (and an editable install) beside it.
    """
    for folder in (HERE / "config", HERE.parent / "config"):
        if (folder / "catalog.yaml").is_file():
            return folder
    raise SettingsError(
        f"no default catalog beside {HERE}: reinstall modelyard, or set MODELYARD_CATALOG"
    )
