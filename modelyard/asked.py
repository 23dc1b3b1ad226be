"""What is asked in a request: the part of a conversation that tells where it should go."""

from collections.abc import Sequence
from itertools import accumulate, takewhile
from typing import Final

from modelyard.messages import Message

ROOM_CHARS: Final = 2_500
"""So much of a request is read to route it."""


def asked(messages: Sequence[Message]) -> str:
    """Return what the user says: the last turn and those before it that fit in the room, in order.

    System prompts and the model's own turns ask nothing. Where no turn is a user's, it is all that
    is said. The last turn is there as a whole, however long it is.
    """
    if len(messages) == 1:
        return messages[0].text
    turns = [message.text for message in reversed(messages) if message.role == "user"]
    if not turns:
        return "\n".join(message.text for message in messages)
    ends = accumulate(len(turn) + 1 for turn in turns)
    fitting = sum(1 for _ in takewhile(lambda end: end <= ROOM_CHARS, ends))
    return "\n".join(reversed(turns[: max(1, fitting)]))
