"""Where a deployment of LiteLLM's is called: its provider, its model there, its endpoint.

Keys stay out: what the file has literally becomes `${NAME}`, and no finding holds a value.
"""

import datetime
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from modelyard.price_file import COMPATIBLE

Note = Callable[[str, str], None]
"""Takes a key of the deployment's litellm_params, and what to do about it."""

REFERENCE: Final = "os.environ/"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REGION: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,40}")
_BEDROCK_ROUTES: Final = ("converse/", "converse_like/", "invoke/")
_BEDROCK_REGION: Final = re.compile(r"([a-z]{2}(?:-[a-z]+)+-\d)/(.+)")

OWN_SERVERS: Final[Mapping[str, str | None]] = {
    "hosted_vllm": None,
    "custom_openai": None,
    "openai_like": None,
    "litellm_proxy": None,
    "lm_studio": None,
    "llamafile": "http://127.0.0.1:8080/v1",
    "ollama": "http://localhost:11434",
    "ollama_chat": "http://localhost:11434",
    "xinference": "http://127.0.0.1:9997/v1",
}
"""Prefixes of servers that people run, and where these are if the config does not say."""

_NATIVE: Final = frozenset({"azure", "anthropic", "bedrock", "vertex_ai", "vertex_ai_beta"})
_KEYS: Final[Mapping[str, str]] = {
    "fireworks_ai": "FIREWORKS_AI_API_KEY",
    "perplexity": "PERPLEXITYAI_API_KEY",
    "together_ai": "TOGETHERAI_API_KEY",
}
"""The variables of keys where they are not called PREFIX_API_KEY."""

_FAMILIES: Final = (
    (re.compile(r"(gpt-|chatgpt-|o\d|ft:gpt-)"), "openai"),
    (re.compile(r"claude-"), "anthropic"),
    (re.compile(r"gemini-"), "vertex_ai"),
)
"""Names that LiteLLM takes without a prefix."""

_NATIVE_KEYS: Final = frozenset(
    {"aws_region_name", "aws_bedrock_runtime_endpoint"}
    | {"vertex_project", "vertex_location", "vertex_ai_project", "vertex_ai_location"}
)
CONSUMED: Final = _NATIVE_KEYS | {
    *("model", "api_key", "api_base", "base_url", "api_version", "custom_llm_provider"),
}
"""Keys of litellm_params that are read here."""


@dataclass
class Variables:
    """Names of environment variables: those that are taken, and those that stand for a literal."""

    taken: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    _literals: dict[tuple[str, str], str] = field(default_factory=dict)

    def refer(self, name: str) -> str:
        """Return `${name}`."""
        self.used.add(name)
        return f"${{{name}}}"

    def suggest(self, base: str, literal: str) -> str:
        """Return a free name for a literal: the same for the same one."""
        name, number = self._literals.get((base, literal), base), 1
        while (base, literal) not in self._literals and name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self._literals[base, literal] = name
        self.taken.add(name)
        return name


@dataclass(frozen=True)
class Place:
    """Where a deployment is called. `prices` are its names in a price file."""

    provider: str
    model: str
    endpoint: dict[str, Any] | None
    prices: tuple[str, ...]


def text(value: object) -> str | None:
    """Return a value as text, or None if it is none. YAML reads 2024-10-21 as a date."""
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return str(value).strip() or None


def referred(value: object) -> str | None:
    """Return the variable's name if the value is `os.environ/NAME`."""
    name = value.strip().removeprefix(REFERENCE) if isinstance(value, str) else ""
    return name if name != str(value).strip() and _NAME.fullmatch(name) else None


def references(value: object) -> Iterable[str]:
    """Yield the names of all variables that a value of the file refers to."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif (name := referred(item)) is not None:
            yield name


def prefix_and_model(params: Mapping[str, Any]) -> tuple[str, str]:
    """Return the provider by LiteLLM's name and the model at it; the prefix may be ''."""
    name = text(params.get("model")) or ""
    custom = text(params.get("custom_llm_provider"))
    prefix, slash, rest = name.partition("/")
    if custom is not None:
        return custom, rest if slash and prefix == custom else name
    if slash and rest:
        return prefix, rest
    for pattern, family in _FAMILIES:
        if pattern.match(name):
            return family, name
    return "", name


def default_key(prefix: str, params: Mapping[str, Any]) -> str | None:
    """Return the variable in which LiteLLM looks for the key if the config has none."""
    if prefix == "openai" and _base(params) is not None:
        return None  # somebody's own server: OpenAI's key is not for it
    if prefix in COMPATIBLE or prefix in {"azure", "anthropic"}:
        return _KEYS.get(prefix, f"{prefix.upper()}_API_KEY")
    return None


def place(params: Mapping[str, Any], variables: Variables, note: Note) -> Place:
    """Return where a deployment with these litellm_params is called."""
    prefix, model = prefix_and_model(params)
    full = text(params.get("model")) or model
    gemini = prefix.startswith("vertex_ai") and model.startswith("gemini-")
    if prefix.startswith("vertex_ai") and not gemini:
        note("model", "of Vertex AI, only Gemini has a provider of its own: it is litellm's")
    elif prefix not in _NATIVE and prefix not in COMPATIBLE and prefix not in OWN_SERVERS:
        note("model", "has no provider of its own here: it is called through provider litellm")
    elif prefix == "bedrock":
        return _bedrock(params, model, variables, note)
    elif gemini:
        return _vertex(params, model, variables, note)
    else:
        endpoint = {"base_url": _address(prefix, params, variables, note)}
        _add_key(endpoint, prefix, params, variables, note)
        _add_version(endpoint, params, note)
        provider = prefix if prefix in _NATIVE else "openai"
        return Place(provider, model, endpoint, (f"{prefix}/{model}", model))
    if prefix and not full.startswith(f"{prefix}/"):
        full = f"{prefix}/{full}"
    return Place("litellm", full, _optional(prefix, params, variables, note), (full, model))


def _optional(
    prefix: str, params: Mapping[str, Any], variables: Variables, note: Note
) -> dict[str, Any] | None:
    """Return the endpoint of provider litellm, which knows addresses itself."""
    for key in sorted(key for key in params if key in _NATIVE_KEYS):
        note(key, "is not in the catalog: set it where LiteLLM looks for it in the environment")
    if _base(params) is None:
        if text(params.get("api_key")) is not None:
            name = referred(params["api_key"])
            note(
                "api_key",
                f"is left out{f' ({name})' if name else ''}: litellm reads the key from the "
                "variable that it has for this provider: set that one for the workers",
            )
        return None
    endpoint = {"base_url": _address(prefix, params, variables, note)}
    _add_key(endpoint, prefix, params, variables, note)
    _add_version(endpoint, params, note)
    return endpoint


def _bedrock(params: Mapping[str, Any], model: str, variables: Variables, note: Note) -> Place:
    for route in _BEDROCK_ROUTES:
        model = model.removeprefix(route)
    region, variable = _region("aws_region_name", params, note)
    if found := _BEDROCK_REGION.fullmatch(model):
        region, model = region or found[1], found[2]
    endpoint: dict[str, Any] = {}
    given = params.get("aws_bedrock_runtime_endpoint")
    if _base(params) is not None or text(given) is not None:
        merged = params if _base(params) is not None else {**params, "api_base": given}
        endpoint["base_url"] = _address("bedrock", merged, variables, note)
    elif region is not None:
        endpoint["base_url"] = f"https://bedrock-runtime.{region}.amazonaws.com"
    else:
        name = variable or "AWS_REGION_NAME"
        endpoint["base_url"] = f"https://bedrock-runtime.{variables.refer(name)}.amazonaws.com"
        note("aws_region_name", f"is in {name}: write it as the endpoint's region, too")
    if text(params.get("api_key")) is not None:
        _add_key(endpoint, "bedrock", params, variables, note)
    if region is not None:
        endpoint["region"] = region
    return Place("bedrock", model, endpoint, (f"bedrock/{region}/{model}", model))


def _vertex(params: Mapping[str, Any], model: str, variables: Variables, note: Note) -> Place:
    key = "vertex_ai_location" if "vertex_ai_location" in params else "vertex_location"
    region, variable = _region(key, params, note)
    endpoint: dict[str, Any] = {}
    if _base(params) is not None:
        endpoint["base_url"] = _address("vertex_ai", params, variables, note)
    elif variable is not None:
        url = f"https://{variables.refer(variable)}-aiplatform.googleapis.com"
        endpoint["base_url"] = url
        note(key, f"is in {variable}: write it as the endpoint's region, too")
    else:
        if region is None:
            region = "us-central1"
            note(key, "is not given: LiteLLM's default, us-central1, is written")
        host = "" if region == "global" else f"{region}-"
        endpoint["base_url"] = f"https://{host}aiplatform.googleapis.com"
    if text(params.get("api_key")) is not None:
        _add_key(endpoint, "vertex_ai", params, variables, note)
    if region is not None:
        endpoint["region"] = region
    key = "vertex_ai_project" if "vertex_ai_project" in params else "vertex_project"
    project = text(params.get(key))
    if project is not None and REFERENCE not in project:
        endpoint["project"] = project
    elif project is not None or "api_key" not in endpoint:  # with a key, it needs none
        note(key, "must be in the catalog: write it as the endpoint's project")
    return Place("vertex", model, endpoint, (f"vertex_ai/{model}", model))


def _region(key: str, params: Mapping[str, Any], note: Note) -> tuple[str | None, str | None]:
    """Return the region, or the variable that it is in."""
    given = text(params.get(key))
    if given is None or _REGION.fullmatch(given):
        return given, None
    name = referred(given)
    if name is None:
        note(key, "is no name of a region: left out")
    return None, name


def _base(params: Mapping[str, Any]) -> str | None:
    return text(params.get("api_base")) or text(params.get("base_url"))


def _address(prefix: str, params: Mapping[str, Any], variables: Variables, note: Note) -> str:
    """Return the base_url of an OpenAI-compatible, Azure's or Anthropic's endpoint."""
    key = "api_base" if text(params.get("api_base")) is not None else "base_url"
    given = _base(params)
    variable = f"{_variable(prefix)}_API_BASE"
    if given is None:
        known = COMPATIBLE.get(prefix) or OWN_SERVERS.get(prefix)
        if prefix == "anthropic":
            known = "https://api.anthropic.com"
        if known is None:
            note("api_base", f"is not given: set {variable} to the address")
        url = known or variables.refer(variable)
    elif (name := referred(given)) is not None:
        url = variables.refer(name)
    else:
        bare, problem = _bare(given)
        if problem is not None:
            note(key, problem)
        if bare is None:
            name = variables.suggest(variable, given)
            note(key, f"can't be in a catalog as it is: set {name} to the address")
        url = bare or variables.refer(name or variable)
    url = url.rstrip("/")
    if prefix.startswith("ollama") and not url.endswith("/v1"):
        url += "/v1"  # its own API is not OpenAI's, which is below that
    return url


def _bare(url: str) -> tuple[str | None, str | None]:
    """Return an address without what may be a secret, and what was left out.

    The address is None if a catalog would not take it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None, None
    if parts.scheme not in {"http", "https"} or not host or re.search(r"[^!-~]|\$", url):
        return None, None
    if "@" in parts.netloc:
        return None, None
    problem = None
    if parts.query or parts.fragment:
        problem = "is written without what follows its '?' or '#'"
    return f"{parts.scheme}://{parts.netloc}{parts.path}", problem


def _add_key(
    endpoint: dict[str, Any],
    prefix: str,
    params: Mapping[str, Any],
    variables: Variables,
    note: Note,
) -> None:
    given = text(params.get("api_key"))
    name = referred(given)
    if given is None:
        name = default_key(prefix, params)
        if name is None:
            if prefix not in OWN_SERVERS:
                note("api_key", "is not given: the endpoint is called without one")
            return
    elif name is None:
        name = variables.suggest(f"{_variable(prefix)}_API_KEY", given)
        note("api_key", f"is a literal key: put it into the environment variable {name}")
    endpoint["api_key"] = variables.refer(name)


def _add_version(endpoint: dict[str, Any], params: Mapping[str, Any], note: Note) -> None:
    version = text(params.get("api_version"))
    if version is None:
        return
    if REFERENCE in version:
        note("api_version", "must be in the catalog: write it as the endpoint's api_version")
    else:
        endpoint["api_version"] = version


def _variable(prefix: str) -> str:
    """Return how the names of a provider's variables begin."""
    key = _KEYS.get(prefix)
    if key is not None:
        return key.removesuffix("_API_KEY")
    name = re.sub(r"[^A-Z0-9]", "_", prefix.upper())[:40]
    return name if _NAME.fullmatch(name) else "LLM"
