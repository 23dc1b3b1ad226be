"""Routing the messages of one connection, a batch at a time.

The worker's consumer hands over what it claimed, message by message; then all of it is decided, and
one script moves every request to its model's queue and acknowledges it here.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import redis

from modelyard.catalog import Catalog
from modelyard.claims import DONE, FENCED, Hop, Settlement, Spread
from modelyard.endings import cancelled, died, reply_channel
from modelyard.errors import InvalidRequest
from modelyard.holdings import ledger
from modelyard.messages import Call, DeadReason, Lane
from modelyard.names import CALL_TASK, model_queue, route_event_id, session_key
from modelyard.publish import envelope
from modelyard.received import argument
from modelyard.redis_errors import passes
from router_worker.basis import Basis
from router_worker.expiry import expiry
from router_worker.forward import Forwarded, Refused, broken, forward, refused, summary
from router_worker.knowledge import NOTHING, Knowledge
from router_worker.spread import is_spread, spread

logger = logging.getLogger("modelyard.router")

REFUSED_S = 1.0
"""How long the router waits before it writes again to a Redis that refused it, in seconds."""


TELL_EVERY_S = 1.0
"""How often it is logged that requests were routed, at most, and how long after that."""


@dataclass(frozen=True, slots=True)
class Routed:
    """One request: its message, what is to become of it, and that in a few words."""

    message: Any
    settlement: Settlement
    words: str


def route(
    claim: str,
    id: str,
    payload: Any,
    *,
    catalog: Catalog,
    result_ttl_s: int,
    reply_to: str,
    expires: float | None,
    redelivered: bool,
    now: float,
    knowledge: Knowledge = NOTHING,
    escalated: str | None = None,
) -> tuple[Settlement, str]:
    """Return where one request goes, and that in a few words. Times are in seconds.

    `escalated` is the model that the request's session was escalated to. A request that breaks the
    router is a dead letter, not the router's end.
    """
    try:
        outcome = forward(
            id, payload, catalog, now, expires, knowledge=knowledge, escalated=escalated
        )
        if isinstance(outcome, Forwarded):
            return onward(
                claim, id, outcome.call, reply_to=reply_to, redelivered=redelivered, now=now
            )
    except Exception as error:
        logger.exception("request %s can't be routed", id)
        outcome = broken(id, payload, error, now)
    logger.warning(
        "request %s is a dead letter: %s: %s", id, outcome.letter.reason, outcome.letter.message
    )
    return dead(claim, outcome, reply_to, result_ttl_s)


def onward(
    claim: str, id: str, call: Call, *, reply_to: str, redelivered: bool, now: float
) -> tuple[Settlement, str]:
    """Return how a request goes to the models of its plan, and that in a few words."""
    words = summary(call.decision)
    if is_spread(call):
        parts = spread(
            claim,
            id,
            call,
            words=words,
            reply_to=reply_to,
            redelivered=redelivered,
            now=now,
        )
        return parts, words
    queue = model_queue(call.model, batch=call.request.lane is Lane.BATCH)
    message = envelope(
        task=CALL_TASK,
        id=id,
        payload=call.model_dump_json(exclude_defaults=True),
        queue=queue,
        summary=words,
        reply_to=reply_to,
        parent_id=route_event_id(id),
        shadow=queue,
        redelivered=redelivered,
    )
    return Hop(claim, queue, message), words


def dead(claim: str, refused: Refused, reply_to: object, ttl_s: int) -> tuple[Settlement, str]:
    """Return how a request ends here, and that in a few words."""
    channel = reply_channel(reply_to)
    letter = refused.letter.model_copy(update={"reply_to": channel})
    end = died(letter, claim=claim, ttl_s=ttl_s, channel=channel)
    return end, f"dead letter: {letter.reason}"


class Batch:
    """What the consumer handed over and is not routed yet. `basis` gives what is decided by now."""

    def __init__(
        self, name: str, basis: Callable[[], Basis], result_ttl_s: int, consumer: Any
    ) -> None:
        self._name = name
        self._basis = basis
        self._result_ttl_s = result_ttl_s
        self._consumer = consumer
        self._messages: list[Any] = []
        self._routed = 0
        self._revoked = consumer.controller.state.revoked
        self._state = consumer.controller.state

    def take(self, message: Any) -> None:
        """Take one message; it is routed with all that was claimed together with it."""
        self._messages.append(message)
        if len(self._messages) == 1:
            message.channel.handover.after.append(self.flush)

    def flush(self) -> None:
        """Route what is there, waiting while Redis refuses to be written to.

        Raises connection errors, upon which the worker connects again and what is not settled
        comes again, and `WorkerShutdown`.
        """
        messages, self._messages = self._messages, []
        started = time.monotonic(), time.time()
        basis = self._basis()
        escalated, knowledge = self._escalated(messages), basis.knowledge()
        if basis.shelf.is_sharing:
            basis.shelf.ahead(payloads(messages))
        route_one = partial(
            self._route_surely, basis.catalog, escalated=escalated, knowledge=knowledge
        )
        self._settle([route_one(message) for message in messages], *started)
        if basis.shelf.is_sharing:
            basis.shelf.share()

    def _escalated(self, messages: Sequence[Any]) -> Mapping[str, str]:
        """Return to which models sessions were escalated, by their keys; one look for all."""
        keys = {key for message in messages if (key := session_of(message)) is not None}
        if not keys:
            return {}
        try:
            with messages[0].channel.conn_or_acquire() as client:
                models = client.mget(keys)
        except redis.ResponseError as error:
            # What is remembered of sessions is not worth holding up requests for.
            logger.warning("Redis does not tell where sessions are: %s", error)
            return {}
        return {
            key: model.decode()
            for key, model in zip(keys, models, strict=True)
            if model is not None
        }

    def _route_surely(
        self, catalog: Catalog, message: Any, escalated: Mapping[str, str], knowledge: Knowledge
    ) -> Routed:
        """Route one message. One that breaks the router is a dead letter, not the router's end."""
        try:
            return self._route(catalog, message, escalated, knowledge)
        except Exception as error:
            id = message.headers["id"]
            logger.exception("request %s can't be routed", id)
            return self._refused(message, broken(id, received(message), error, time.time()))

    def _refused(self, message: Any, refused: Refused) -> Routed:
        reply_to = message.properties.get("reply_to")
        return Routed(message, *dead(message.delivery_tag, refused, reply_to, self._result_ttl_s))

    def _route(
        self, catalog: Catalog, message: Any, escalated: Mapping[str, str], knowledge: Knowledge
    ) -> Routed:
        headers, claim = message.headers, message.delivery_tag
        id, now = headers["id"], time.time()
        reply_to = message.properties.get("reply_to") or ""
        if id in self._revoked:
            channel = reply_channel(reply_to)
            end = cancelled(id, claim=claim, ttl_s=self._result_ttl_s, channel=channel, now=now)
            return Routed(message, end, "cancelled")
        try:
            payload = argument(message)
        except InvalidRequest as error:
            logger.warning("request %s is a dead letter: %s", id, error)
            return self._refused(message, refused(id, DeadReason.INVALID, str(error), {}, now))
        expires = expiry(headers.get("expires"))
        settlement, words = route(
            claim,
            id,
            payload,
            catalog=catalog,
            result_ttl_s=self._result_ttl_s,
            reply_to=reply_to,
            expires=expires,
            redelivered=bool(headers.get("redelivered")),
            now=now,
            knowledge=knowledge,
            escalated=escalated.get(session_of(message) or "") if escalated else None,
        )
        if isinstance(settlement, Hop | Spread):
            self._basis().heed(payload, expires)  # what was refused asks for nothing
        return Routed(message, settlement, words)

    def _settle(self, routed: Sequence[Routed], started: float, started_at: float) -> None:
        mine = [each for each in routed if ledger.holds(each.settlement.claim)]
        if not mine:
            return
        claims = mine[0].message.channel.claims
        while True:
            try:
                said = claims.settle([each.settlement for each in mine])
                break
            except redis.ResponseError as error:
                if not passes(error):
                    raise
                logger.warning("Redis refuses to be written to, trying again: %s", error)
                self._state.maybe_shutdown()
                time.sleep(REFUSED_S)
        ledger.settled(each.settlement.claim for each in mine)
        for each in mine:
            each.message.ack()
        self._state.total_count[self._name] += len(mine)
        took_s = time.monotonic() - started
        # Nobody waits for events, and somebody for the requests.
        self._send_begin([each.message for each in mine], started_at)
        self._send_done(mine, took_s)
        lost = sum(
            result == FENCED or (result != DONE and isinstance(each.settlement, Hop | Spread))
            for each, result in zip(mine, said, strict=True)
        )
        if lost:
            logger.warning("%d requests were taken over by another router meanwhile", lost)
        self._tell(len(mine))

    def _tell(self, routed: int) -> None:
        """Log soon how many requests were routed, once a second at most."""
        if not self._routed:
            # The last of a burst must not wait for the next one to be told of.
            self._consumer.timer.call_after(TELL_EVERY_S, self._say)
        self._routed += routed

    def _say(self) -> None:
        routed, self._routed = self._routed, 0
        logger.info("routed %d requests", routed)

    def _send_begin(self, messages: Sequence[Any], at: float) -> None:
        events = self._consumer.event_dispatcher
        if events is None or not events.enabled:
            return
        for message in messages:
            headers = message.headers
            event_id = route_event_id(headers["id"])
            events.send(
                "task-received",
                uuid=event_id,
                name=self._name,
                args=headers.get("argsrepr", ""),
                kwargs="{}",
                root_id=headers["id"],
                parent_id=None,
                retries=0,
                eta=None,
                expires=headers.get("expires"),
                timestamp=at,
            )
            events.send("task-started", uuid=event_id, timestamp=at)

    def _send_done(self, done: Sequence[Routed], took_s: float) -> None:
        events = self._consumer.event_dispatcher
        if events is None or not events.enabled:
            return
        for each in done:
            id = each.message.headers["id"]
            if each.words == "cancelled":
                events.send("task-revoked", uuid=id, terminated=False, signum=None, expired=False)
            else:
                events.send(
                    "task-succeeded",
                    uuid=route_event_id(id),
                    result=each.words,
                    runtime=took_s,
                )


def session_of(message: Any) -> str | None:
    """Return the key of the session that a request is in, or None; it may be any message."""
    try:
        metadata = argument(message)["metadata"]
        session, tenant = metadata["session"], metadata.get("tenant") or ""
    except (InvalidRequest, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(session, str) or not isinstance(tenant, str):
        return None
    try:
        key = session_key(tenant, session)
        key.encode()
    except UnicodeEncodeError:
        return None  # a lone surrogate: the request is refused for it
    return key


def received(message: Any) -> Any:
    """Return the request of a message as JSON, as far as it can be read."""
    try:
        return argument(message)
    except InvalidRequest:
        return {}


def payloads(messages: Sequence[Any]) -> Iterator[Any]:
    """Yield the requests of messages, as JSON. What can't be read is told when its turn comes."""
    for message in messages:
        with contextlib.suppress(InvalidRequest):
            yield argument(message)
