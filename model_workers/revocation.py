"""Celery's `revoke` and `terminate`, where a request has parts that are messages of their own.

Celery knows messages: it stops the one whose id it is told, drops it if it comes later, and nobody
hears more of it. But a request that waits for its parts has no message anywhere, and a part has a
request that waits for it. So what is said of a request holds for its parts too, and the revocation
of a part is its end, as any other failure of it.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Any

import redis
from celery import Celery
from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker import state as worker_state
from celery.worker.control import control_command
from celery.worker.request import Request
from pydantic import ValidationError

from model_workers.origin import Origin, is_part
from modelyard.claims import Join, settle
from modelyard.endings import cancelled, reply_channel
from modelyard.holdings import ledger
from modelyard.member import Member, ended
from modelyard.messages import Call, DeadReason, Lane
from modelyard.names import JOIN_KEY_PREFIX, member_of, model_queue
from modelyard.received import argument

logger = logging.getLogger("modelyard.calls")


class CallRequest(Request):
    """A call in this worker's hands, as Celery has it. A part has no result of its own."""

    @property
    def store_errors(self) -> bool:
        return not is_part(self.id, self.parent_id) and bool(super().store_errors)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Have whoever waits for a part hear of its end before it is acknowledged."""
        if member_of(self.id, self.parent_id) is not None:
            job = self._apply_result() if self._apply_result is not None else None
            if getattr(job, "finishing", False):
                return  # It has its answer, which was paid for, and that is being stored.
            origin = Origin.of(self._context)
            join = revoked(origin, argument(self.message))
            assert join is not None
            try:
                settle(self.app.backend.client, [join])
            except (redis.RedisError, OSError) as error:
                # Not again: this is the worker's main thread. The lease runs out, the message comes
                # again, and its id is known to be revoked.
                logger.warning("%s is revoked, and ends when it comes again: %s", self.id, error)
            # What is let go is not acknowledged by what follows.
            ledger.settled([origin.claim])
        super()._announce_revoked(reason, terminated, signum, expired)


def revoked(origin: Origin, payload: Any) -> Join | None:
    """Return the end of a member or a piece that was revoked; None for any other message.

    The decision ledger does not hear of it: what somebody stops tells nothing of the model.
    """
    why = "somebody revoked it"
    try:
        call = Call.decode(payload)
    except ValidationError:
        unread = Member(reason=DeadReason.REFUSED, message=why)
        return ended(unread, claim=origin.claim, id=origin.id, parent_id=origin.parent_id)
    return ended(
        Member(attempts=call.attempts, reason=DeadReason.REFUSED, message=f"{call.model}: {why}"),
        claim=origin.claim,
        id=origin.id,
        parent_id=origin.parent_id,
        decision=call.decision,
        queue=model_queue(call.model, batch=call.request.lane is Lane.BATCH),
    )


def follow(id: str, parent_id: Any, payload: Any) -> None:
    """Have Celery drop a part that came to this worker if its request was revoked, and keep what is
    of a later life: a request that is replayed has its old id, and so have its parts.

    `payload` is the argument of the message.
    """
    known = worker_state.revoked
    of_request = parent_id in known and is_part(id, parent_id)
    if id not in known and not of_request:
        return
    decided_at = decided(payload)
    if id in known and revoked_at(id) < decided_at:
        known.discard(id)
    if of_request and id not in known and revoked_at(parent_id) >= decided_at:
        # As of when its request was: a part of a former life may come after the replay.
        known.add(id, stamp(parent_id))


def decided(payload: Any) -> float:
    """Return when the route of a call was chosen, in seconds since the epoch; 0 if that is not
    known.
    """
    try:
        return Call.decode(payload).decision.decided_at
    except ValidationError:
        return 0.0


def revoked_at(id: str) -> float:
    """Return when this worker heard that a known id is revoked, in seconds since the epoch."""
    return time.time() - (time.monotonic() - stamp(id))


def stamp(id: str) -> float:
    """Return that by the monotonic clock, as Celery keeps it."""
    at: float = worker_state.revoked._data[id][0]  # `as_dict` would copy all of them.
    return at


def parts_of(ids: Iterable[str], requests: Mapping[str, Any]) -> dict[str, str]:
    """Return the ids of the parts of requests with these ids, and which request each belongs to.

    `requests` are Celery's requests in this worker's hands, by id.
    """
    wanted = set(ids)
    return {
        id: request.parent_id
        for id, request in requests.items()
        if request.parent_id in wanted and is_part(id, request.parent_id)
    }


@control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(
    state: Any, task_id: Any, terminate: bool = False, signal: str | None = None, **more: Any
) -> Any:
    """Revoke task by task id (or list of ids), and its parts."""
    ids = dict.fromkeys(maybe_list(task_id) or [])
    parts = parts_of(ids, worker_state.requests)
    if terminate:
        waiting = {whose for part, whose in parts.items() if member_of(part, whose) is not None}
        for id in waiting:
            end_waiting(state.app, id)
    return control.revoke(state, [*ids, *parts], terminate, signal, **more)


@control_command(
    name="terminate",
    variadic="task_id",
    args=[("signal", str)],
    signature="<signal> [id1 [id2 [... [idN]]]]",
)
def terminate(state: Any, signal: str, task_id: Any, **_: Any) -> Any:
    """Terminate task by task id (or list of ids), and its parts."""
    return revoke(state, task_id, terminate=True, signal=signal)


def end_waiting(app: Celery, id: str) -> None:
    """End a request as cancelled that waits for its parts: Celery finds no message of it.

    One whose parts were joined has a message again, which Celery stops or drops.
    """
    client = app.backend.client
    try:
        message = client.hget(JOIN_KEY_PREFIX + id, "message")
        if message is None:
            return
        channel = reply_channel(json.loads(message)["properties"].get("reply_to"))
        end = cancelled(id, claim="", ttl_s=app.backend.expires, channel=channel, now=time.time())
        settle(client, [end])
    except (redis.RedisError, OSError) as error:
        # Its parts fail, and what joins them is dropped by who heard of this.
        logger.warning("request %s is revoked, and ends when its parts have: %s", id, error)
