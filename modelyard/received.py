"""Reading what came as a task message, when it may have come from anyone."""

from typing import Any

from kombu.exceptions import ContentDisallowed, DecodeError

from modelyard.errors import InvalidRequest


def argument(message: Any) -> Any:
    """Return the one argument of a task message. Raises `InvalidRequest` if it can't be read."""
    try:
        args, kwargs, embed = message.payload
    except (DecodeError, ContentDisallowed, ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"its message can't be read: {str(error)[:300]}") from error
    if any((embed or {}).get(key) for key in ("callbacks", "errbacks", "chain", "chord")):
        raise InvalidRequest(
            "links, chains and chords do not follow a request through the yard: "
            "wait for its answer, and send the next task then"
        )
    if len(args) == 1 and not kwargs:
        return args[0]
    if not args and set(kwargs) == {"payload"}:
        return kwargs["payload"]
    raise InvalidRequest("its message must have one argument, the request")
