"""A judge whose key is not set, through real processes: nothing waits for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from fake_models import fake_model, fake_models
from workers import Workers, own_yard

from modelyard import Client, RequestFailed
from modelyard.names import model_queue
from modelyard.testing import Reply
from producer.commands import model_command

OFF = [{"base_url": "${FAKE_URL}", "api_key": "${NO_SUCH_KEY}"}]
JUDGED = "models: [small, large], strategy: cascade, accept: {judge: judge}"
BEST = "models: [small, large], strategy: ensemble, combine: {how: best, judge: judge}"
RULE = "rules: [{when: {keywords: [hello]}, intent: greeting, " + JUDGED + "}]"
CATALOG = (
    fake_models(fake_model("small"), fake_model("large"), fake_model("judge", endpoints=OFF))
    + f"""
routes:
  default: {{otherwise: [small]}}
  cascade: {{otherwise: {{{JUDGED}}}}}
  ensemble: {{otherwise: {{{BEST}}}}}
  eased: {{{RULE}, otherwise: [large], if_none: otherwise}}
"""
)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Workers]:
    with own_yard(tmp_path, catalog=CATALOG) as yard:
        yard.start_router()
        yard.start("pool", model_command("small", "large"))
        yield yard


def test_what_a_judge_that_is_off_would_judge_ends_at_once_and_says_why(
    yard: Workers, client: Client
) -> None:
    for model in ("small", "large"):
        yard.fake.always(model, Reply(text=f"{model} answers"))

    for route in ("cascade", "ensemble"):
        with pytest.raises(RequestFailed, match="its judge 'judge' is off: NO_SUCH_KEY is not set"):
            client.submit("hello", route=route).result(30)
    assert not yard.fake.calls
    assert client.submit("hello", route="eased").result(30).text == "large answers"

    with redis.Redis.from_url(yard.broker_url) as store:
        assert store.llen(model_queue("judge")) == 0
