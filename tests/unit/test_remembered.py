"""What a router's pool is told of a request's session, and what it does where nobody tells."""

import redis

from modelyard.names import session_key
from router_worker.task import remembered


def in_session(session: str) -> dict[str, object]:
    return {"text": "x", "metadata": {"session": session, "tenant": "t"}}


def test_a_session_is_where_it_was_escalated_to(store: redis.Redis) -> None:
    store.set(session_key("t", "s"), "large")

    assert remembered(in_session("s"), store) == "large"
    assert remembered(in_session("other"), store) is None
    assert remembered(["no request"], store) is None
    assert remembered(in_session("\ud800"), store) is None


def test_what_can_t_be_known_holds_nothing_up(store: redis.Redis) -> None:
    store.hset(session_key("t", "s"), "no", "text")
    assert remembered(in_session("s"), store) is None
    with redis.Redis(port=1) as nobody:
        assert remembered(in_session("s"), nobody) is None
