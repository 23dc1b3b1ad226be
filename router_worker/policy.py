"""Deciding: from a request, the catalog and what was learned to a plan, with the reasons."""

from collections.abc import Iterable
from functools import lru_cache

from modelyard.aliases import of_target
from modelyard.catalog import Catalog, UnknownName
from modelyard.errors import InvalidRequest
from modelyard.messages import Request
from modelyard.plan import AnswerCache, Arm, Combine, Decision, Pieces, Plan, Step, Strategy
from modelyard.routes import Route, Target
from router_worker.budgets import OverBudget, is_spent, of_request, over
from router_worker.candidates import (
    Choice,
    choose,
    exclusion,
    summary,
    without_limits,
    without_soft_limits,
)
from router_worker.division import Division, divide
from router_worker.experiments.arms import Variants, relevant, variants
from router_worker.features import Features, features
from router_worker.intent import Verdict, tell
from router_worker.knowledge import NOTHING, Knowledge
from router_worker.rules import View

PINNED = "pinned"
"""The intent of a request that names its models itself."""

INSTEAD = "Use a model with a larger window, or modelyard summarize for documents"


class Unroutable(InvalidRequest):
    """No model can take the request. The message names each candidate and why not."""


def decide(
    request: Request,
    catalog: Catalog,
    now: float,
    *,
    id: str = "",
    knowledge: Knowledge = NOTHING,
    escalated: str | None = None,
) -> Decision:
    """Return the decision for a request.

    `now` is in seconds since the epoch; `id` is what experiments go by for a request that is
    nobody's; `escalated` is the model that the request's session was escalated to. Raises
    `Unroutable` for an unknown route or model, and when no candidate is left, and `OverBudget`.
    """
    seen = features(request)
    if request.models:
        target = of_target(Target(models=request.models), catalog.aliases)
        verdict = Verdict(PINNED, target, "the request names its models")
        return decision(request, seen, verdict, target, None, catalog, now, knowledge, ())
    name, route = request.route, find(request.route, catalog)
    trial = None
    if route.experiments:
        trial = variants(route.experiments, request, id, now, knowledge.taken_back)
        if trial.route is not None:
            name, route = trial.route, find(trial.route, catalog)
    view = View(seen, request.metadata, now, escalated is not None)
    verdict = tell(name, route, view, knowledge)
    target = verdict.target
    arms: tuple[Arm, ...] = ()
    shadow = None
    if route.sticky and escalated in target.models:
        start = target.models.index(escalated)
        target = target.model_copy(update={"models": target.models[start:]})
    if trial is not None:
        target, arms, shadow = tried(target, trial)
    return decision(
        request, seen, verdict, target, route, catalog, now, knowledge, arms, shadow=shadow
    )


def find(name: str, catalog: Catalog) -> Route:
    """Return a route. Raises `Unroutable` if there is none of that name."""
    try:
        return catalog.route(name)
    except UnknownName as error:
        raise Unroutable(str(error)) from error


def tried(target: Target, trial: Variants) -> tuple[Target, tuple[Arm, ...], str | None]:
    """Return the target as experiments change it, the arms it is in, and a shadow."""
    trial = relevant(trial, target.models)
    shadow = next((trial.shadow[name] for name in target.models if name in trial.shadow), None)
    if trial.replace:
        # The model that was replaced stays behind the new one, to fail over to.
        models = [
            each
            for name in target.models
            for each in ((trial.replace[name], name) if name in trial.replace else (name,))
        ]
        if target.strategy is Strategy.ENSEMBLE:
            models = [trial.replace.get(name, name) for name in target.models]
        target = target.model_copy(update={"models": tuple(dict.fromkeys(models))})
    return target, trial.arms, shadow


def decision(
    request: Request,
    seen: Features,
    verdict: Verdict,
    target: Target,
    route: Route | None,
    catalog: Catalog,
    now: float,
    knowledge: Knowledge,
    arms: tuple[Arm, ...],
    *,
    shadow: str | None = None,
) -> Decision:
    """Return the decision for a verdict.

    Raises `Unroutable` when no candidate is left, and `OverBudget`.
    """
    why = verdict.because
    budgets = of_request(request, catalog)
    spent = over(budgets, knowledge.spent_usd) if budgets else None
    if spent is not None:
        if spent.over == "stop":
            raise OverBudget(is_spent(spent))
        why += f"; {is_spent(spent)}: its models for that"
        target = Target(models=spent.downgrade_to, after=target.after)
        arms, shadow = (), None
    # A request that names its models belongs to a route all the same.
    own = route or catalog.routes.get(request.route)
    choice = choose(target, request, seen, verdict.intent, catalog, route, knowledge)
    places = [(target, request)]
    may_ease = not choice.models and spent is None
    if may_ease and route is not None and route.if_none == "otherwise":
        why += f"; none keeps to the limits ({summary(choice.excluded)}): the safe choice"
        target = without_limits(route.otherwise)
        safe = without_soft_limits(request)
        choice = choose(target, safe, seen, verdict.intent, catalog, route, knowledge)
        places.append((target, safe))
    pieces = None
    if not choice.models:
        divided = Division()
        for place, asked in places:
            if own is not None and own.too_long_of(place) == "map_reduce" and not divided.models:
                target = place
                divided = divide(place, asked, seen, verdict.intent, catalog, route, knowledge)
        pieces = divided.pieces
        if pieces is None:
            because = f"; {is_spent(spent)}" if spent is not None else ""
            because += f"; in pieces: {divided.why}. {INSTEAD}" if divided.why else ""
            raise Unroutable(f"no model can take it ({summary(choice.excluded)}){because}")
        why += f"; too long for its models: in {pieces.count} pieces"
        choice = Choice(divided.models, choice.excluded, divided.estimates)
    # A shadow sees the whole request, too.
    if shadow is not None and exclusion(catalog.model(shadow), request, seen) is not None:
        shadow = None
    cache = own.cache_of(target) if own is not None else None
    planned = plan(choice, target, catalog, shadow, cache, pieces)
    after = own.after_of(target) if own is not None else ()
    if after and planned.strategy is not Strategy.HANDOFF:
        planned = planned.model_copy(update={"after": after})
    return Decision(
        route=request.route,
        intent=verdict.intent,
        why=why,
        rule=verdict.rule,
        confidence=None if verdict.confidence is None else round(verdict.confidence, 4),
        input_tokens=seen.input_tokens,
        output_tokens=seen.output_tokens,
        complexity=seen.complexity,
        excluded=choice.excluded,
        estimates=choice.estimates,
        arms=arms,
        budgets=tuple(budget.label for budget in budgets),
        decided_at=now,
        plan=planned,
    )


def plan(
    choice: Choice,
    target: Target,
    catalog: Catalog,
    shadow: str | None,
    cache: AnswerCache | None = None,
    pieces: Pieces | None = None,
) -> Plan:
    """Return what the workers execute. One model alone is no cascade and no ensemble, and what goes
    in `pieces` is neither.
    """
    if pieces is not None:
        strategy = Strategy.MAP_REDUCE
        return Plan(strategy=strategy, steps=steps_of(choice.models), pieces=pieces, cache=cache)
    if catalog.model(choice.models[0]).is_people:
        return Plan(strategy=Strategy.HANDOFF, steps=steps_of(choice.models))
    if len(choice.models) == 1 or target.strategy is Strategy.SINGLE:
        return single(choice.models, shadow, cache)
    steps = steps_of(choice.models)
    if target.strategy is Strategy.CASCADE:
        return Plan(
            strategy=Strategy.CASCADE,
            steps=steps,
            accept=target.accept,
            shadow=shadow,
            cache=cache,
        )
    combine = target.combine or Combine()
    if combine.quorum is not None and combine.quorum > len(steps):
        combine = combine.model_copy(update={"quorum": len(steps)})
    return Plan(strategy=Strategy.ENSEMBLE, steps=steps, combine=combine, cache=cache)


@lru_cache(maxsize=1024)
def single(models: tuple[str, ...], shadow: str | None, cache: AnswerCache | None = None) -> Plan:
    """Return the plan of most requests. Few are different, and they can't be changed."""
    return Plan(steps=steps_of(models), shadow=shadow, cache=cache)


def steps_of(models: Iterable[str]) -> tuple[Step, ...]:
    """Return a step for each model."""
    return tuple(Step(model=name) for name in models)
