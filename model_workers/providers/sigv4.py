"""Signatures of AWS, version 4, over calls of Bedrock: made by botocore, which few need.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

import asyncio
import importlib
import re
from typing import Any, Final

import httpx

from modelyard.catalog import Endpoint
from modelyard.errors import FailureKind, ProviderError

SERVICE: Final = "bedrock"

_HOST: Final = re.compile(r"(?:^|\.)bedrock-runtime(?:-fips)?\.([a-z0-9-]+)\.")
_LONG: Final = 256 * 1024
"""From so many bytes on a body is hashed in a thread: it takes a millisecond and more."""

_PASSING: Final = frozenset(
    {
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "ConnectionError",
        "CredentialRetrievalError",
        "EndpointConnectionError",
        "HTTPClientError",
        "MetadataRetrievalError",
        "ReadTimeoutError",
    }
)
"""Errors of botocore's that another try may mend."""


def region_of(endpoint: Endpoint) -> str:
    """Return the region of an endpoint: its `region`, or what its host's name says, or ""."""
    if endpoint.region:
        return endpoint.region
    found = _HOST.search(httpx.URL(endpoint.base_url).host)
    return found[1] if found else ""


class SigV4:
    """Signs calls with the AWS credentials of this process.

    They are what botocore's own chain finds at the first call (environment, profile, web identity,
    container, instance), and are kept; those that run out are renewed in a thread. Implements
    `model_workers.providers.over_http.Signer`.
    """

    def __init__(self, region: str, *, service: str = SERVICE) -> None:
        self._region = region
        self._service = service
        self._credentials: Any = None
        self._lock = asyncio.Lock()

    async def sign(self, message: httpx.Request, content: bytes) -> None:
        """Add `Authorization`, `X-Amz-Date` and, with a session, `X-Amz-Security-Token`.

        Raises `ProviderError`: DENIED without a region, botocore or credentials, RETRYABLE if the
        place where credentials come from did not answer.
        """
        if not self._region:
            raise _denied(
                "the endpoint needs a region, such as us-east-1, for its calls' signature"
            )
        frozen = await self._frozen()
        if len(content) < _LONG:
            added = self._signature(message, content, frozen)
        else:
            added = await asyncio.to_thread(self._signature, message, content, frozen)
        message.headers.update(added)

    async def _frozen(self) -> Any:
        """Return credentials that are good now."""
        async with self._lock:
            if self._credentials is None:
                self._credentials = await asyncio.to_thread(_find)
            credentials = self._credentials
            # Only credentials that run out have this; all others are at hand.
            is_due = getattr(credentials, "refresh_needed", None)
            if is_due is not None and is_due():
                return await asyncio.to_thread(_freeze, credentials)
            return _freeze(credentials)

    def _signature(self, message: httpx.Request, content: bytes, frozen: Any) -> dict[str, str]:
        auth, awsrequest = _botocore("auth"), _botocore("awsrequest")
        # No other header is signed: what is between us and AWS may change them.
        signed = awsrequest.AWSRequest(
            method=message.method,
            url=str(message.url),
            data=content,
            headers={"content-type": message.headers["content-type"]},
        )
        auth.SigV4Auth(frozen, self._service, self._region).add_auth(signed)
        return {
            name: signed.headers[name]
            for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
            if name in signed.headers
        }


def _find() -> Any:
    session = _botocore("session")
    try:
        credentials = session.get_session().get_credentials()
    except Exception as error:
        raise _explained(error) from error
    if credentials is None:
        raise _denied(
            "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or "
            "AWS_PROFILE, or give the endpoint a Bedrock API key as api_key"
        )
    return credentials


def _freeze(credentials: Any) -> Any:
    try:
        return credentials.get_frozen_credentials()
    except Exception as error:
        raise _explained(error) from error


def _explained(error: Exception) -> ProviderError:
    """Return what an error of botocore's means; of its own words only the kind, to be safe."""
    name = type(error).__name__
    # A RuntimeError says that what was renewed has run out all the same.
    passing = name in _PASSING or isinstance(error, OSError | RuntimeError)
    kind = FailureKind.RETRYABLE if passing else FailureKind.DENIED
    return ProviderError(kind, f"AWS credentials can't be had: {name}")


def _botocore(part: str) -> Any:
    try:
        return importlib.import_module(f"botocore.{part}")
    except ImportError:
        raise _denied(
            "calls of Bedrock without an api_key are signed by botocore, which is not installed: "
            "pip install modelyard[bedrock]"
        ) from None


def _denied(words: str) -> ProviderError:
    return ProviderError(FailureKind.DENIED, words)
