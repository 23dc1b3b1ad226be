"""Prices and windows of models, from a file in the format of LiteLLM's price map.

It is one JSON object: names of models, with or without a prefix for the provider (`gpt-4o`,
`groq/llama-3.3-70b-versatile`), to their costs per token and limits. Keys that are not read here
are left alone, and so are models that are not for chat.
https://github.com/BerriAI/litellm/blob/main/model_prices_and_context_window.json
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from modelyard.catalog import Catalog, Endpoint, Model, Price
from modelyard.errors import CatalogError
from modelyard.regular_file import read_regular

MAX_BYTES: Final = 32 * 1024 * 1024
"""A larger file is no price file: LiteLLM's has less than 2 MiB."""

MAX_USD_PER_TOKEN: Final = 1_000.0
MAX_TOKENS: Final = 10**12

COSTS: Final[Mapping[str, str]] = {
    "input_cost_per_token": "input_usd_per_mtok",
    "output_cost_per_token": "output_usd_per_mtok",
    "cache_read_input_token_cost": "cached_input_usd_per_mtok",
    "cache_creation_input_token_cost": "cache_write_usd_per_mtok",
}
"""LiteLLM's names of prices, in US dollars per token, and the catalog's."""

COMPATIBLE: Final[Mapping[str, str]] = {
    "openai": "https://api.openai.com/v1",
    "cerebras": "https://api.cerebras.ai/v1",
    "dashscope": "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    "deepinfra": "https://api.deepinfra.com/v1/openai",
    "deepseek": "https://api.deepseek.com/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/openai",
    "groq": "https://api.groq.com/openai/v1",
    "hyperbolic": "https://api.hyperbolic.xyz/v1",
    "mistral": "https://api.mistral.ai/v1",
    "moonshot": "https://api.moonshot.ai/v1",
    "nebius": "https://api.studio.nebius.ai/v1",
    "novita": "https://api.novita.ai/v3/openai",
    "nvidia_nim": "https://integrate.api.nvidia.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "perplexity": "https://api.perplexity.ai",
    "sambanova": "https://api.sambanova.ai/v1",
    "together_ai": "https://api.together.xyz/v1",
    "xai": "https://api.x.ai/v1",
}
"""LiteLLM's prefixes of providers with an OpenAI-compatible API, and where that is."""

_HOSTS: Final = {urlsplit(url).hostname: prefix for prefix, url in COMPATIBLE.items()}
_MODES: Final = frozenset({"chat", "completion", "responses"})
_DATE: Final = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|latest)$")
"""`gpt-4o-2024-08-06`, `claude-3-5-haiku@20241022`, `gpt-4-0613`."""


@dataclass(frozen=True)
class Priced:
    """What the file says of one model. Windows are in tokens; None: it does not say."""

    price: Price
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None


@dataclass(frozen=True)
class Prices:
    """A price file: its name and its entries, which are read when they are asked for.

    So a wrong entry of a model that nobody uses stops nothing: people fetch the file anew each
    night.
    """

    file: str
    entries: Mapping[str, Any]

    def find(self, *names: str) -> Priced | None:
        """Return what the file says of a model, by the first of its names that it has.

        Where it has none of them, a name counts without its date (`gpt-4o` for
        `gpt-4o-2024-08-06`). Raises `CatalogError` if the entry is wrong.
        """
        undated = (_DATE.sub("", name) for name in names if _DATE.search(name))
        for name in (*names, *undated):
            entry = self.entries.get(name)
            if entry is None or name == "sample_spec":
                continue
            if not isinstance(entry, Mapping):
                raise self._error(name, "must be an object with input_cost_per_token and so on")
            mode = entry.get("mode", "chat")
            if not isinstance(mode, str) or mode not in _MODES or not _has_price(entry):
                continue
            return self._priced(name, entry)
        return None

    def _priced(self, name: str, entry: Mapping[str, Any]) -> Priced:
        costs = {}
        for theirs, ours in COSTS.items():
            cost = entry.get(theirs)
            if cost is None:
                continue
            if not is_cost(cost):
                what = f"{theirs!r} must be a number of dollars per token, 0 or more"
                raise self._error(name, what)
            costs[ours] = usd_per_mtok(cost)
        windows = {}
        for key in ("max_input_tokens", "max_output_tokens"):
            tokens = entry.get(key)
            if tokens is None:
                continue
            if not is_window(tokens):
                raise self._error(name, f"{key!r} must be a whole number of tokens, 1 or more")
            windows[key] = int(tokens)
        return Priced(Price(**costs), **windows)

    def _error(self, name: str, what: str) -> CatalogError:
        return CatalogError([f"{self.file}: model {name[:80]!r}: {what}"])


def is_cost(value: object) -> bool:
    """Whether this is a price of a token: a number, and no text of one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= MAX_USD_PER_TOKEN


def is_window(value: object) -> bool:
    """Whether this is a number of tokens. The file has some as 128000.0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 1 <= value <= MAX_TOKENS and (isinstance(value, int) or value.is_integer())


def usd_per_mtok(usd_per_token: float) -> float:
    """Return the price of a million tokens: 0.15 and not 0.15000000000000002."""
    return float(f"{usd_per_token * 1e6:.12g}")


def read_prices(path: Path) -> Prices:
    """Read a price file. Raises `CatalogError`."""
    try:
        content = read_regular(path, MAX_BYTES + 1)
    except OSError as error:
        raise CatalogError([f"{path}: the price file can't be read: {error.strerror}"]) from error
    if len(content) > MAX_BYTES:
        raise CatalogError([f"{path}: more than {MAX_BYTES} bytes; is it a price file?"])
    return parse_prices(content, str(path))


def parse_prices(content: bytes, file: str) -> Prices:
    """Return the prices in the bytes of a file that is called `file`. Raises `CatalogError`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise CatalogError([f"{file}:{line}: the price file is not UTF-8"]) from error
    try:
        entries = json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        what = f"{file}:{error.lineno}: the price file is not JSON: {error.msg}"
        raise CatalogError([what]) from error
    except (ValueError, RecursionError) as error:
        what = f"{file}: the price file is not JSON of numbers and names: {error}"
        raise CatalogError([what]) from error
    if not isinstance(entries, dict):
        what = f"{file}:1: a price file is an object of models, such as "
        raise CatalogError([what + '{"gpt-4o": {"input_cost_per_token": 2.5e-06, ...}}'])
    return Prices(file, entries)


def with_prices(catalog: Catalog, prices: Prices) -> Catalog:
    """Return the catalog with prices for its models that have none of their own.

    Such a model also gets its window from the file if the catalog does not give it. What runs
    inside the worker, and people, are not looked up. Raises `CatalogError` if an entry is wrong.
    """
    models = tuple(_with_price(model, prices) for model in catalog.models)
    return catalog.model_copy(update={"models": models})


def names_of(model: Model) -> tuple[str, ...]:
    """Return the names that a price file may have for a model, the most exact first.

    Where its endpoints have other providers or names, those of the first one come first.
    """
    kinds: dict[tuple[str, str], list[Endpoint]] = {}
    for endpoint in model.endpoints:
        there = model.at(endpoint)
        kinds.setdefault((there.provider, there.provider_model), []).append(endpoint)
    alike = [
        model.at(some[0]).model_copy(update={"endpoints": tuple(some)}) for some in kinds.values()
    ]
    return tuple(dict.fromkeys(name for each in alike or [model] for name in _names(each)))


def _names(model: Model) -> Iterator[str]:
    name = model.provider_model
    match model.provider:
        case "openai":
            for endpoint in model.endpoints:
                prefix = _HOSTS.get(urlsplit(endpoint.base_url).hostname)
                if prefix is not None:
                    yield f"{prefix}/{name}"
        case "bedrock":
            for endpoint in model.endpoints:
                yield f"bedrock/{endpoint.region}/{name}"
            yield f"bedrock/{name}"
        case "vertex":
            yield f"vertex_ai/{name}"
        case "azure" | "anthropic":
            yield f"{model.provider}/{name}"
    yield name
    if model.provider == "litellm":  # its names have LiteLLM's prefix already
        yield name.partition("/")[2] or name


def _with_price(model: Model, prices: Prices) -> Model:
    if "price" in model.model_fields_set or not (model.is_remote or model.provider == "litellm"):
        return model
    found = prices.find(*names_of(model))
    if found is None:
        return model
    update: dict[str, Any] = {"price": found.price}
    if "context_tokens" not in model.model_fields_set and found.max_input_tokens is not None:
        update["context_tokens"] = found.max_input_tokens
    return model.model_copy(update=update)


def _has_price(entry: Mapping[str, Any]) -> bool:
    # What is paid by the second or the image has neither.
    keys = ("input_cost_per_token", "output_cost_per_token")
    return any(entry.get(key) is not None for key in keys)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")
