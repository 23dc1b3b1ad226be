"""Calling one model until it answers or nothing is left to try here: `Caller` does as told."""

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from model_workers.endpoints.balancer import Balancer
from model_workers.endpoints.desk import Place
from model_workers.providers.base import Completion
from modelyard.advance import CallNow, Die, Later, NextStep, advance, held
from modelyard.catalog import Catalog, Model, Retry
from modelyard.errors import FailureKind, ModelyardError, ProviderError
from modelyard.holdings import LONGEST_PAUSE_S, confirm, fresh, ledger, made_here
from modelyard.messages import Attempt, Call, DeadReason, Request
from modelyard.redis_errors import passes

logger = logging.getLogger("modelyard.calls")

TOGETHER_S = 0.05
"""How long a call that goes back to its queue waits for others that do."""

FIRST_WAIT_S = 0.1
LAST_WAIT_S = 5.0

T = TypeVar("T")


class TakenOver(Exception):
    """Another worker has the message: what would be paid for here is paid for there."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A model answered. `attempts` starts with those that the call came with."""

    model: Model
    attempts: tuple[Attempt, ...]
    completion: Completion


@dataclass(frozen=True, slots=True)
class Failed:
    """It did not, and `move` is what follows. `attempts` as above."""

    attempts: tuple[Attempt, ...]
    move: NextStep | Later | Die


class Caller:
    """Calls the models of a catalog, where `balancer` says. Lives on one event loop."""

    def __init__(self, balancer: Balancer | None = None) -> None:
        self._balancer = balancer or Balancer()
        self._random = random.Random()  # noqa: S311 - spreads retries, keeps no secret
        self._numbers = itertools.count()
        self._leaving: dict[int, asyncio.Future[None]] = {}

    async def call(
        self,
        catalog: Catalog,
        id: str,
        claim: str,
        call: Call,
        request: Request,
        *,
        stays: bool = False,
        unwanted: Callable[[], Awaitable[bool]] | None = None,
    ) -> Answered | Failed:
        """Send `request` to the model whose turn it is, as often as `advance` says.

        What `stays` waits here for as long as no endpoint takes it, and is never put back.
        `unwanted` is asked before each call but the first. Raises `TakenOver` if the claim is lost
        before a call.
        """
        number, attempts = next(self._numbers), call.attempts
        try:
            model = callable_model(catalog, call.model)
        except ModelyardError as error:
            attempts = (*attempts, not_called(call, str(error), time.time()))
            move = advance(call, attempts, Retry(), time.time(), 0.0)
            assert not isinstance(move, CallNow)
            return Failed(attempts, move)
        avoid: tuple[str, ...] = ()
        carried: dict[tuple[Any, ...], bool] = {}
        while True:
            elsewhere = bool(avoid) and self._balancer.elsewhere(
                catalog, model, request, avoid, carried
            )
            draw = self._random.random()
            move = advance(call, attempts, model.retry, time.time(), draw, elsewhere=elsewhere)
            if isinstance(move, Later) and stays:
                move = CallNow(move.wait_s)
            if not isinstance(move, CallNow):
                await self._in_turn(number, move)
                return Failed(attempts, move)
            if move.wait_s:
                await asyncio.sleep(move.wait_s)
            # Before it has a place: that is not kept from others while Redis is away.
            again = len(attempts) > len(call.attempts)
            if again and unwanted is not None and await unwanted():
                why = "nobody waits for it any more"
                return Failed(attempts, Die(DeadReason.EXPIRED, why))
            place = await self._place(catalog, model, call, request, avoid, carried, stays)
            if not isinstance(place, Place):
                await self._in_turn(number, place)
                return Failed(without_call(call, attempts, place), place)
            try:
                if is_late(call):
                    why = f"its deadline passed while it waited for {model.name}"
                    return Failed(attempts, Die(DeadReason.EXPIRED, why))
                if not await still_ours(claim):
                    raise TakenOver
                attempt, completion = await self._attempt(id, model, place, request)
            finally:
                self._balancer.given_up(place)
            attempts = (*attempts, attempt)
            if completion is not None:
                return Answered(model, attempts, completion)
            avoid = (*avoid, attempt.endpoint)

    async def _place(
        self,
        catalog: Catalog,
        model: Model,
        call: Call,
        request: Request,
        avoid: Sequence[str],
        carried: dict[tuple[Any, ...], bool],
        stays: bool,
    ) -> Place | NextStep | Later | Die:
        """Return the endpoint for the next call, once there is one, or what to do instead."""
        since = time.monotonic()
        while True:
            found = await self._balancer.place(
                catalog, model, request, avoid=avoid, carried=carried
            )
            if isinstance(found, Place):
                return found
            move = held(call, found, model.retry, time.time(), time.monotonic() - since)
            if stays and isinstance(move, Later):
                move = CallNow(min(found.wait_s, LONGEST_PAUSE_S))
            if not isinstance(move, CallNow):
                return move
            # They do not come back together.
            await asyncio.sleep(move.wait_s * (1.0 + 0.5 * self._random.random()))

    async def _in_turn(self, number: int, move: NextStep | Later | Die) -> None:
        """Wait until a call that goes to the head of its queue may leave: of those that do, the
        newest goes first, so that the oldest is the next to be taken.
        """
        if not isinstance(move, Later) or not move.wait_s:
            return
        loop = asyncio.get_running_loop()
        if not self._leaving:
            loop.call_later(TOGETHER_S, self._let_go)
        self._leaving[number] = loop.create_future()
        await self._leaving[number]

    def _let_go(self) -> None:
        leaving, self._leaving = self._leaving, {}
        for number in sorted(leaving, reverse=True):
            if not leaving[number].done():
                leaving[number].set_result(None)

    async def _attempt(
        self, id: str, model: Model, place: Place, request: Request
    ) -> tuple[Attempt, Completion | None]:
        """Call one endpoint once and return what came of it."""
        started_at, started = time.time(), time.monotonic()
        completion, failed = None, None
        line = place.line
        try:
            completion = await line.provider.complete(request, request_id=id)
        except ProviderError as error:
            failed = error
        except Exception as error:
            # A provider's bug is its endpoint's failure, not the request's end.
            logger.exception("provider of %s failed in an unforeseen way", model.name)
            failed = ProviderError(FailureKind.PERMANENT, f"{type(error).__name__} in the provider")
        self._balancer.ended(place, completion, failed)
        return (
            Attempt(
                model=model.name,
                endpoint=line.label,
                started_at=started_at,
                duration_ms=round(1000 * (time.monotonic() - started), 3),
                kind=failed.kind if failed else None,
                status=failed.status if failed else None,
                message=str(failed) if failed else "",
                retry_after_s=failed.retry_after_s if failed else None,
                **charges(completion, model),
            ),
            completion,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        self._let_go()
        await self._balancer.aclose()


def is_late(call: Call) -> bool:
    """Return whether nobody waits for the answer any more."""
    return call.request.deadline is not None and time.time() >= call.request.deadline


async def still_ours(claim: str) -> bool:
    """Return whether a call may be paid for: nobody took the message over while this one slept.

    A message without a claim came from no broker, and is nobody else's; a child of a worker's
    process knows nothing of claims. While Redis is away a worker that slept waits: it can't know.
    """
    if not claim or not made_here(claim):
        return True
    if not fresh():
        await persist(confirm)
    return ledger.holds(claim)


async def persist(act: Callable[..., T], *args: Any) -> T:
    """Return `act(*args)`, run in a thread and again until Redis is there and takes it."""
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await asyncio.to_thread(act, *args)
        except Exception as error:
            if not passes(error):
                raise
            logger.warning("Redis is away or refuses, again in %.1f s: %s", wait_s, error)
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LAST_WAIT_S)


def charges(completion: Completion | None, model: Model) -> dict[str, Any]:
    """Return what an attempt tells of what it brought and cost."""
    if completion is None:
        return {}
    told: dict[str, Any] = {
        "provider_model": completion.provider_model,
        "usage": completion.usage,
        "cost_usd": model.price.cost_usd(completion.usage),
    }
    if completion.first_token_s is not None:
        told["first_token_ms"] = round(1000 * completion.first_token_s, 3)
    return told


def callable_model(catalog: Catalog, name: str) -> Model:
    """Return the model. Raises `ModelyardError` if this worker does not know it or its key."""
    model = catalog.model(name)
    if model.disabled is not None:
        raise ModelyardError(f"model {name!r} can't be called by this worker: {model.disabled}")
    return model


def without_call(
    call: Call, attempts: tuple[Attempt, ...], move: NextStep | Later | Die
) -> tuple[Attempt, ...]:
    """Return the attempts, with what tells why a request leaves a model that was not called."""
    if isinstance(move, Later):
        return attempts
    message = move.why if isinstance(move, NextStep) else move.message
    kind = FailureKind.DENIED if isinstance(move, Die) else FailureKind.RETRYABLE
    return (*attempts, not_called(call, message, time.time(), kind))


def not_called(
    call: Call, message: str, now: float, kind: FailureKind = FailureKind.PERMANENT
) -> Attempt:
    """Return the attempt at a model that this worker can't call at all."""
    return Attempt(
        model=call.model,
        endpoint="none",
        started_at=now,
        duration_ms=0.0,
        kind=kind,
        message=message,
    )
