"""The Redis that `MODELYARD_BROKER_URL` names, for commands that read or set a little."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis

from modelyard.address import broker_address
from modelyard.connect import connect
from modelyard.settings import load_settings

SILENT_S: Final = 10.0
"""A Redis that says nothing for so long is not there."""


@contextmanager
def broker() -> Iterator[redis.Redis]:
    """Give a connection. Raises `SettingsError`; what is asked of it raises `redis.RedisError`."""
    url = broker_address(None, load_settings())
    with connect(url, socket_timeout=SILENT_S, socket_connect_timeout=SILENT_S) as client:
        yield client
