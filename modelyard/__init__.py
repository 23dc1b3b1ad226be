"""A classification yard for model requests.

`from modelyard import Client` is what a program needs to submit requests and fetch answers.
Names are loaded when they are first used, so that importing this costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelyard.async_client import AsyncClient as AsyncClient
    from modelyard.async_client import AsyncHandle as AsyncHandle
    from modelyard.client import Client as Client
    from modelyard.errors import BrokerFull as BrokerFull
    from modelyard.errors import BrokerUnavailable as BrokerUnavailable
    from modelyard.errors import ModelyardError as ModelyardError
    from modelyard.errors import QueueFull as QueueFull
    from modelyard.errors import RequestFailed as RequestFailed
    from modelyard.errors import RequestRevoked as RequestRevoked
    from modelyard.errors import ResultTimeout as ResultTimeout
    from modelyard.handle import Handle as Handle
    from modelyard.messages import Answer as Answer
    from modelyard.messages import Lane as Lane
    from modelyard.messages import Message as Message
    from modelyard.messages import Request as Request

__version__ = "0.1.0"

_WHERE = {
    "AsyncClient": "modelyard.async_client",
    "AsyncHandle": "modelyard.async_client",
    "Client": "modelyard.client",
    "Handle": "modelyard.handle",
    "BrokerFull": "modelyard.errors",
    "BrokerUnavailable": "modelyard.errors",
    "ModelyardError": "modelyard.errors",
    "QueueFull": "modelyard.errors",
    "RequestFailed": "modelyard.errors",
    "RequestRevoked": "modelyard.errors",
    "ResultTimeout": "modelyard.errors",
    "Answer": "modelyard.messages",
    "Lane": "modelyard.messages",
    "Message": "modelyard.messages",
    "Request": "modelyard.messages",
}

__all__ = [*_WHERE, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name == "celery":  # `celery -A modelyard flower` looks for this name
        import_module("modelyard.following")  # for its `inspect catalog`
        # Flower tells brokers apart by their address, so its app has kombu's own transport.
        return import_module("modelyard.app").make_app("modelyard", broker_transport=None)
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
