"""One model at OpenAI and as two deployments of Azure's, behind a real worker.

Each fake takes calls in its own dialect only: OpenAI's with a bearer token and the name gpt-4o,
Azure's with an api-key, a dated version and the deployment in the path.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from waiting import eventually
from workers import KEY, Workers, workers

from modelyard import Answer, Client
from modelyard.embedded_redis import EmbeddedRedis
from modelyard.testing import FakeProvider

CATALOG = """
models:
  - name: gpt
    provider: azure
    model: gpt-eu
    endpoints:
      - {name: eu, base_url: "${AZURE_URL}", api_key: "${FAKE_KEY}", api_version: 2024-10-21}
      - {name: us, base_url: "${AZURE_URL}", api_key: "${FAKE_KEY}", api_version: 2024-10-21,
         model: gpt-us}
      - {name: openai, base_url: "${OPENAI_URL}", api_key: "${FAKE_KEY}",
         provider: openai, model: gpt-4o}
    concurrency: 10
    retry: {calls: 4, base_s: 0.01, cap_s: 0.05}
    breaker: {failures: 2, cooldown_s: 0.2, longest_s: 0.5}
routes:
  default: {otherwise: [gpt]}
"""
NAMES = {"eu": "gpt-eu", "us": "gpt-us", "openai": "gpt-4o"}


@dataclass
class Yard:
    """A worker, a client, and the two providers of its model."""

    workers: Workers
    client: Client
    azure: FakeProvider
    openai: FakeProvider

    def answers(self, count: int) -> list[Answer]:
        handles = self.client.submit_many([f"question {number}" for number in range(count)])
        return [handle.result(60) for handle in handles]


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("mixed")
    with ExitStack() as stack:
        store = stack.enter_context(EmbeddedRedis(folder / "state"))
        azure = stack.enter_context(FakeProvider(api_key=KEY, models=["gpt-eu", "gpt-us"]))
        openai = stack.enter_context(FakeProvider(api_key=KEY, models=["gpt-4o"]))
        env = {"AZURE_URL": azure.azure_url, "OPENAI_URL": openai.base_url}
        some = stack.enter_context(workers(folder, store.url, catalog=CATALOG, env=env))
        some.start_router()
        some.start_pool("gpt")
        yield Yard(some, stack.enter_context(some.client()), azure, openai)


def taken(answers: list[Answer]) -> set[str]:
    """The endpoints that answered, each by the name that the model has there."""
    for answer in answers:
        assert answer.model == "gpt"
        assert answer.provider_model == NAMES[str(answer.attempts[-1].endpoint)]
    return {str(answer.attempts[-1].endpoint) for answer in answers}


def test_calls_go_to_all_of_them_each_in_its_own_dialect(yard: Yard) -> None:
    answers = yard.answers(80)

    assert taken(answers) == {"eu", "us", "openai"}
    assert {len(answer.attempts) for answer in answers} == {1}
    assert {(call.model, call.status) for call in yard.azure.calls} == {
        ("gpt-eu", 200),
        ("gpt-us", 200),
    }
    assert {(call.model, call.status) for call in yard.openai.calls} == {("gpt-4o", 200)}


@pytest.mark.parametrize(
    ("down", "left"), [("azure", {"openai"}), ("openai", {"eu", "us"})], ids=["azure", "openai"]
)
def test_one_provider_takes_over_when_the_other_dies_and_gives_back(
    yard: Yard, down: str, left: set[str]
) -> None:
    fake: FakeProvider = getattr(yard, down)
    fake.stop()
    try:
        answers = yard.answers(40)
    finally:
        fake.start()

    assert taken(answers) == left
    failed = [each for answer in answers for each in answer.attempts if each.kind is not None]
    assert failed and {str(each.endpoint) for each in failed}.isdisjoint(left)
    eventually(lambda: taken(yard.answers(40)) == set(NAMES), message=f"{down} is called again")
