"""Where the broker is."""

from urllib.parse import urlsplit

from modelyard.errors import SettingsError
from modelyard.sentinel import is_sentinel, parse
from modelyard.settings import Settings


def broker_address(broker_url: str | None, settings: Settings) -> str:
    """Return the address of the broker: what is given, or what the environment says.

    Raises `SettingsError` when neither is there or it is not a Redis address.
    """
    url = broker_url or settings.broker_url
    if not url:
        raise SettingsError(
            "no broker: set MODELYARD_BROKER_URL to a Redis address such as "
            "redis://localhost:6379/0, or run `modelyard up`, which starts one"
        )
    if is_sentinel(url):
        return parse(url).url
    if not url.startswith(("redis://", "rediss://")):
        scheme = url.split("://", 1)[0] if "://" in url else "no scheme"
        raise SettingsError(
            f"MODELYARD_BROKER_URL must start with redis://, rediss:// or sentinel:// ({scheme})"
        )
    try:
        port = urlsplit(url).port
    except ValueError:
        port = -1
    if port == -1:
        # Without what it is, and what the error says: either may hold a password.
        raise SettingsError(
            "MODELYARD_BROKER_URL is no Redis address such as redis://[:password@]host:6379/0; "
            "signs of a password other than letters and digits are written as %2F and the like"
        )
    return url
