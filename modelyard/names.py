"""Every queue, task, Redis key, channel and header name, in one place.

Whoever reads the broker with `redis-cli` finds here what each key is.
"""

from typing import Final

REQUESTS_QUEUE: Final = "requests"
"""Where every request starts; the router worker drains it."""

MODEL_QUEUE_PREFIX: Final = "model."
"""A model's own queue is this and its catalog name."""

BATCH_PREFIX: Final = "batch."
"""Before a queue's name: its batch lane. Without it: the interactive lane."""

ROUTE_TASK: Final = "modelyard.route"
"""First hop. One argument: a `Request` as JSON."""

CALL_TASK: Final = "modelyard.call"
"""Second and later hops. One argument: a `Call` as JSON."""

RESULT_KEY_PREFIX: Final = "celery-task-meta-"
"""Celery's own key (and channel) of a result: any Celery client finds the answer there."""

REPLY_CHANNEL_PREFIX: Final = "modelyard:answers:"
"""A client's channel: the id and the result of each of its requests are published there."""

SUBMITTED_KEY_PREFIX: Final = "modelyard:submitted:"
"""The id of the request that was put on a queue under this mark: its id, or the producer's key."""

CLAIMS_KEY: Final = "modelyard:claims"
"""A hash from claim to what some worker has in hand: queue, a zero byte, message."""

LEASES_KEY: Final = "modelyard:leases"
"""A sorted set of claims by when their lease runs out, in milliseconds since the epoch."""

WAKE_KEY_PREFIX: Final = "modelyard:wake:"
"""Before a queue's name: a list of at most one token, which wakes one idle worker."""

BEHIND_KEY_PREFIX: Final = "modelyard:behind:"
"""Before the name of a lane of `requests`: a set of the queues to which its requests go on."""

JOIN_KEY_PREFIX: Final = "modelyard:join:"
"""Before the id of an ensemble's request: a hash of what is known of its members.

`need` and `members`: how many; `message`: what goes onto `queue` once they are joined; `anywhere`:
1 if that may be the queue of any member that ended; `needs_all`: 1 if nobody waits for the others
once one has failed; `last`: until when the first answer is waited
for, in milliseconds since the epoch; `round`: which spread of the request this is; `answered` and
`ended`: how many so far; `m1`, `m2`, ...: a `Member` as JSON; `released`: 1 once the message is on
its queue, after which this is kept for `ttl` seconds."""

JOINS_KEY: Final = "modelyard:joins"
"""A sorted set of the ids that wait for members, by until when, in milliseconds since the epoch."""

DECISIONS_KEY: Final = "modelyard:decisions"
"""The decision ledger: a stream whose entries have one field, `e`, as JSON."""

CANCELLED_KEY: Final = "modelyard:cancelled"
"""A sorted set of cancelled ids by when they may be forgotten, in seconds since the epoch:
when their outcomes are. What is left of a request may come across its id several times."""

DEAD_LETTERS_KEY: Final = "modelyard:dead_letters"
"""A hash from request id to `DeadLetter` as JSON."""

DEAD_LETTERS_BY_AGE_KEY: Final = "modelyard:dead_letters:by_age"
"""A sorted set of the ids in `DEAD_LETTERS_KEY` by when they died, in seconds since the epoch."""

COUNTERS_KEY: Final = "modelyard:counters"
"""A hash of counts since the store was made: `taken_over`, `duplicates`,
`dead_<reason>`, `replayed`, `dropped`."""

SESSION_KEY_PREFIX: Final = "modelyard:session:"
"""Before the length of a tenant's name, that name and a session, with colons between them: the
model to which that session was escalated."""

GUESS_KEY_PREFIX: Final = "modelyard:guess:"
"""Before a model's version, a colon and a hash of a text: what that model's classifier said of it,
as JSON."""

EXPERIMENTS_KEY: Final = "modelyard:experiments"
"""A hash from an experiment's name to its `Standing` as JSON; one that is not there is in force."""

WORKERS_KEY: Final = "modelyard:workers"
"""A hash from node name to the last heartbeat of a worker as JSON."""

ENDPOINTS_KEY_PREFIX: Final = "modelyard:endpoints:"
"""Before a model's name: a hash from an endpoint's label to why and until when it is left alone,
and from `@` and a worker process to how its endpoints do, both as JSON."""

QUOTA_KEY_PREFIX: Final = "modelyard:quota:"
"""Before the name of what has a limit: a hash of the arrival times of its requests and tokens, in
seconds since the epoch; with `:calls` after it one from worker process to its calls in flight."""

QUOTA_PROCESSES_KEY: Final = "modelyard:quota"
"""A sorted set of worker processes by when they last took quota, in seconds since the epoch."""

CACHED_KEY_PREFIX: Final = "modelyard:cached:"
"""Before a hash of a request and its model: the answer as JSON, or, while somebody has it made,
`lease:` and whose request that is."""

CACHED_PROMPTS_KEY_PREFIX: Final = "modelyard:cached_prompts:"
"""Before a hash of all of a request but its last words: a stream of the last answers that are kept,
`k` the hash of each, `v` the embedding of those words in 32-bit floats."""

SPENT_KEY_PREFIX: Final = "modelyard:spent:"
"""Before a day (UTC), such as 2026-11-23: a hash from a budget's label to what was spent on it that
day, in billionths of a US dollar."""

ONCE_HEADER: Final = "modelyard-once"
"""Message header: a mark, and for how many seconds a second message with it is not accepted."""

DELIVERIES_HEADER: Final = "modelyard-deliveries"
"""Message header: how many times a worker that had this message was lost."""

ROUTER_NODE: Final = "router"
"""Celery node name of a router worker, before the @."""


def in_lane(queue: str, *, batch: bool) -> str:
    """Return the name of `queue` in its batch or its interactive lane."""
    queue = queue.removeprefix(BATCH_PREFIX)
    return BATCH_PREFIX + queue if batch else queue


def model_queue(model: str, *, batch: bool = False) -> str:
    """Return the queue of the model that the catalog calls `model`."""
    return in_lane(MODEL_QUEUE_PREFIX + model, batch=batch)


def queue_model(queue: str) -> str | None:
    """Return the model whose queue this is, in either lane, or None if it is no model's queue."""
    queue = queue.removeprefix(BATCH_PREFIX)
    return queue.removeprefix(MODEL_QUEUE_PREFIX) if queue.startswith(MODEL_QUEUE_PREFIX) else None


def route_event_id(request_id: str) -> str:
    """Return the id under which the router's own hop appears in events.

    An event of the hop under the request's own id would end the request in Flower before
    the model was even called: there a task has one terminal state.
    """
    return f"{request_id}:route"


def member_id(request_id: str, number: int) -> str:
    """Return the id of an ensemble's member, or of a piece, by its number from 1."""
    return f"{request_id}:{number}"


def shadow_id(request_id: str) -> str:
    """Return the id of the call that only answers for the record."""
    return f"{request_id}:shadow"


def member_of(id: str, parent_id: str | None) -> tuple[str, int] | None:
    """Return of which request a message is the member with which number, or None if of none.

    The parent's id in the message tells it from a request that its producer called `job:7`.
    """
    request_id, _, number = id.rpartition(":")
    if not request_id or request_id != parent_id or not (number.isascii() and number.isdigit()):
        return None
    return request_id, int(number)


def is_shadow(id: str, parent_id: str | None) -> bool:
    """Return whether a message is that of a shadow."""
    return parent_id is not None and id == shadow_id(parent_id)


def session_key(tenant: str | None, session: str) -> str:
    """Return the key of a session; one tenant's sessions are not another's.

    Both may have colons in them: the length says where the tenant ends.
    """
    tenant = tenant or ""
    return f"{SESSION_KEY_PREFIX}{len(tenant)}:{tenant}:{session}"
