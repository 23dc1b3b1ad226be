"""The model workers' app, whose process ends when it is to call for a prompt that says so.

`celery -A chaos.crashing_workers worker ...` is `-A model_workers` but for that.
"""

import os

from chaos.load import CRASH
from model_workers.app import app
from model_workers.providers.base import Completion
from model_workers.providers.over_http import OverHttp
from modelyard.messages import Request

__all__ = ["app"]

complete = OverHttp.complete


async def crash_or_complete(
    self: OverHttp, request: Request, *, request_id: str | None = None
) -> Completion:
    """Do what a segmentation fault in a parser would do, or call."""
    if CRASH in request.text:
        os._exit(1)
    return await complete(self, request, request_id=request_id)


OverHttp.complete = crash_or_complete  # type: ignore[method-assign]
