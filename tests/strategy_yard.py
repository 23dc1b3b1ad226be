"""A catalog with routes of every strategy, and a yard that has it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workers import Workers, workers

from modelyard.embedded_redis import EmbeddedRedis
from producer.commands import model_command

MODELS = ("small", "medium", "large", "judge")

_MODEL = """
  - name: {name}
    provider: openai
    endpoints: [{{base_url: "${{FAKE_URL}}", api_key: "${{FAKE_KEY}}"}}]
    price: {{input_usd_per_mtok: {usd}, output_usd_per_mtok: {usd}}}
    context_tokens: 100000
    concurrency: 20
    timeout_s: 30
    retry: {{calls: 2, base_s: 0.01, cap_s: 0.05, patience_s: 2}}
    breaker: {{failures: 1000, cooldown_s: 0.01, longest_s: 0.02, denied_s: 0.01}}
"""

_ROUTES = """
routes:
  default: {otherwise: [small, large]}
  expression: {otherwise: {models: [small, large], strategy: cascade,
    accept: {expression: 'contains(text, "fine")'}}}
  schema: {otherwise: {models: [small, large], strategy: cascade,
    accept: {json_schema: {type: object, required: [total]}}}}
  sure: {otherwise: {models: [small, large], strategy: cascade, accept: {min_confidence: 0.8}}}
  agreed: {otherwise: {models: [small, large], strategy: cascade,
    accept: {agreement: 0.6, samples: 3}}}
  judged: {otherwise: {models: [small, large], strategy: cascade,
    accept: {judge: judge, judge_floor: 0.7}}}
  three: {sticky: true, otherwise: {models: [small, medium, large], strategy: cascade,
    accept: {judge: judge, judge_floor: 0.7}}}
  vote: {otherwise: {models: [small, medium, large], strategy: ensemble}}
  best: {otherwise: {models: [small, medium, large], strategy: ensemble,
    combine: {how: best, judge: judge}}}
  all: {otherwise: {models: [small, medium, large], strategy: ensemble,
    combine: {how: concatenate}}}
  function: {otherwise: {models: [small, medium, large], strategy: ensemble,
    combine: {how: entry_point, function: "strategy_yard:shortest"}}}
  hanging: {otherwise: {models: [small, large], strategy: ensemble,
    combine: {how: entry_point, function: "hanging_combine:hang"}}}
  quorum: {otherwise: {models: [small, medium, large], strategy: ensemble,
    combine: {how: concatenate, quorum: 2}}}
  impatient: {otherwise: {models: [small, medium, large], strategy: ensemble,
    combine: {how: concatenate, deadline_s: 1}}}
  shadowed: {otherwise: [small], experiments: [
    {name: try-large, kind: shadow, of: small, to: large, percent: 100}]}
"""

CATALOG = (
    "models:"
    + "".join(_MODEL.format(name=name, usd=usd) for name, usd in zip(MODELS, (1, 2, 4, 8)))  # noqa: B905
    + _ROUTES
)


def shortest(drafts: "tuple[object, ...]") -> str:
    """Combine as the route `function` does."""
    return min((str(getattr(draft, "text", "")) for draft in drafts), key=len)


@contextmanager
def empty_yard(folder: Path, *, lease_s: float) -> Iterator[Workers]:
    """Give a yard with a broker and a provider, and no worker."""
    env = {"MODELYARD_LEASE_S": str(lease_s)}
    with (
        EmbeddedRedis(folder / "state") as server,
        workers(folder, server.url, catalog=CATALOG, env=env) as yard,
    ):
        yield yard


@contextmanager
def strategy_yard(folder: Path) -> Iterator[Workers]:
    """Give a yard with a router and one worker of all models. Late ensembles are seen soon."""
    with empty_yard(folder, lease_s=0.9) as yard:
        yard.start_router()
        yard.start("pool", model_command(*MODELS))
        yield yard
