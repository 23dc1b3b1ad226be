"""Redis Sentinel: what its addresses look like, and connections to whoever is the master now.

An address is the list that Celery's users write, with the master's name:

    sentinel://:password@host1:26379;sentinel://host2:26379/0?master_name=mymaster

User, password and database are the master's; whatever the sentinels want themselves is
`sentinel_username` and `sentinel_password`. Each connection that is made asks the sentinels first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
)

from modelyard.errors import SettingsError

SCHEME: Final = "sentinel://"
DEFAULT_PORT: Final = 26379
DEFAULT_MASTER: Final = "mymaster"
"""The name in the sentinel.conf that comes with Redis."""

ASK_S: Final = 1.0
"""How long one sentinel may take to connect and to answer, in seconds, before the next is asked."""

OPTIONS: Final = ("master_name", "sentinel_username", "sentinel_password")
EXAMPLE: Final = "sentinel://host1:26379;sentinel://host2:26379/0?master_name=mymaster"

DEMOTED_CODES: Final = ("READONLY", "MASTERDOWN", "NOREPLICAS", "UNBLOCKED")
"""How a server refuses that is the master no more, or that lost its replicas to another one."""


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the sentinels are, which of their masters is meant, and how to log in."""

    sentinels: tuple[tuple[str, int], ...]
    master_name: str = DEFAULT_MASTER
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def kombu_urls(self) -> list[str]:
        """The same as kombu, Celery and Flower read it: an address for each sentinel."""
        login = f"{quote(self.username or '', '')}:{quote(self.password or '', '')}@"
        login = "" if login == ":@" else login
        return [
            f"{SCHEME}{login}{f'[{host}]' if ':' in host else host}:{port}/{self.db}"
            for host, port in self.sentinels
        ]

    @property
    def url(self) -> str:
        """The whole address, which `parse` reads and at whose first part kombu may look too."""
        urls = self.kombu_urls
        said = {name: getattr(self, name) for name in OPTIONS}
        options = urlencode({name: value for name, value in said.items() if value is not None})
        # kombu reads the first part and knows no options.
        return f"{';'.join(urls if len(urls) > 1 else urls * 2)}?{options}"

    @property
    def sentinel_kwargs(self) -> dict[str, Any]:
        """What redis-py is told of the connections to the sentinels; plain values."""
        said = {"username": self.sentinel_username, "password": self.sentinel_password}
        return {
            "socket_timeout": ASK_S,
            "socket_connect_timeout": ASK_S,
            **{name: value for name, value in said.items() if value is not None},
        }


def is_sentinel(url: str) -> bool:
    """Return whether this is an address of sentinels."""
    return url.startswith(SCHEME)


def parse(url: str) -> SentinelAddress:
    """Read an address of sentinels. Raises `SettingsError`, without its passwords."""
    sentinels: list[tuple[str, int]] = []
    found: dict[str, set[str]] = {name: set() for name in ("db", "username", "password", *OPTIONS)}
    for part in url.split(";"):
        if not part.startswith(SCHEME):
            raise wrong("each of its parts, between the semicolons, begins with sentinel://")
        try:
            pieces = urlsplit(part)
            host, port = pieces.hostname, pieces.port
        except ValueError as error:
            raise wrong("one of its parts has no host, or a port that is no number") from error
        if not host:
            raise wrong("one of its parts has no host")
        sentinels.append((host, port or DEFAULT_PORT))
        said = {
            "db": pieces.path.strip("/"),
            "username": unquote(pieces.username or ""),
            "password": unquote(pieces.password or ""),
        }
        options = dict(parse_qsl(pieces.query))
        unknown = sorted(options.keys() - set(OPTIONS))
        if unknown:
            raise wrong(
                f"of the option {unknown[0]!r} nothing is known, only of {', '.join(OPTIONS)}"
            )
        for name, value in (said | options).items():
            if value:
                found[name].add(value)
    for name, values in found.items():
        if len(values) > 1:
            raise wrong(f"its parts do not agree on {name}")
    one = {name: values.pop() if values else None for name, values in found.items()}
    db = one.pop("db") or "0"
    if not db.isdecimal():
        raise wrong("its database is a number")
    return SentinelAddress(
        tuple(dict.fromkeys(sentinels)),
        master_name=one.pop("master_name") or DEFAULT_MASTER,
        db=int(db),
        **one,
    )


def wrong(what: str) -> SettingsError:
    """Return the error of an address that can't be read."""
    return SettingsError(f"MODELYARD_BROKER_URL is wrong: {what}; an example is {EXAMPLE}")


def demoted(error: redis.ResponseError) -> bool:
    """Return whether a server refuses because it is not the master, or must not act as one."""
    if isinstance(error, redis.exceptions.ReadOnlyError | redis.exceptions.MasterDownError):
        return True
    # Redis 6 quotes the refusal of a command inside a script: `... -READONLY You can't write`.
    words = str(error)
    return any(words.startswith(f"{code} ") or f"-{code} " in words for code in DEMOTED_CODES)


class Sentinels(Sentinel):
    """The sentinels, with an error that people can read when they name no master."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = super().discover_master(  # type: ignore[no-untyped-call]
                service_name
            )
        except MasterNotFoundError:
            # What redis-py says describes each of its objects in a hundred words.
            where = [each.connection_pool.connection_kwargs for each in self.sentinels]
            hosts = ", ".join(sorted(f"{each['host']}:{each['port']}" for each in where))
            raise MasterNotFoundError(
                f"no sentinel of {hosts} names a master {service_name!r} that can be used"
            ) from None
        return found


class MasterConnection(SentinelManagedConnection):
    """A connection that is lost when its server is the master no more; redis-py's only sees
    the refusals that begin with READONLY."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except redis.ResponseError as error:
            if not demoted(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError(f"it is not the master any more: {error}") from error


def master_pool(
    sentinels: Sequence[tuple[str, int]],
    master_name: str,
    sentinel_kwargs: Mapping[str, Any],
    **options: Any,
) -> SentinelConnectionPool:
    """Return connections to the master; nothing is sent yet. `options` are redis-py's.

    A master that is not to be found is a `redis.ConnectionError`.
    """
    ask = {"retry": Retry(NoBackoff(), 0), **sentinel_kwargs}
    return SentinelConnectionPool(
        master_name,
        Sentinels(sentinels, sentinel_kwargs=ask),  # type: ignore[no-untyped-call]
        **{"connection_class": MasterConnection, **options},
    )


def address_pool(address: SentinelAddress, **options: Any) -> SentinelConnectionPool:
    """Return connections to the master at `address`, as `master_pool` does."""
    login = {"db": address.db, "username": address.username, "password": address.password}
    return master_pool(
        address.sentinels, address.master_name, address.sentinel_kwargs, **{**login, **options}
    )
