"""The catalog file: YAML in, a `Catalog` or all of its mistakes out.

The file is read as YAML nodes and not as values, because nodes know their lines: each problem is
one line, `FILE:LINE: WHERE: WHAT`, and all of them are told at once. The fields decide what a
value means: `name: no` is the text "no" and `quality: "0.5"` is a number.

`${NAME}` in an endpoint's `base_url` and `api_key` is replaced by that environment variable. If
it is unset or empty, the endpoint is disabled and the rest of the catalog works.
"""

import difflib
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.reader import ReaderError

from modelyard.catalog import Catalog, suggestion
from modelyard.catalog_kinds import bare, kind_at, known_keys
from modelyard.catalog_sheet import Loc, Sheet, check_names, items
from modelyard.errors import CatalogError
from modelyard.price_file import read_prices, with_prices
from modelyard.regular_file import read_regular
from modelyard.settings import Settings, load_settings

logger = logging.getLogger("modelyard.catalog")

MAX_BYTES: Final = 1024 * 1024
"""A larger file is no catalog."""

MAX_DEPTH: Final = 20
MAX_VALUES: Final = 100_000
"""Aliases (`*name`) can make a small file huge, or endless: both limits stop that."""

UNSET_URL: Final = "http://unset.invalid"
"""The address of an endpoint whose own can't be known; .invalid never resolves (RFC 2606)."""

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_YAML = "tag:yaml.org,2002:"
_TAGS = frozenset(
    _YAML + name for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
) | {_YAML + "value", _YAML + "merge"}

_LIST = "must be a list"
_MAPPING = "must be a mapping of keys to values"
_SHAPES = (_LIST, _MAPPING)
_WHOLE = "must be a whole number"
_NUMBER = "must be a number"
_TRUE = "must be true or false"
_MOMENT = "must be a moment, such as 2026-11-23T09:00:00Z"
_PLAIN_WORDS: Final[Mapping[str, str]] = {
    "missing": "is missing",
    "model_type": _MAPPING,
    "dict_type": _MAPPING,
    "tuple_type": _LIST,
    "too_short": "must not be empty",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be {max_length} characters or fewer",
    "string_pattern_mismatch": (
        "must start with a letter or digit and hold only letters, digits, '.', '_' and '-'"
    ),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than_equal": "must be {le:g} or less",
    "less_than": "must be less than {lt:g}",
    "bool_type": _TRUE,
    "bool_parsing": _TRUE,
    "datetime_type": _MOMENT,
    "datetime_parsing": _MOMENT,
    "datetime_from_date_parsing": _MOMENT,
}
"""What pydantic's error types mean to somebody who has never heard of pydantic."""


def default_catalog(settings: Settings | None = None) -> Catalog:
    """Load the catalog that `settings` (default: the environment's) name, with the environment.

    Models without a price get it from the price file that they name, if they name one. Raises
    `CatalogError`, and `SettingsError` if the settings are wrong.
    """
    settings = settings or load_settings()
    catalog = load_catalog(settings.catalog_path, os.environ)
    if settings.prices is None:
        return catalog
    return with_prices(catalog, read_prices(settings.prices.expanduser()))


def load_catalog(path: Path, environ: Mapping[str, str]) -> Catalog:
    """Read the catalog from the YAML file at `path`, with `${NAME}` taken from `environ`.

    Logs one line for each endpoint that is disabled. Raises `CatalogError` with all problems.
    """
    sheet = Sheet(str(path))
    root = _compose(_read_text(path), sheet)
    sheet.data = _plain(root, Catalog, (), sheet)
    check_names(sheet)
    for loc, endpoint in _endpoints(sheet.data):
        _connect(endpoint, loc, environ, sheet)
    catalog = _validate(sheet)
    told = "model %r, endpoint %d is not used: set %s in the environment to use it"
    for model in catalog.models:
        for number, part in enumerate(model.endpoints, 1):
            if part.disabled is not None:
                logger.info(told, model.name, number, part.disabled)
    return catalog


class _Loader(yaml.SafeLoader):
    """Composes nodes, and no deeper than a catalog can be: composing is recursive."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if parent is not None and self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, "nested too deeply", parent.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _read_text(path: Path) -> str:
    """Return the file's text. Raises `CatalogError`."""
    try:
        content = read_regular(path, MAX_BYTES + 1)
    except OSError as error:
        what = f"{error.strerror}; set MODELYARD_CATALOG to the path of a catalog"
        raise CatalogError([f"{path}: can't be read: {what}"]) from error
    if len(content) > MAX_BYTES:
        raise CatalogError([f"{path}:1: catalog: more than {MAX_BYTES} bytes; is it a catalog?"])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
    raise CatalogError([f"{path}:{line}: catalog: not UTF-8; save the file as UTF-8"])


def _compose(text: str, sheet: Sheet) -> yaml.Node:
    """Return the file's only document. Raises `CatalogError`."""
    try:
        loader = _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise sheet.refusal(line, "not valid YAML: a control character") from error
    # Its other errors quote the lines around the mistake, which may hold a key: only their
    # words are told, no names in them, and they are not chained.
    try:
        root = loader.get_single_node()
        if root is not None:
            return root
        line, what = 0, "the file is empty; it needs 'models' and 'routes'"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        parts = [part for part in (error.context, error.problem) if part]
        line = mark.line if mark else 0
        what = "not valid YAML: " + ", ".join(re.sub(r" '[^']{5,}'", "", part) for part in parts)
    except (ValueError, OverflowError):  # from chr(), called with whatever follows a \U
        line, what = loader.line, "not valid YAML: an escape that stands for no character"
    raise sheet.refusal(line + 1, what)


def _plain(node: yaml.Node, kind: object, loc: Loc, sheet: Sheet) -> Any:
    """Return `node` as dicts, lists, texts and None; `kind` is the type that belongs at `loc`."""
    line = node.start_mark.line + 1
    sheet.lines.setdefault(loc, line)
    if len(loc) > MAX_DEPTH or len(sheet.lines) > MAX_VALUES:
        raise sheet.refusal(line, "nested too deeply or too large; does an alias hold itself?")
    if node.tag not in _TAGS:
        sheet.report(loc, "tags (!name) are not supported: write plain values", line)
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, kind, loc, sheet)
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(item, kind_at(kind, index), (*loc, index), sheet)
            for index, item in enumerate(node.value)
        ]
    if node.tag == _YAML + "null":
        return None
    if _REFERENCE.fullmatch(node.value) and "endpoints" not in loc:
        sheet.report(loc, "${NAME} is replaced only in an endpoint's base_url and api_key")
    if kind is Any:
        return _typed(node, loc, sheet)
    return node.value


def _typed(node: yaml.Node, loc: Loc, sheet: Sheet) -> Any:
    """Return a scalar as YAML means it, where no type of ours says what it is; but JSON has it."""
    line = node.start_mark.line + 1
    if node.tag == _YAML + "timestamp":
        return node.value
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError):
        sheet.report(loc, "not a value that YAML knows", line)
        return None
    if isinstance(value, float) and not math.isfinite(value):
        sheet.report(loc, "must be a finite number", line)
        return 1.0  # so that this is told once
    return value


def _plain_mapping(node: yaml.MappingNode, kind: object, loc: Loc, sheet: Sheet) -> dict[str, Any]:
    """Return a mapping without what can't belong to it; all that is reported.

    A misspelt key counts as the one it is near to, so that one mistake is one problem.
    """
    known = known_keys(kind)
    given = {key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)}
    data: dict[str, Any] = {}
    first: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _YAML + "merge":
            sheet.report(loc, "a key must be a plain word; merge keys (<<) are not supported", line)
            continue
        key = key_node.value
        # `{api_key:secret}` without a space is one key: what follows the colon stays untold.
        shown = re.sub(r"[:=].*", "...", key, flags=re.DOTALL)[:40]
        if key in first:
            sheet.report(loc, f"{shown!r} is given twice, first on line {first[key]}", line)
            continue
        first[key] = line
        if known and key not in known:
            sheet.report(loc, f"unknown key {shown!r}{suggestion(key, known)}", line)
            near = difflib.get_close_matches(key, sorted(known), n=1)
            if not near or near[0] in given or near[0] in data:
                continue
            key = near[0]
        here = (*loc, key)
        sheet.lines[here] = line
        value = _plain(value_node, kind_at(kind, key), here, sheet)
        # All entries of `rules:` commented out leaves a null: that is the same as no key.
        if value is not None or not known or key == "api_key":
            data[key] = value
    return data


def _endpoints(data: Any) -> Iterator[tuple[Loc, dict[str, Any]]]:
    """Yield the endpoints of all models."""
    for index, model in enumerate(items(data, "models")):
        for number, endpoint in enumerate(items(model, "endpoints")):
            if isinstance(endpoint, dict):
                yield ("models", index, "endpoints", number), endpoint


def _connect(endpoint: dict[str, Any], loc: Loc, environ: Mapping[str, str], sheet: Sheet) -> None:
    """Put the environment's values into an endpoint. Nothing of a value is ever reported."""
    missing: list[str] = []
    url = endpoint.get("base_url")
    if isinstance(url, str):
        names = _REFERENCE.findall(url)
        unset = [name for name in names if not environ.get(name, "").strip()]
        filled = _REFERENCE.sub(lambda match: environ.get(match[1], "").strip(), url)
        problem = None if unset else _address_problem(filled)
        if "$" in _REFERENCE.sub("", url):
            problem = "has a '$' that is not part of ${NAME}"
        if problem is not None:
            source = f" (with {', '.join(names)} from the environment)" if names else ""
            sheet.report(loc, f"'base_url' {problem}{source}", sheet.line((*loc, "base_url")))
        endpoint["base_url"] = UNSET_URL if unset or problem else filled
        missing += unset
    if "api_key" in endpoint:
        reference = endpoint.pop("api_key")
        match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
        key = environ.get(match[1], "").strip() if match else ""
        line = sheet.line((*loc, "api_key"))
        if match is None:
            what = "'api_key' must be exactly ${NAME}; keep the key in that environment variable"
            sheet.report(loc, what, line)
        elif not key:
            missing.append(match[1])
        elif re.search(r"[^!-~]", key):
            what = f"the key in {match[1]} holds a space or a character that is not ASCII"
            sheet.report(loc, what, line)
        else:
            endpoint["api_key"] = key
            endpoint["key_name"] = match[1]
    if missing:
        endpoint["disabled"] = ", ".join(dict.fromkeys(missing))


def _address_problem(url: str) -> str | None:
    """Return what is wrong with an endpoint's address, without the address, or None."""
    if not url.startswith(("http://", "https://")):
        return "must start with http:// or https://"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or re.search(r"[^!-~]", url):
        return "is not an address, such as https://api.example.com/v1"
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password; a key goes into api_key"
    return None


def _validate(sheet: Sheet) -> Catalog:
    """Return the catalog. Raises `CatalogError` with this and every earlier problem."""
    try:
        catalog = Catalog.model_validate(sheet.data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    else:
        if not sheet.problems:
            return catalog
        details = []
    # Raised out here, so that pydantic's error, which holds the values, is not chained to it.
    for detail in details:
        if detail["type"] == "too_short" and detail["input"]:
            continue  # it has items, but each of them has a problem of its own
        if not detail["loc"] and sheet.problems:
            continue  # how names fit together was told by `check_names`, with lines
        owner, what = _told(detail)
        sheet.report(owner, what, sheet.line(detail["loc"]))
    raise sheet.error()


def _told(detail: ErrorDetails) -> tuple[Loc, str]:
    """Return where in the catalog pydantic found something, and what, in plain words."""
    loc, error, value = detail["loc"], detail["type"], detail["input"]
    context = detail.get("ctx", {})
    kind: object = Catalog
    for step in loc:
        kind = kind_at(kind, step)
    if error == "value_error":
        return loc, str(context["error"])
    if error == "literal_error" and isinstance(value, str):
        near = suggestion(value, map(str, get_args(bare(kind))))
        if isinstance(loc[-1], int):
            return loc[:-2], f"{loc[-2]!r}, item {loc[-1] + 1}: unknown {value!r}{near}"
        return loc[:-1], f"unknown {loc[-1]} {value!r}{near}"
    template = _PLAIN_WORDS.get(error)
    words = template.format(**context) if template else detail["msg"]
    # A value of an endpoint may be a key in the wrong place, and so may text instead of a mapping.
    if isinstance(value, str) and value and "endpoints" not in loc and template not in _SHAPES:
        words += f" (it is {value[:40]!r})"
    if error != "missing" and isinstance(kind, type) and issubclass(kind, BaseModel):
        return loc, words
    if isinstance(loc[-1], int):
        return loc[:-2], f"{loc[-2]!r}, item {loc[-1] + 1} {words}"
    return loc[:-1], f"{loc[-1]!r} {words}"
