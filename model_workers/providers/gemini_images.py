"""Images as Gemini takes them."""

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from model_workers.providers.base import Unsupported
from modelyard.messages import ImageUrl, Message

PROVIDER: Final = "Gemini"

MIME_OF: Final[Mapping[str, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
}
"""The type of an image at an address, which has to be told, by how its name ends."""

_DATA_URL: Final = re.compile(r"data:(image/[a-z0-9.+-]+);base64,", re.IGNORECASE)


def image_part(image: ImageUrl) -> dict[str, Any]:
    """Return an image as Gemini takes it: its bytes, or its address and its type."""
    url = image.url
    if url[:5].lower() == "data:":
        return {"inlineData": _inline(url)}
    if not url.startswith(("https://", "gs://")):
        raise Unsupported(
            f"{PROVIDER} takes images at an https:// or gs:// address, or as "
            "data:image/...;base64, only"
        )
    try:
        name = urlsplit(url).path
    except ValueError:
        name = ""
    mime = MIME_OF.get(name.rpartition(".")[2].lower())
    if mime is None:
        raise Unsupported(
            f"{PROVIDER} has to be told an image's type, and its address ends with none of "
            f"{', '.join('.' + each for each in MIME_OF)}: send it as data:image/...;base64,"
        )
    return {"fileData": {"mimeType": mime, "fileUri": url}}


def _inline(url: str) -> dict[str, str]:
    head = _DATA_URL.match(url)
    if head is None:
        raise Unsupported(f"{PROVIDER} takes an image's data as data:image/...;base64, only")
    mime = head[1].lower().replace("image/jpg", "image/jpeg")
    if mime not in MIME_OF.values():
        kinds = ", ".join(sorted({*MIME_OF.values()}))
        raise Unsupported(f"{PROVIDER} takes images of type {kinds}, and not {mime!r}")
    data = url[head.end() :]
    try:
        is_there = bool(binascii.a2b_base64(data, strict_mode=True))
    except ValueError:
        is_there = False
    if not is_there:
        raise Unsupported(f"{PROVIDER} can't take an image: its data is not base64")
    return {"mimeType": mime, "data": data}


def resolution(messages: Sequence[Message]) -> str | None:
    """Return what the `detail` of all images is there, or None if nothing is asked for."""
    details = {
        None if image.detail == "auto" else image.detail
        for message in messages
        for image in message.images
    }
    if len(details) > 1:
        raise Unsupported(
            f"{PROVIDER} takes one detail for all images of a request: give all of them the same"
        )
    detail = details.pop() if details else None
    return f"MEDIA_RESOLUTION_{detail.upper()}" if detail else None
