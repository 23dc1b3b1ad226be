"""The transport of a broker that Redis Sentinel watches over: claims on whoever is the master.

Transport options beside those of `modelyard.transport`: `sentinels`, a list of (host, port), and
kombu's `master_name` and `sentinel_kwargs`. kombu itself takes the sentinels from a list of broker
addresses, among which it changes over to its own transport when a connection fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from kombu.transport import redis as kombu_redis
from redis.sentinel import SentinelConnectionPool

from modelyard.sentinel import DEFAULT_MASTER, DEFAULT_PORT, MasterConnection, master_pool
from modelyard.transport import Channel, Transport


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """A channel that claims, and finds its server by asking sentinels."""

    connection_class: Any = MasterConnection
    sentinels: Sequence[tuple[str, int]] = ()
    master_name: str = DEFAULT_MASTER
    sentinel_kwargs: ClassVar[Mapping[str, Any]] = {}
    from_transport_options: tuple[str, ...] = (  # type: ignore[assignment]
        *kombu_redis.SentinelChannel.from_transport_options,
        *Channel.from_transport_options,
        "sentinels",
    )

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> SentinelConnectionPool:
        options = self._connparams(asynchronous)  # type: ignore[no-untyped-call]
        host, port = options.pop("host"), options.pop("port")
        pool = master_pool(
            [(each[0], each[1]) for each in self.sentinels] or [(host, port)],
            self.master_name,
            self.sentinel_kwargs,
            **options,
        )
        # kombu closes what it finds here.
        if asynchronous:
            self._async_sentinel_manager = pool.sentinel_manager
        else:
            self._sentinel_manager = pool.sentinel_manager
        return pool


class SentinelTransport(Transport):
    """`broker_transport` of an app whose broker's address is `sentinel://...`."""

    default_port = DEFAULT_PORT  # type: ignore[assignment]
    Channel = SentinelChannel
