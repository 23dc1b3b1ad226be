"""What an answer or a 429 teaches of the limits of an endpoint."""

from dataclasses import replace
from typing import Final

from model_workers.endpoints.desk import Post
from model_workers.endpoints.learned import LONGEST_CUT_S, runs_short, slowed, told
from model_workers.providers.base import Allowance
from modelyard import circuit as circuits
from modelyard.circuit import Reason
from modelyard.errors import FailureKind, ProviderError

ONE_OFF: Final = 2.0
"""So many 429s in a minute, or fewer, say nothing of a pace: a busy server has bad moments, and
where there is little to do the pace of the last minute would be far too low.
"""


def hear(post: Post, said: Allowance | None, took: int, now: float) -> None:
    """Take in what an endpoint's answer says of its limits, and leave it alone if nothing is left
    of one of them. The call took so many tokens.
    """
    if said is None:
        return
    if said.limit_tokens is not None and took > said.limit_tokens:
        # It counts in thousands, or something else: by this number no call like it would go.
        said = replace(said, limit_tokens=None, remaining_tokens=None, reset_tokens_s=None)
    post.said, post.said_at = said, now
    post.learned = told(post.learned, said, now)
    if runs_short(post.learned, said):
        slow_down(post, now)
    resets = [
        reset
        for left, reset in (
            (said.remaining_requests, said.reset_requests_s),
            (said.remaining_tokens, said.reset_tokens_s),
        )
        if left is not None and left < 1 and reset
    ]
    if resets:
        wait_s = min(max(resets), circuits.LONGEST_LIMITED_S)
        post.circuit = circuits.opened(post.circuit, Reason.LIMITED, wait_s, now)


def refused(post: Post, error: ProviderError, now: float) -> None:
    """Take in that a call was one too many. Other errors teach nothing of limits."""
    if error.kind is not FailureKind.LIMITED:
        return
    often = post.refused(now) > ONE_OFF
    if often and (error.retry_after_s is None or error.retry_after_s <= LONGEST_CUT_S):
        slow_down(post, now)


def slow_down(post: Post, now: float) -> None:
    """Have all workers call it less often."""
    post.learned = slowed(post.learned, *post.passed(now), now)
