"""Choosing among candidates: what each would cost and bring, and which of them may be called."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from modelyard.catalog import Catalog, Model, UnknownName
from modelyard.messages import Limits, Request, Usage
from modelyard.plan import Estimate, Excluded, Strategy
from modelyard.routes import Route, Target
from router_worker.features import Features
from router_worker.knowledge import Knowledge


@dataclass(frozen=True, slots=True)
class Choice:
    """The models to call, in order, those that are left out, and what was expected of each."""

    models: tuple[str, ...]
    excluded: tuple[Excluded, ...] = ()
    estimates: tuple[Estimate, ...] = ()


def choose(
    target: Target,
    request: Request,
    seen: Features,
    intent: str,
    catalog: Catalog,
    route: Route | None,
    knowledge: Knowledge,
    now: float,
) -> Choice:
    """Return which of the target's models are called, in order. None may be left.

    `now` is in seconds since the epoch. Who is expected after the request's deadline comes after
    those that are in time; the estimates say why.
    """
    held = limits_of(target, request)
    weighed = is_weighed(target, held)
    predicted = predictions(route, seen, knowledge) if weighed else {}
    left_s = None if request.deadline is None else request.deadline - now
    models, excluded, estimates = [], [], []
    people: set[str] = set()
    late: dict[str, Estimate] = {}
    for name in dict.fromkeys(target.models):
        try:
            model = catalog.model(name)
        except UnknownName as error:
            excluded.append(Excluded(model=name, why=str(error)))
            continue
        obstacle = exclusion(model, request, seen)
        if obstacle is None and (weighed or left_s is not None):
            hoped = estimate(model, request, seen, intent, predicted, knowledge)
            estimates.append(hoped)
            if weighed:
                obstacle = beyond(hoped, held)
            if left_s is not None and hoped.latency_s > left_s and not model.is_people:
                late[name] = hoped
        if obstacle is not None:
            excluded.append(Excluded(model=name, why=obstacle))
            continue
        models.append(name)
        if model.is_people:
            people.add(name)
    if target.choose == "cheapest":
        # People have no price, and are dearer than any model.
        cost = {each.model: (each.cost_usd, -each.quality) for each in estimates}
        models.sort(key=lambda name: (name in people, cost[name]))
    if left_s is not None and late:
        called = in_time_first(models, late.keys(), people, target, route)
        excluded += [
            Excluded(model=name, why=too_late(late[name], left_s))
            for name in models
            if name not in called
        ]
        models = called
    told = tuple(estimates) if weighed or late else ()
    choice = Choice(tuple(models), tuple(excluded), told)
    return judged(target, choice, request, catalog)


def in_time_first(
    models: list[str], late: Set[str], people: Set[str], target: Target, route: Route | None
) -> list[str]:
    """Return the models in the order in which a request with a deadline calls them.

    An estimate refuses nobody, cuts no failover off, takes no check of answers away and hands
    nothing over: who is late comes last, but before people. A cascade keeps its order, and begins
    with its first model that is in time. Late members are left out of an ensemble, which would wait
    for them.
    """
    if all(name in late or name in people for name in models):
        return models
    if target.strategy is Strategy.ENSEMBLE or is_pair(target.models, route):
        return [name for name in models if name not in late]
    if target.strategy is Strategy.CASCADE:
        start = next(at for at, name in enumerate(models) if name not in late)
        return models if models[start] in people else models[start:]
    end = next((at for at, name in enumerate(models) if name in people), len(models))
    return sorted(models[:end], key=lambda name: name in late) + models[end:]


def is_pair(models: tuple[str, ...], route: Route | None) -> bool:
    """Return whether these are the two models of an experiment of the route.

    They are weighed to see whether it may be tried: a treatment is called first, so that one that
    is late must not be.
    """
    if route is None:
        return False
    tried = (each for each in route.experiments if each.kind != "shadow")
    return any(models == (each.of, each.to) for each in tried)


def too_late(hoped: Estimate, left_s: float) -> str:
    """Return that an answer is expected after the deadline, which is in `left_s` seconds."""
    return f"about {hoped.latency_s:.1f} s is over the {left_s:.1f} s until its deadline"


def is_weighed(target: Target, held: Limits) -> bool:
    """Return whether it matters what a candidate is expected to bring and to cost."""
    return target.choose == "cheapest" or any(
        limit is not None for limit in (held.quality_floor, held.max_cost_usd, held.max_latency_s)
    )


def limits_of(target: Target, request: Request) -> Limits:
    """Return the limits that hold: the request's, and the target's where it has none."""
    asked = request.limits
    return limits(
        first(asked.quality_floor, target.quality_floor),
        first(asked.max_cost_usd, target.max_cost_usd),
        first(asked.max_latency_s, target.max_latency_s),
        asked.region,
        asked.data_class,
    )


def first(asked: float | None, default: float | None) -> float | None:
    """Return what was asked for, or the default."""
    return default if asked is None else asked


def predictions(route: Route | None, seen: Features, knowledge: Knowledge) -> dict[str, float]:
    """Return the predicted quality by the catalog's names; empty if nothing was learned."""
    if route is None or route.predictor is None:
        return {}
    predictor = knowledge.predictors.get(route.predictor)
    if predictor is None:
        return {}
    return {
        route.predicts.get(name, name): quality
        for name, quality in predictor.predict(seen.text).items()
    }


def estimate(
    model: Model,
    request: Request,
    seen: Features,
    intent: str,
    predicted: dict[str, float],
    knowledge: Knowledge,
) -> Estimate:
    """Return what one call of a model is expected to bring and to cost."""
    output = knowledge.output_tokens.get((model.name, intent), float(seen.output_tokens))
    output = min(output, float(room_for_output(model, request)))
    latency_s = knowledge.latency_s.get(model.name)
    if latency_s is None:
        latency_s = model.latency_s + output / model.tokens_per_s
    return expected(
        model.name,
        round(predicted.get(model.name, model.quality), 4),
        model.price.cost_usd(usage(seen.input_tokens, round(output))),
        round(latency_s, 3),
    )


# Pydantic takes a microsecond for each of these, and most requests need the same few.


@lru_cache(maxsize=1_024)
def limits(
    quality_floor: float | None,
    max_cost_usd: float | None,
    max_latency_s: float | None,
    region: str | None,
    data_class: str | None,
) -> Limits:
    """Return these limits."""
    return Limits(
        quality_floor=quality_floor,
        max_cost_usd=max_cost_usd,
        max_latency_s=max_latency_s,
        region=region,
        data_class=data_class,
    )


@lru_cache(maxsize=4_096)
def usage(input_tokens: int, output_tokens: int) -> Usage:
    """Return so many tokens."""
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens)


@lru_cache(maxsize=4_096)
def expected(model: str, quality: float, cost_usd: float, latency_s: float) -> Estimate:
    """Return what is expected of a model."""
    return Estimate(model=model, quality=quality, cost_usd=cost_usd, latency_s=latency_s)


def room_for_output(model: Model, request: Request) -> int:
    """Return the tokens that are kept free for the answer."""
    for name in ("max_completion_tokens", "max_tokens"):
        asked = request.params.get(name)
        if isinstance(asked, int) and asked > 0:
            return asked
    return model.max_output_tokens


def beyond(expected: Estimate, limits: Limits) -> str | None:
    """Return which limit a candidate does not keep to, or None."""
    if limits.quality_floor is not None and expected.quality < limits.quality_floor:
        return f"quality {expected.quality:.2f} is below {limits.quality_floor:g}"
    if limits.max_cost_usd is not None and expected.cost_usd > limits.max_cost_usd:
        return f"about ${expected.cost_usd:.6f} is over ${limits.max_cost_usd:g}"
    if limits.max_latency_s is not None and expected.latency_s > limits.max_latency_s:
        return f"about {expected.latency_s:.1f} s is over {limits.max_latency_s:g} s"
    return None


def exclusion(model: Model, request: Request, seen: Features) -> str | None:
    """Return why this model can't take this request at all, or None if it can."""
    return barred(model, request) or too_long(model, request, seen)


def barred(model: Model, request: Request) -> str | None:
    """Return why this model can't take this request however long it is, or None."""
    return model.disabled if model.disabled is not None else unlisted(model, request)


def too_long(model: Model, request: Request, seen: Features) -> str | None:
    """Return that this request does not fit the model's window, or None if it does."""
    room = model.context_tokens - room_for_output(model, request)
    if not model.is_people and seen.input_tokens > room:
        return f"about {seen.input_tokens:,} tokens do not fit the {room:,} it has for input"
    return None


def unlisted(model: Model, request: Request) -> str | None:
    """Return why this model may not see this request, or None if it may."""
    region, data_class = request.limits.region, request.limits.data_class
    if region is not None and region not in model.regions:
        return f"it is not listed for region {region!r}"
    if data_class is not None and data_class not in model.data_classes:
        return f"it is not listed for data class {data_class!r}"
    return None


def judged(target: Target, choice: Choice, request: Request, catalog: Catalog) -> Choice:
    """Return the choice, or none of it where the judge of its answers can't judge this request."""
    if len(choice.models) < 2 or catalog.model(choice.models[0]).is_people:
        return choice
    for part in (target.accept, target.combine):
        if part is None or part.judge is None:
            continue
        judge = catalog.model(part.judge)
        unseen = unlisted(judge, request)
        why = None
        if judge.disabled is not None:
            # Nobody serves its queue: what is sent there waits for ever.
            why = f"its judge {part.judge!r} is off: {judge.disabled}"
        elif unseen is not None:
            why = f"its judge {part.judge!r} may not see the request: {unseen}"
        if why is not None:
            gone = tuple(Excluded(model=name, why=why) for name in choice.models)
            return Choice((), (*choice.excluded, *gone), choice.estimates)
    return choice


def without_limits(target: Target) -> Target:
    """Return the target with nothing that could be too dear, too slow or too bad."""
    return target.model_copy(
        update={"quality_floor": None, "max_cost_usd": None, "max_latency_s": None}
    )


def without_soft_limits(request: Request) -> Request:
    """Return the request with those of its limits that must hold: region and data class."""
    hard = Limits(region=request.limits.region, data_class=request.limits.data_class)
    return request.model_copy(update={"limits": hard})


def summary(excluded: Sequence[Excluded]) -> str:
    """Return all candidates that were left out, and why, in one line."""
    return "; ".join(f"{each.model}: {each.why}" for each in excluded)
