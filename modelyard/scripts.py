"""The Lua scripts by which Redis does several things in one step."""

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import redis


class Script:
    """A script of the folder `lua`, by name. Its own comment says what it does.

    It is called by its hash, and sent whole to a server that does not know it: a new one, one
    that was promoted, one whose scripts were flushed.
    """

    def __init__(self, name: str) -> None:
        self.text = resources.files("modelyard").joinpath("lua", f"{name}.lua").read_text("utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: redis.Redis, keys: Sequence[str], args: Iterable[Any]) -> Any:
        """Run it. Raises `redis.RedisError`."""
        given = (len(keys), *keys, *args)
        try:
            return client.execute_command("EVALSHA", self.sha, *given)
        except redis.exceptions.NoScriptError:
            return client.execute_command("EVAL", self.text, *given)
