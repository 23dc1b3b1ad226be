"""Under which key an answer is kept, and whether it is. Pure functions.

A key is a hash of all that an answer depends on: whose request it is, the model, the messages and
parameters as they are sent, and what the plan demands of an answer and does to it. So an answer
that is found was accepted, and is not judged again. The plan's `ttl_s` belongs to it too: nobody
gets an answer that is older than their own route allows.
"""

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from pydantic import ValidationError

from model_workers.cascade import Knows, flaw, following
from modelyard.catalog import Model
from modelyard.claims import Hop
from modelyard.messages import Cached, Call, Draft, Message, Part, Request, Usage
from modelyard.names import queue_model
from modelyard.plan import Accept, AnswerCache, Strategy
from modelyard.wire import Wire

VERSION: Final = 1
"""Raised when what is kept, or what a key is made of, changes its meaning."""

LARGEST_CHARS: Final = 256 * 1024
"""A longer answer is not kept: the queues live in the same Redis."""

UNFINISHED: Final = frozenset({"length", "content_filter"})
"""How an answer ends that may end better another time."""

_NUMBER: Final = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Likeness:
    """By what a prompt is compared with those of its `group`, in which all but words is the same.

    `words` are those that are embedded, by `embeddings`; `floor` is the least cosine.
    """

    group: str
    words: str
    floor: float
    embeddings: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Where the answer to a request is kept, and for how long."""

    key: str
    ttl_s: int
    likeness: Likeness | None = None


class Kept(Wire):
    """An answer that is kept, and the request that it was given to."""

    of: str
    draft: Draft


def entry_of(call: Call, request: Request, model: Model) -> Entry | None:
    """Return where the answer of `call` is kept; None where none is.

    `request` is what is sent to `model`, the one that answers.
    """
    cache = call.decision.plan.cache
    if cache is None or cache.ttl_s == 0 or request.no_store:
        return None
    if call.part in {Part.SHADOW, Part.COMBINE}:
        return None
    demands: list[Any] | None = None
    if not call.part.is_apart:
        checked = checked_by(call)
        steps = [step.model_dump(mode="json") for step in call.decision.plan.after]
        demands = [checked.model_dump(mode="json") if checked else None, steps]
        if call.part is Part.REDUCE:
            demands.append("reduced")  # what was read whole may be another answer
    same = [
        VERSION,
        cache.ttl_s,
        request.metadata.get("tenant"),
        model.name,
        model.provider,
        model.provider_model,
        request.params,
        demands,
    ]
    messages = [message.encode() for message in request.messages]
    # Two documents that differ in a few words have nearly the same embedding, whatever they say.
    in_pieces = call.part in {Part.MAP, Part.REDUCE}
    likeness = None if in_pieces else likeness_of(cache, request.messages, same)
    return Entry(digest([*same, messages]), cache.ttl_s, likeness)


def likeness_of(
    cache: AnswerCache, messages: tuple[Message, ...], same: list[Any]
) -> Likeness | None:
    """Return by what the prompt may be compared with others, if at all.

    Only the words of the last message may differ, and no number in them: embeddings of two long
    conversations, or of two invoices, are nearly the same whatever is asked about them.
    """
    *before, last = messages
    if cache.similar is None or cache.embeddings is None:
        return None
    if last.role != "user" or last.images or not last.text.strip():
        return None
    fixed = [
        *same,
        [message.encode() for message in before],
        last.name,
        _NUMBER.findall(last.text),
        cache.embeddings,
    ]
    return Likeness(digest(fixed), last.text, cache.similar, cache.embeddings)


def digest(of: list[Any]) -> str:
    """Return the hash of JSON values, in which the order of keys tells nothing."""
    text = json.dumps(of, sort_keys=True, separators=(",", ":"))
    return sha256(text.encode()).hexdigest()


def checked_by(call: Call) -> Accept | None:
    """Return what an answer of this step is accepted by; the last model's stands unchecked."""
    plan = call.decision.plan
    if plan.strategy is not Strategy.CASCADE or call.step + 1 >= len(plan.steps):
        return None
    return plan.accept


def is_kept(call: Call, draft: Draft, knows: Knows, now: float) -> bool:
    """Return whether the answer that stands for `call` is kept. `now` is in seconds since the
    epoch.

    `call.drafts` may have it too: what was turned down before, and stands as nothing better came,
    has a verdict.
    """
    plan = call.decision.plan
    if plan.cache is None or draft.model != plan.steps[call.step].model:
        return False
    if draft.verdict or draft.unfit or draft.finish_reason in UNFINISHED:
        return False
    if len(draft.text) > LARGEST_CHARS:
        return False
    if call.part.is_apart or plan.accept is None:
        return True
    if checked_by(call) is None:
        return not flaw(plan.accept, draft)
    # Without a next model, or the time for one, it stands whatever it is.
    return following(call, knows, now) is not None


def is_on_its_way(call: Call, settlement: object) -> bool:
    """Return whether an answer goes to its judge now: it is made, and may yet be kept."""
    accept = call.decision.plan.accept
    if call.part is not Part.ANSWER or accept is None or not isinstance(settlement, Hop):
        return False
    return accept.judge is not None and queue_model(settlement.queue) == accept.judge


def encode(id: str, draft: Draft) -> str:
    """Return what is kept of an answer to request `id`, as JSON."""
    return Kept(of=id, draft=draft).model_dump_json(exclude_defaults=True)


def decode(text: bytes | str) -> Kept | None:
    """Return what is kept, or None for what no worker of this version wrote."""
    try:
        return Kept.model_validate_json(text)
    except ValidationError:
        return None


def as_hit(kept: Kept, similarity: float | None = None) -> Draft:
    """Return the answer for another request: it cost nothing, and says what it saved."""
    draft = kept.draft
    cached = Cached(
        of=kept.of,
        usage=draft.usage,
        saved_usd=draft.cost_usd,
        similarity=None if similarity is None else round(similarity, 4),
    )
    # A grade is the judge's of one answer: told again, it would count as another one.
    changed = {"usage": Usage(), "cost_usd": 0.0, "score": None, "cached": cached}
    return draft.model_copy(update=changed)
