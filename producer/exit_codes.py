"""Exit codes: how a command ends, and the one message that says why."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from kombu.exceptions import KombuError

from modelyard.catalog import UnknownName
from modelyard.client import broker_error
from modelyard.errors import (
    BrokerError,
    CatalogError,
    InvalidRequest,
    ModelyardError,
    SettingsError,
)
from modelyard.settings import load_settings
from producer.display import err
from producer.output import discard_unwritten

FAILED: Final = 1
WRONG: Final = 2
NO_BROKER: Final = 3

IN_SHORT: Final = (
    "Exit codes: 0 all is well, 1 something failed, 2 the input or the configuration is wrong, "
    "3 no broker, 130 interrupted."
)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that can be expected into one message and an exit code."""
    try:
        yield
    except UnknownName as error:
        # The broker's other end may know more names: it may have another catalog.
        here = f"the catalog here is {load_settings().catalog_path} (MODELYARD_CATALOG)"
        raise _ended(f"{error}: {here}", WRONG) from error
    except ModelyardError as error:
        raise _ended(str(error), exit_code(error)) from error
    except (redis.RedisError, KombuError) as error:
        raise _ended(str(broker_error(error)), NO_BROKER) from error
    except OSError as error:
        raise _ended(str(error), FAILED) from error


def exit_code(error: ModelyardError) -> int:
    """Return the exit code of a command that ended with this error."""
    if isinstance(error, BrokerError):
        return NO_BROKER
    if isinstance(error, CatalogError | SettingsError | InvalidRequest):
        return WRONG
    return FAILED


def _ended(message: str, code: int) -> SystemExit:
    err.print(f"modelyard: {message}", markup=False, highlight=False, soft_wrap=True)
    discard_unwritten()
    return SystemExit(code)
