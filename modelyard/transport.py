"""kombu's Redis transport, with the claims of `modelyard.claims` in place of BRPOP and `unacked`.

What is different for the messages of queues (fanout, and with it events and remote control, is
kombu's own):

- *Claim*: messages leave their queue and become claims of this worker in one script, as many as
  there is room for. kombu pops a message first and notes it afterwards.
- *Waking up*: a worker that found nothing waits with BRPOP, but for a token and not for a message.
  Whoever puts messages leaves one token, and a worker that leaves messages behind leaves one too.
  Tokens are hints: one that is lost costs `poll_s`, after which a worker looks anyway; so it does
  for producers that know nothing of tokens (any Celery client).
- *Acks* are collected, and go along with the next claim or `ACK_DELAY_S` later.
- *Leases* replace the visibility timeout: `modelyard.leases`.
- *Once*: a message whose headers hold `ONCE_HEADER` is put into its queue only if no message with
  the same mark was put there before.

A connection that is lost: calls that run here go on, as their claims are renewed over another one;
what has not started is put back, or taken over when its lease runs out.

Other people's clients with a plain `redis://` address are not affected. Redis Cluster is not
supported, as in kombu.
"""

import logging
import time
from collections.abc import Iterable, Mapping
from queue import Empty
from typing import Any, ClassVar, Final

import redis
from kombu.asynchronous import get_event_loop
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from modelyard.claims import (
    AT_ONCE,
    LEASE_S,
    PUT,
    Ack,
    Back,
    Claimed,
    Claims,
    New,
    Want,
    put,
    put_args,
)
from modelyard.connect import Connection, SSLConnection
from modelyard.handover import Handover
from modelyard.holdings import confirm, keep_leases, ledger, owner_at, paused
from modelyard.leases import redelivered
from modelyard.names import (
    BATCH_PREFIX,
    DELIVERIES_HEADER,
    ONCE_HEADER,
    WAKE_KEY_PREFIX,
    in_lane,
)
from modelyard.qos import QoS
from modelyard.received import QUEUE_FIELD
from modelyard.redis_errors import passes
from modelyard.shares import Shares

logger = logging.getLogger("modelyard.transport")

ACK_DELAY_S: Final = 0.01
"""How long an ack waits for others."""

CLAIM_PAUSE_S: Final = 0.002
"""How long a worker with little room waits for more of it before it claims again."""


consumed_at: float = time.monotonic()
"""When this process last looked for messages, by `time.monotonic`."""


class Channel(kombu_redis.Channel):
    """A channel that claims.

    Transport options: `lease_s`; `poll_s`, after which a worker that waits looks at its queues;
    `queue_limits`, of how many messages of a queue (its batch lane included) a process may have at
    a time; `batch_share`, what batch lanes get of the room while interactive ones have work too.
    `ledger_entries` and `ledger_text`, as the settings have them, for what ends here.
    `unacknowledged` are the queues that are consumed without acks.
    """

    QoS: Any = QoS
    connection_class: Any = Connection
    connection_class_ssl: Any = SSLConnection
    lease_s: float = LEASE_S
    poll_s: float = 0.1
    batch_share: float = 0.2
    queue_limits: ClassVar[Mapping[str, int]] = {}
    ledger_entries: int = 0
    ledger_text: bool = False
    from_transport_options: tuple[str, ...] = (  # type: ignore[assignment]
        *kombu_redis.Channel.from_transport_options,
        *("lease_s", "poll_s", "batch_share", "queue_limits", "ledger_entries", "ledger_text"),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._address: str = self.connection.client.as_uri(include_password=True)
        self.claims = Claims(
            self._create_client(), lease_s=self.lease_s, owner=owner_at(self._address)
        )
        self._shares = Shares({})
        self.handover = Handover(self, self.claims)
        self.unacknowledged: set[str] = set()
        self._left = True
        self._blocked: set[str] = set()
        self._resting = False
        self._soon: Any = None
        self._ack_timer: Any = None

    # -- putting

    def _put(self, queue: str, message: Mapping[str, Any], **kwargs: Any) -> None:
        headers = dict(message.get("headers") or {})
        # A task that is tried again copies the headers of its first message.
        for name in (DELIVERIES_HEADER, "redelivered"):
            headers.pop(name, None)
        again = headers.get("retries")
        mark, remember_s = (not again and headers.get(ONCE_HEADER)) or ("", 1)
        sent = dumps({**message, "headers": headers})
        new = New(headers.get("id") or "", sent, mark, int(remember_s))
        batch = kwargs.get("_publish_batch")
        if batch is not None:
            keys, args = put_args(queue, [new])
            batch.add("eval", PUT.text, len(keys), *keys, *args)
            return
        with self.conn_or_acquire() as client:
            put(client, queue, [new])

    def put_back(self, messages: Iterable[Any], end: Any) -> None:
        """Put messages in hand on their queues again; what fails comes when its lease ends."""
        backs = []
        for message in messages:
            raw = {key: value for key, value in message._raw.items() if key != QUEUE_FIELD}
            sent = redelivered(dumps(raw).encode(), lost=False)
            backs.append(Back(message.delivery_tag, message._raw[QUEUE_FIELD], sent, end))
        # Without a client the connection was lost, and kombu let it go.
        if not backs or self.connection.client is None:
            return
        try:
            self.claims.settle(backs)
        except (redis.RedisError, OSError) as error:
            logger.warning("%d messages come back when their lease ends: %s", len(backs), error)

    # -- acknowledging

    def ack_soon(self) -> None:
        """Acknowledge what is owed with the next claim, or a moment later."""
        if self._ack_timer is not None:
            return
        hub = get_event_loop()
        if hub is None or self.closed:
            self.settle_acks()
        else:
            self._ack_timer = hub.call_later(ACK_DELAY_S, self._settle_acks_later)

    def _settle_acks_later(self) -> None:
        self._ack_timer = None
        self.settle_acks()

    def settle_acks(self) -> None:
        """Acknowledge what is owed; what can't be now is done by the leases' thread."""
        acks = ledger.take_acks()
        try:
            self.claims.settle([Ack(claim) for claim in acks])
        except (redis.RedisError, OSError) as error:
            ledger.give_back_acks(acks)
            logger.warning("%d acks are tried again later: %s", len(acks), error)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        if self.closed:
            ledger.ack(delivery_tag)
        else:
            super().basic_ack(delivery_tag, multiple=multiple)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self.closed:
            super().basic_reject(delivery_tag, requeue=requeue)
        elif requeue:
            ledger.settled([delivery_tag])  # its lease runs out
        else:
            ledger.ack(delivery_tag)

    # -- claiming

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        if no_ack:  # replies to remote control, say: nobody will acknowledge them
            self.unacknowledged.add(queue)
        else:
            self.unacknowledged.discard(queue)
        consuming = super().basic_consume(queue, no_ack, *args, **kwargs)
        if not no_ack:
            self._keep_leases()
        return consuming

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if no_ack and message is not None and ledger.ack(message.delivery_tag):
            self.ack_soon()
        return message

    def _keep_leases(self) -> None:
        queues = [queue for queue in self.active_queues if queue not in self.unacknowledged]
        keep_leases(self._address, self._get_pool, self.lease_s, queues)

    def _update_queue_cycle(self) -> None:
        super()._update_queue_cycle()
        self._left = True
        interactive = 1.0 - self.batch_share
        self._shares = Shares(
            {
                queue: self.batch_share if queue.startswith(BATCH_PREFIX) else interactive
                for queue in self.active_queues
            }
        )

    def _groups(self) -> list[tuple[list[str], int]]:
        """Return which queues share how much room."""
        room, queues = self.qos.room, self.active_queues
        if not self.queue_limits:
            return [(queues, room)] if queues else []
        groups: dict[str, list[str]] = {}
        for queue in queues:
            groups.setdefault(in_lane(queue, batch=False), []).append(queue)
        (base, *others) = groups or ("",)
        if not others and 0 < self.qos.prefetch_count <= self.queue_limits.get(base, 0):
            return [(queues, room)] if queues else []
        self.qos._flush()
        taken = dict.fromkeys(groups, 0)
        for message in self.qos._delivered.values():
            base = in_lane(message._raw[QUEUE_FIELD], batch=False)
            taken[base] = taken.get(base, 0) + 1
        limits = {base: self.queue_limits.get(base, room + taken[base]) for base in groups}
        return [(queues, min(room, limits[base] - taken[base])) for base, queues in groups.items()]

    def look(self) -> bool:
        """Claim and deliver what there is room for; return whether there was anything."""
        global consumed_at  # noqa: PLW0603 - the health of the process, not of this channel
        found = False
        left = False
        resting = paused(self.active_queues)
        self._blocked = set(resting)
        self._resting = bool(resting)
        for every, room in self._groups():
            if self.qos.room <= 0:
                left = True
                break
            queues = [queue for queue in every if queue not in resting] if resting else every
            if not queues:
                continue
            if room <= 0:
                self._blocked.update(queues)
                continue
            room = min(room, self.qos.room, AT_ONCE)  # noqa: PLW2901
            claimed, cancelled = self._claim(queues, room)
            found = found or bool(claimed)
            left = left or len(claimed) >= room
            self.handover.deliver(claimed, cancelled)
        self._left = left
        consumed_at = time.monotonic()
        return found

    def _claim(self, queues: list[str], room: int) -> tuple[list[Claimed], set[str]]:
        wants: list[Want] = self._shares.wants(queues, room)
        acks = ledger.take_acks()
        began = time.monotonic()
        try:
            claimed, cancelled = self.claims.claim(wants, room, acks)
        except (redis.RedisError, OSError) as error:
            ledger.give_back_acks(acks)
            if isinstance(error, self.connection_errors) or not passes(error):
                raise
            # A server that refuses may be a replica by now: connect again, and again.
            raise redis.ConnectionError(f"Redis refuses to be written to: {error}") from error
        counts: dict[str, int] = {}
        for each in claimed:
            counts[each.queue] = counts.get(each.queue, 0) + 1
        self._shares.took(wants, counts)
        ledger.claimed(each.claim for each in claimed)
        if claimed and time.monotonic() - began > self.lease_s / 2:
            self._confirm(claimed)
        return claimed, cancelled

    def _confirm(self, claimed: Iterable[Claimed]) -> None:
        """Let go of what was taken over before this process knew that it had it.

        It was stopped, or its connection was. Meanwhile the leases' thread may have renewed what it
        knew of, and says that all of it is ours.
        """
        try:
            confirm()
        except (redis.RedisError, OSError) as error:
            logger.warning("what was just claimed may be somebody else's, and is let go: %s", error)
            ledger.settled(each.claim for each in claimed)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Claim what is known to be there, or wait for a token."""
        if self._left:
            if self._soon is not None and self.qos.room < self.qos.prefetch_count // 4:
                return
            self.look()
            if self._left and not self.qos.can_consume():
                return  # an ack makes room, and has the hub look again
        keys = [
            WAKE_KEY_PREFIX + queue for queue in self.active_queues if queue not in self._blocked
        ]
        if not keys and not self._left:
            if not self._resting:  # not what is paused now: a pause may just have ended
                return
            # Nobody puts a token there: it is a wait, after which this looks again.
            keys = [WAKE_KEY_PREFIX]
        self._in_poll: Any = self.client.connection
        self._brpop_sent_at: Any = time.monotonic()
        if self._left:
            # The hub must turn, for remote control and timers, and then look again.
            self.client.connection.send_command("PING")
            return
        self.client.connection.send_command("BRPOP", *keys, self.poll_s)

    def look_soon(self) -> None:
        """There is room again: look a moment later, when there may be more of it."""
        hub = get_event_loop()
        if self._blocked:
            self._left = True  # one of them may be open again
        if self._left and self._soon is None and hub is not None:
            self._soon = hub.call_later(CLAIM_PAUSE_S, self._look_is_due)

    def _look_is_due(self) -> None:
        """Let the hub, which turns after this, look for messages."""
        self._soon = None

    @property
    def may_look(self) -> bool:
        """Whether it consumes, has room, and there may be messages that no token tells of."""
        return bool(
            self.active_queues and self._left and not self._in_poll and self.qos.can_consume()
        )

    def _brpop_read(self, **options: Any) -> bool:
        try:
            self.client.parse_response(self.client.connection, "BRPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if self._closing or not self.qos.can_consume():
            self._left = True
            raise Empty
        if not self.look():
            raise Empty
        return True

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """Claim one message, for `basic_get`."""
        claimed, _ = self._claim([queue], 1)
        if not claimed:
            raise Empty
        self._keep_leases()
        raw = loads(bytes_to_str(claimed[0].message))
        raw[QUEUE_FIELD] = queue
        raw["properties"]["delivery_tag"] = claimed[0].claim
        return raw

    def close(self) -> None:
        if not self.closed and ledger.owes:
            self.settle_acks()
        super().close()


class Poller(kombu_redis.MultiChannelPoller):
    """Kombu's poller, for `drain_events` too: what is there is delivered before it waits."""

    def get(self, callback: Any, timeout: float | None = None) -> None:
        for channel in self._channels:
            if channel.may_look and channel.look():
                return
        super().get(callback, timeout)


class Transport(kombu_redis.Transport):
    """`broker_transport` of every modelyard app; the broker's address stays `redis://...`."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle: Any = Poller()
