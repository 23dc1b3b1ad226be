"""A request on which the router itself fails: it is kept whole, and its client hears of it."""

import json
import math

import pytest
from pydantic import ValidationError

from modelyard.catalog import Catalog, Model
from modelyard.claims import End
from modelyard.errors import InvalidRequest
from modelyard.messages import Request
from modelyard.names import REPLY_CHANNEL_PREFIX
from modelyard.routes import Route
from modelyard.submission import prepare
from router_worker import batch
from router_worker.expiry import expiry

CATALOG = Catalog(
    models=(Model(name="small", provider="extractive"),),
    routes={"default": Route(otherwise=("small",))},
)
REPLY_TO = f"{REPLY_CHANNEL_PREFIX}somebody"


def route(payload: object) -> End:
    end, words = batch.route(
        "claim",
        "id",
        payload,
        catalog=CATALOG,
        result_ttl_s=60,
        reply_to=REPLY_TO,
        expires=None,
        redelivered=False,
        now=1000.0,
    )
    assert words == "dead letter: invalid"
    assert isinstance(end, End)
    return end


@pytest.mark.parametrize("where", ["forward", "summary", "is_spread", "envelope"])
def test_it_is_kept_whole_and_told_wherever_the_router_fails(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fails(*args: object, **options: object) -> object:
        raise OverflowError("private")

    monkeypatch.setattr(batch, where, fails)

    end = route({"text": "my precious prompt"})

    letter = json.loads(end.letter)
    assert letter["request"] == {"text": "my precious prompt"}
    assert letter["message"] == "the router failed on it: OverflowError"
    assert (end.channel, letter["reply_to"]) == (REPLY_TO, REPLY_TO)


@pytest.mark.parametrize("deadline", [math.inf, -math.inf, math.nan])
def test_a_deadline_is_a_moment(deadline: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Request.of("hello", deadline=deadline)
    with pytest.raises(InvalidRequest, match="finite"):
        prepare("hello", {"deadline": deadline}, now=0.0, deadline_s=None)
    with pytest.raises(InvalidRequest, match="positive, finite"):
        prepare("hello", {}, now=0.0, deadline_s=deadline)
    assert json.loads(route({"text": "hello", "deadline": deadline}).letter)["request"]["text"]


@pytest.mark.parametrize("expires", [12, 1.5, [1], {}, True, "soon", None])
def test_what_is_no_time_is_no_expiry(expires: object) -> None:
    assert expiry(expires) is None
