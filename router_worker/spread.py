"""One request on several queues: an ensemble's members, or the pieces of a request, and where they
are joined; and shadows.
"""

from modelyard.claims import JoinPoint, Spread
from modelyard.member import round_of
from modelyard.messages import Call, Lane, Part
from modelyard.names import CALL_TASK, member_id, model_queue, route_event_id, shadow_id
from modelyard.pieces import piece_requests
from modelyard.plan import Combine, Strategy
from modelyard.publish import envelope

LEAST_MS = 1
"""A join that is late already goes on at the next sweep."""

LAST_S = 7 * 24 * 3600.0
"""For how long an ensemble without a deadline waits for its first answer, in seconds. Its members
end by themselves, but their queues may have no worker."""

LONGEST_S = 10 * 365 * 24 * 3600.0
"""A deadline after that is as good as none, and Redis could not count its milliseconds."""


def is_spread(call: Call) -> bool:
    """Return whether more than one call is made at once."""
    plan = call.decision.plan
    joined = plan.strategy in {Strategy.ENSEMBLE, Strategy.MAP_REDUCE}
    return plan.shadow is not None or joined


def spread(
    claim: str,
    id: str,
    call: Call,
    *,
    words: str,
    reply_to: str,
    redelivered: bool,
    now: float,
) -> Spread:
    """Return where the parts of a request go. `now` is in seconds since the epoch."""
    plan, join = call.decision.plan, None
    members = members_of(id, call)
    if members:
        parts = [(member_id(id, number), member) for number, member in enumerate(members, 1)]
        end = Part.REDUCE if plan.strategy is Strategy.MAP_REDUCE else Part.COMBINE
        combiner = call.model_copy(update={"part": end})
        join = join_point(
            id,
            combiner,
            message(id, combiner, words, reply_to, route_event_id(id), redelivered)[1],
            members=len(members),
            now=now,
        )
    else:
        parts = [(id, call)]
    if plan.shadow is not None:
        parts.append((shadow_id(id), call.model_copy(update={"part": Part.SHADOW, "origin": id})))
    # A part's own row in Flower hangs on the request's, and the request's on the router's.
    messages = tuple(
        message(
            part_id,
            part,
            words,
            reply_to if part_id == id else "",
            route_event_id(id) if part_id == id else id,
            redelivered,
        )
        for part_id, part in parts
    )
    return Spread(claim, messages, join)


def members_of(id: str, call: Call) -> list[Call]:
    """Return the calls that are made side by side, if their answers are joined."""
    plan = call.decision.plan
    if plan.pieces is not None:
        part = {"part": Part.MAP, "origin": id}
        requests = piece_requests(call.request, plan.pieces)
        return [call.model_copy(update={**part, "request": request}) for request in requests]
    if plan.strategy is Strategy.ENSEMBLE:
        part = {"part": Part.MEMBER, "origin": id}
        return [call.model_copy(update={**part, "step": at}) for at in range(len(plan.steps))]
    return []


def message(
    id: str, call: Call, words: str, reply_to: str, parent_id: str, redelivered: bool
) -> tuple[str, str]:
    """Return the queue of a call's model, and its message."""
    queue = model_queue(call.model, batch=call.request.lane is Lane.BATCH)
    sent = envelope(
        task=CALL_TASK,
        id=id,
        payload=call.model_dump_json(exclude_defaults=True),
        queue=queue,
        summary=words if call.part is Part.ANSWER else f"{call.part}, {words}",
        reply_to=reply_to,
        parent_id=parent_id,
        shadow=queue,
        redelivered=redelivered,
    )
    return queue, sent


def join_point(id: str, combiner: Call, sent: str, *, members: int, now: float) -> JoinPoint:
    """Return where the members meet, and until when they are waited for."""
    plan = combiner.decision.plan
    last_s, deadline = LAST_S, combiner.request.deadline
    if deadline is not None:
        last_s = min(deadline - now, LONGEST_S)
    need, within_s, combine = members, last_s, plan.combine or Combine()
    if plan.strategy is Strategy.ENSEMBLE:
        need, within_s = min(combine.quorum or members, members), min(combine.deadline_s, last_s)
    return JoinPoint(
        id=id,
        need=need,
        members=members,
        within_ms=max(LEAST_MS, round(1000 * within_s)),
        last_ms=max(LEAST_MS, round(1000 * last_s)),
        queue=model_queue(combiner.model, batch=combiner.request.lane is Lane.BATCH),
        message=sent,
        # Without a judge, any worker can combine: one that answers lives.
        anywhere=combiner.part is Part.COMBINE and combine.how != "best",
        round=round_of(combiner.decision),
        # A text of which a part is missing is another text.
        needs_all=combiner.part is Part.REDUCE,
    )
