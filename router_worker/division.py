"""Dividing: which models take a request in pieces that is too long for each of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from modelyard.catalog import Catalog, Model, UnknownName
from modelyard.messages import Request
from modelyard.pieces import TooLong, holds, planned
from modelyard.plan import Estimate, Pieces
from modelyard.routes import Route, Target
from router_worker.candidates import (
    barred,
    beyond,
    estimate,
    expected,
    is_weighed,
    limits_of,
    predictions,
    room_for_output,
    too_long,
    usage,
)
from router_worker.features import Features
from router_worker.knowledge import Knowledge


@dataclass(frozen=True, slots=True)
class Division:
    """The models that take the pieces, in order, and `why` there is none, if there is none."""

    models: tuple[str, ...] = ()
    pieces: Pieces | None = None
    estimates: tuple[Estimate, ...] = ()
    why: str = ""


def divide(
    target: Target,
    request: Request,
    seen: Features,
    intent: str,
    catalog: Catalog,
    route: Route | None,
    knowledge: Knowledge,
) -> Division:
    """Return how a request is divided among those of a target for which it is only too long.

    The window of the first that takes it decides the pieces; others come after it if they hold
    them, too. The limits are those of the whole.
    """
    held = limits_of(target, request)
    weighed = is_weighed(target, held)
    predicted = predictions(route, seen, knowledge) if weighed else {}
    models: list[str] = []
    estimates: list[Estimate] = []
    told: list[str] = []
    pieces: Pieces | None = None
    for model in in_order(target, request, seen, catalog):
        try:
            fit = pieces_for(model, request) if pieces is None else pieces
        except TooLong as error:
            told.append(f"{model.name}: {error}")
            continue
        if not fits(fit, model, request):
            continue
        if weighed:
            hoped = estimate(model, request, in_the_end(seen, fit), intent, predicted, knowledge)
            hoped = whole(hoped, model, fit)
            estimates.append(hoped)
            obstacle = beyond(hoped, held)
            if obstacle is not None:
                told.append(f"{model.name}: {obstacle} in {fit.count} pieces")
                continue
        pieces = fit
        models.append(model.name)
    return Division(tuple(models), pieces, tuple(estimates), "" if models else "; ".join(told))


def in_order(target: Target, request: Request, seen: Features, catalog: Catalog) -> Iterable[Model]:
    """Return the models that could take the request if it were shorter, the first to ask first."""
    models: list[Model] = []
    for name in dict.fromkeys(target.models):
        try:
            model = catalog.model(name)
        except UnknownName:
            continue
        if barred(model, request) is None and too_long(model, request, seen) is not None:
            models.append(model)
    if target.choose == "cheapest":
        whole = usage(seen.input_tokens, seen.output_tokens)
        models.sort(key=lambda model: model.price.cost_usd(whole))
    return models


def pieces_for(model: Model, request: Request) -> Pieces:
    """Return the pieces in which a model takes a request. Raises `TooLong`."""
    return planned(
        request,
        context_tokens=model.context_tokens,
        reserve_tokens=room_for_output(model, request),
        most_answer_tokens=model.max_output_tokens,
    )


def fits(pieces: Pieces, model: Model, request: Request) -> bool:
    """Return whether a model takes these pieces, too."""
    return holds(
        pieces,
        context_tokens=model.context_tokens,
        reserve_tokens=room_for_output(model, request),
        most_answer_tokens=model.max_output_tokens,
    )


def in_the_end(seen: Features, pieces: Pieces) -> Features:
    """Return the features of what is asked in the end, as far as they are counted."""
    return replace(seen, input_tokens=pieces.final_tokens)


def whole(last: Estimate, model: Model, pieces: Pieces) -> Estimate:
    """Return what is expected in all: of the pieces, which are asked side by side, and the end."""
    asked = usage(pieces.count * pieces.asked_tokens, pieces.count * pieces.answer_tokens)
    first_s = model.latency_s + pieces.answer_tokens / model.tokens_per_s
    return expected(
        last.model,
        last.quality,
        last.cost_usd + model.price.cost_usd(asked),
        round(last.latency_s + first_s, 3),
    )
