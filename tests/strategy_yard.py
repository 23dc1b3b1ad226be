"""A catalog with routes of every strategy, and a yard that has it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from fake_models import fake_model, fake_models
from workers import Workers, own_yard

from producer.commands import model_command

MODELS = ("small", "medium", "large", "judge")

ROUTES = """
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

# Each is twice as dear as the one before it.
_MODELS = fake_models(
    *(fake_model(name, usd=2**at, timeout_s=30) for at, name in enumerate(MODELS))
)


def shortest(drafts: "tuple[object, ...]") -> str:
    """Combine as the route `function` does."""
    return min((str(getattr(draft, "text", "")) for draft in drafts), key=len)


@contextmanager
def empty_yard(
    folder: Path, *, lease_s: float, routes: str = ROUTES, env: Mapping[str, str] | None = None
) -> Iterator[Workers]:
    """Give a yard with a broker and a provider, and no worker."""
    env = {"MODELYARD_LEASE_S": str(lease_s), **(env or {})}
    with own_yard(folder, catalog=_MODELS + routes, env=env) as yard:
        yield yard


@contextmanager
def strategy_yard(
    folder: Path, *, routes: str = ROUTES, env: Mapping[str, str] | None = None
) -> Iterator[Workers]:
    """Give a yard with a router and one worker of all models. Late ensembles are seen soon."""
    with empty_yard(folder, lease_s=0.9, routes=routes, env=env) as yard:
        yard.start_router()
        yard.start("pool", model_command(*MODELS))
        yield yard
