"""Deciding: from a request, the catalog and what was learned to a plan, with the reasons."""

from collections.abc import Callable, Iterable
from functools import lru_cache, partial

from modelyard.aliases import of_target
from modelyard.catalog import Catalog, UnknownName
from modelyard.errors import InvalidRequest
from modelyard.messages import Request
from modelyard.plan import AnswerCache, Combine, Decision, Pieces, Plan, Step, Strategy
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
from router_worker.experiments.arms import NONE, Variants, variants
from router_worker.experiments.treatment import (
    MaySee,
    Tried,
    Weigh,
    left_in_pieces,
    treated,
    tried,
    tried_in_pieces,
)
from router_worker.features import Features, features
from router_worker.intent import Verdict, tell
from router_worker.knowledge import NOTHING, Knowledge
from router_worker.rules import View

PINNED = "pinned"
"""The intent of a request that names its models itself."""

DEFAULT_ROUTE = "default"
"""The route of a request that names none; with models of its own it needs none."""

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
        if request.route != DEFAULT_ROUTE:
            find(request.route, catalog)
        target = of_target(Target(models=request.models), catalog.aliases)
        verdict = Verdict(PINNED, target, "the request names its models")
        return decision(request, seen, verdict, target, None, catalog, now, knowledge)
    name, route = request.route, find(request.route, catalog)
    trial = NONE
    if route.experiments:
        trial = variants(route.experiments, request, id, now, knowledge.taken_back)
        if trial.route is not None:
            name, route = trial.route, find(trial.route, catalog)
    view = View(seen, request.metadata, now, escalated is not None)
    verdict = tell(name, route, view, knowledge)
    target = verdict.target
    start = reached(target, escalated, trial) if route.sticky else 0
    if start:
        target = target.model_copy(update={"models": target.models[start:]})
    return decision(request, seen, verdict, target, route, catalog, now, knowledge, trial)


def reached(target: Target, escalated: str | None, trial: Variants) -> int:
    """Return the position of the model that a session was escalated to, or of the one in whose
    place that is called; 0 if it is neither.
    """
    if escalated in target.models:
        return target.models.index(escalated)
    places = (at for at, name in enumerate(target.models) if trial.replace.get(name) == escalated)
    return 0 if escalated is None else next(places, 0)


def find(name: str, catalog: Catalog) -> Route:
    """Return a route. Raises `Unroutable` if there is none of that name."""
    try:
        return catalog.route(name)
    except UnknownName as error:
        raise Unroutable(str(error)) from error


def decision(
    request: Request,
    seen: Features,
    verdict: Verdict,
    target: Target,
    route: Route | None,
    catalog: Catalog,
    now: float,
    knowledge: Knowledge,
    trial: Variants = NONE,
) -> Decision:
    """Return the decision for a verdict, as experiments change it.

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
        trial = NONE
    # A request that names its models belongs to a route all the same.
    own = route or catalog.routes.get(request.route)
    asked = request

    def weigh(models: tuple[str, ...]) -> Choice:
        among = target if models == target.models else target.model_copy(update={"models": models})
        return choose(among, asked, seen, verdict.intent, catalog, route, knowledge, now)

    choice = weigh(target.models)
    places = [(target, request)]
    may_ease = not choice.models and spent is None
    if may_ease and route is not None and route.if_none == "otherwise":
        why += f"; none keeps to the limits ({summary(choice.excluded)}): the safe choice"
        target = without_limits(route.otherwise)
        asked = without_soft_limits(request)
        choice = weigh(target.models)
        places.append((target, asked))
    pieces, left = None, NONE
    if not choice.models:
        divided = Division()
        for place, whole in places:
            if own is not None and own.too_long_of(place) == "map_reduce" and not divided.models:
                target = place
                divider = partial(
                    divide,
                    request=whole,
                    seen=seen,
                    intent=verdict.intent,
                    catalog=catalog,
                    route=route,
                    knowledge=knowledge,
                )
                divided, left = in_pieces(place, trial, divider)
        pieces = divided.pieces
        if pieces is None:
            because = f"; {is_spent(spent)}" if spent is not None else ""
            because += f"; in pieces: {divided.why}. {INSTEAD}" if divided.why else ""
            raise Unroutable(f"no model can take it ({summary(choice.excluded)}){because}")
        why += f"; too long for its models: in {pieces.count} pieces"
        choice = Choice(divided.models, choice.excluded, divided.estimates)
    elif len(choice.models) == 1 and target.strategy is not Strategy.SINGLE:
        # One model alone is no cascade and no ensemble, and its treatment has it to fail over to.
        target = target.model_copy(update={"strategy": Strategy.SINGLE})
    # A shadow sees the whole request, too.
    found = experimented(
        choice,
        target,
        trial if pieces is None else left,
        pieces is not None,
        catalog,
        weigh,
        lambda name: exclusion(catalog.model(name), request, seen) is None,
    )
    choice, why = found.choice, "; ".join((why, *found.notes))
    cache = own.cache_of(target) if own is not None else None
    planned = plan(choice, target, catalog, found.shadow, cache, pieces)
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
        arms=found.arms,
        budgets=tuple(budget.label for budget in budgets),
        decided_at=now,
        plan=planned,
    )


def experimented(
    choice: Choice,
    target: Target,
    trial: Variants,
    divided: bool,
    catalog: Catalog,
    weigh: Weigh,
    may_see: MaySee,
) -> Tried:
    """Return a choice as experiments change it, by the kind of plan that it makes.

    `trial` is what is left of them where the request is `divided`.
    """
    if not trial.arms:
        return Tried(choice)
    if divided:
        return tried_in_pieces(choice, trial)

    def is_people(name: str) -> bool:
        return catalog.model(name).is_people

    strategy = Strategy.HANDOFF if is_people(choice.models[0]) else target.strategy
    return tried(choice, strategy, trial, weigh, may_see, is_people)


def in_pieces(
    target: Target, trial: Variants, divider: Callable[[Target], Division]
) -> tuple[Division, Variants]:
    """Return how a target's models take a request in pieces, and what experiments change of it."""
    found: dict[tuple[str, ...], Division] = {}

    def among(models: tuple[str, ...]) -> Division:
        if models not in found:
            found[models] = divider(target.model_copy(update={"models": models}))
        return found[models]

    left = left_in_pieces(trial, target.models, lambda models: among(models).models)
    return among(treated(target.models, left.replace, Strategy.SINGLE)), left


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
