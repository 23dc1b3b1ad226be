"""Google's application default credentials: an access token for each call, renewed in time.

google-auth is an extra and is imported when the first call needs it. Where the credentials come
from: https://cloud.google.com/docs/authentication/application-default-credentials
"""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import httpx

from modelyard.errors import FailureKind, ProviderError

SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"


class Credentials(Protocol):
    """What is used of google-auth's credentials.

    `valid` is false some minutes before the token runs out.
    """

    token: str | None

    @property
    def valid(self) -> bool: ...

    @property
    def quota_project_id(self) -> str | None: ...

    def refresh(self, request: Any) -> None: ...


class GoogleToken:
    """Adds the bearer token of the application default credentials to calls.

    Getting one is a call over the network that blocks, so a thread does it, once for all calls
    that wait. `load` returns the credentials and what `refresh` wants; it may block, too.
    Implements `model_workers.providers.over_http.Signer`.
    """

    def __init__(self, load: Callable[[], tuple[Credentials, Any]] | None = None) -> None:
        self._load = load or default_credentials
        self._loaded: tuple[Credentials, Any] | None = None
        self._renewal: asyncio.Task[Credentials] | None = None

    async def sign(self, message: httpx.Request, content: bytes) -> None:
        """Add the token to `message`.

        Raises `ProviderError`: denied if there are no credentials or they are not accepted,
        retryable if Google could not be asked.
        """
        credentials = self._loaded[0] if self._loaded else None
        if credentials is None or not credentials.valid:
            credentials = await self._renewed()
        message.headers["authorization"] = f"Bearer {credentials.token}"
        if credentials.quota_project_id:
            # A person's credentials belong to no project: this is the one that is billed.
            message.headers["x-goog-user-project"] = credentials.quota_project_id

    async def _renewed(self) -> Credentials:
        if self._renewal is None:
            self._renewal = asyncio.create_task(asyncio.to_thread(self._renew))
            self._renewal.add_done_callback(self._ended)
        # A call that is given up must not end the renewal that others wait for.
        return await asyncio.shield(self._renewal)

    def _ended(self, renewal: asyncio.Task[Credentials]) -> None:
        self._renewal = None
        if not renewal.cancelled():
            renewal.exception()  # Looked at, as all who waited may have given up.

    def _renew(self) -> Credentials:
        if self._loaded is None:
            self._loaded = self._load()
        credentials, request = self._loaded
        try:
            credentials.refresh(request)
        except Exception as error:
            raise _explained(error) from error
        return credentials


def default_credentials() -> tuple[Credentials, Any]:
    """Return the application default credentials, and what makes google-auth's own calls.

    Raises `ProviderError` (denied) if there are none, or google-auth is missing.
    """
    try:
        auth = importlib.import_module("google.auth")  # an extra
        transport = importlib.import_module("google.auth.transport.requests")
    except ImportError as error:
        raise ProviderError(
            FailureKind.DENIED,
            "Vertex AI without an api_key needs google-auth: pip install modelyard[vertex]",
        ) from error
    try:
        credentials, _ = auth.default(scopes=[SCOPE])
    except Exception as error:
        raise _explained(error) from error
    return credentials, transport.Request()


def _explained(error: Exception) -> ProviderError:
    """Return what an error of google-auth means.

    Its classes are known by name, as it need not be installed: `TransportError` is a network that
    failed, and others say of themselves whether they are `retryable`.
    """
    names = {each.__name__ for each in type(error).__mro__}
    passes = "TransportError" in names or getattr(error, "retryable", False) is True
    words = error.args[0] if error.args and isinstance(error.args[0], str) else ""
    problem = f"no Google access token: {type(error).__name__}: {words}".rstrip(": ")
    if "GoogleAuthError" not in names:
        # Not foreseen by google-auth, such as a key file that can't be read.
        return ProviderError(FailureKind.DENIED, problem)
    if passes:
        return ProviderError(FailureKind.RETRYABLE, problem)
    return ProviderError(
        FailureKind.DENIED,
        f"{problem} (see `gcloud auth application-default login`, "
        "GOOGLE_APPLICATION_CREDENTIALS, or give the endpoint an api_key)",
    )
