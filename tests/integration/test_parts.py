"""Whether anybody waits for a member that a worker is about to call."""

from types import SimpleNamespace
from typing import Any

import pytest
import redis

from model_workers.joining import unwanted
from model_workers.origin import Origin
from modelyard.claims import settle
from modelyard.endings import cancelled
from modelyard.member import round_of
from modelyard.messages import Call, Part, Request
from modelyard.names import JOIN_KEY_PREFIX
from modelyard.plan import Decision, Plan, Step, Strategy

DECISION = Decision(
    route="all",
    intent="other",
    why="a test",
    input_tokens=1,
    decided_at=1_700_000_000.25,
    plan=Plan(strategy=Strategy.ENSEMBLE, steps=(Step(model="small"), Step(model="large"))),
)
CALL = Call(request=Request.of("hello"), decision=DECISION, part=Part.MEMBER, origin="job")
MEMBER = Origin("job:1", "claim", "", "job")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, False),
        ({"round": round_of(DECISION), "m2": "{}"}, False),
        ({"round": round_of(DECISION), "m1": "{}"}, True),
        ({"round": round_of(DECISION), "released": "1"}, True),
        ({"round": "1.5"}, True),
    ],
)
def test_a_member_is_called_while_somebody_waits_for_it(
    store: redis.Redis, fields: dict[str, str], said: bool
) -> None:
    app: Any = SimpleNamespace(backend=SimpleNamespace(client=store))
    assert unwanted(app, MEMBER, CALL), "it is gone"
    for name, value in {"need": "2", **fields}.items():
        store.hset(JOIN_KEY_PREFIX + "job", name, value)
    assert unwanted(app, MEMBER, CALL) is said
    settle(store, [cancelled("job", claim="", ttl_s=60, channel="", now=0.0)])
    assert unwanted(app, MEMBER, CALL)
    assert not store.exists(JOIN_KEY_PREFIX + "job")


@pytest.mark.parametrize(
    ("id", "parent_id", "said"),
    [
        ("job:1", "job", True),
        ("job:shadow", "job", True),
        ("job:1", "job:1:route", False),
        ("job", None, False),
    ],
)
def test_a_part_has_no_outcome_of_its_own(id: str, parent_id: str | None, said: bool) -> None:
    assert Origin(id, "claim", "", parent_id).is_part is said
