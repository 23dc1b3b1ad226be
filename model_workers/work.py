"""What all that is done for one message is done with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from celery import Celery

from model_workers.caller import Answered, Caller, Failed
from model_workers.exits import Exits
from model_workers.origin import Origin
from modelyard.catalog import Catalog, UnknownName
from modelyard.messages import Call, Request


@dataclass(frozen=True, slots=True)
class Work:
    """The catalog as it was when the message was taken up, who calls, and the ways out."""

    app: Celery
    catalog: Catalog
    caller: Caller
    exits: Exits

    async def called(
        self,
        origin: Origin,
        call: Call,
        request: Request,
        *,
        stays: bool = False,
        unwanted: Callable[[], Awaitable[bool]] | None = None,
    ) -> Answered | Failed:
        """Send `request` to the model whose turn it is; see `Caller.call`. Raises `TakenOver`."""
        return await self.caller.call(
            self.catalog,
            origin.id,
            origin.claim,
            call,
            request,
            stays=stays,
            unwanted=unwanted,
        )

    def knows(self, model: str) -> bool:
        """Return whether the catalog has this model: if not, nobody serves its queue."""
        try:
            self.catalog.model(model)
        except UnknownName:
            return False
        return True
