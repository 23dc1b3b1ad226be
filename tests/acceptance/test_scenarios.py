"""The scenarios in `examples/scenarios`: each of them runs, and says how often it is right.

Their requests were written by who wrote their rules: the share that is right shows that a catalog
does what it says, and is no measure of routing. Those are in `docs/routing.md`.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from waiting import eventually
from workers import KEY, workers

from modelyard.catalog_file import load_catalog
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.inbox import Inbox
from modelyard.plan import Strategy
from modelyard.settings import Settings
from modelyard.testing import Reply
from producer.commands import model_command

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "scenarios"
SCENARIOS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ADDRESSES = ("https://api.openai.com/v1", "${ORDERS_URL}", "${LLAMA_URL}", "${CODER_URL}")
RIGHT = 0.9

STRATEGIES = {
    "customer-support": {Strategy.CASCADE, Strategy.SINGLE, Strategy.HANDOFF},
    "content-platform": {Strategy.SINGLE, Strategy.ENSEMBLE},
    "data-analysis": {Strategy.SINGLE, Strategy.CASCADE},
    "e-commerce-chatbot": {Strategy.SINGLE},
    "educational-assistant": {Strategy.SINGLE, Strategy.CASCADE, Strategy.HANDOFF},
}


def test_there_are_five_of_them() -> None:
    assert set(SCENARIOS) == set(STRATEGIES)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario_runs_and_is_right(
    scenario: str,
    redis_server: EmbeddedRedis,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [json.loads(line) for line in (FOLDER / f"{scenario}.jsonl").read_text().splitlines()]
    assert len(rows) >= 30
    text = (FOLDER / f"{scenario}.yaml").read_text().replace("${OPENAI_API_KEY}", "${FAKE_KEY}")
    for address in ADDRESSES:
        text = text.replace(address, "${FAKE_URL}")
    # The provider behind the other addresses asks for its key, too.
    text = text.replace('[{base_url: "${FAKE_URL}"}]', '[{base_url: "${FAKE_URL}", api_key: "${FAKE_KEY}"}]')  # fmt: skip  # noqa: E501
    with redis.Redis.from_url(redis_server.url) as store:
        store.flushall()
    with workers(tmp_path, redis_server.url, catalog=text) as yard, yard.client() as client:
        catalog = load_catalog(tmp_path / "catalog.yaml", {"FAKE_URL": "http://x", "FAKE_KEY": KEY})
        yard.fake.always("*", Reply(text='{"mark": "bar", "encoding": {}}', usage=None))
        yard.start_router()
        live = [model.name for model in catalog.live_models]
        yard.start("pools", model_command(*live))
        people = [model.name for model in catalog.models if model.is_people]
        handles = [client.submit(row["text"], metadata=row.get("metadata", {})) for row in rows]
        decisions: dict[str, Any] = {}

        def all_decided() -> bool:
            for handle in handles:
                if handle.id not in decisions and handle.done():
                    decisions[handle.id] = handle.result(5).decision
            for id, decision in waiting().items():
                decisions.setdefault(id, decision)
            return len(decisions) == len(handles)

        def waiting() -> dict[str, Any]:
            with redis.Redis.from_url(redis_server.url) as store:
                inbox = Inbox(store, people, Settings())
                items = inbox.waiting(100)
                return {item.id: item.call.decision for item in items if item.call}

        eventually(
            all_decided, timeout_s=90, message="every request is answered or waits for people"
        )

    wrong = [
        f"{row['text'][:60]!r}: {decisions[handle.id].intent}, not {row['intent']}"
        for row, handle in zip(rows, handles, strict=True)
        if decisions[handle.id].intent != row["intent"]
    ]
    right = 1 - len(wrong) / len(rows)
    with capsys.disabled():
        print(f"\n{scenario}: {right:.1%} of {len(rows)} requests")
        for line in wrong:
            print(f"  {line}")
    assert right >= RIGHT
    assert {each.plan.strategy for each in decisions.values()} == STRATEGIES[scenario]
