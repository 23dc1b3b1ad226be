"""LiteLLM's config file: YAML in, plain values and the lines where they stand out.

The file is a stranger's. It is composed to nodes first, and only if these have no tags but YAML's
own, are not too deep and, with aliases written out, not too many, they become values. What it
says is never part of a message: it holds keys.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml
from yaml.reader import ReaderError

from producer.output import UsageError

MAX_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 40
MAX_VALUES: Final = 100_000
"""Aliases (`*name`) can make a small file huge, or endless: both limits stop that."""

Loc: TypeAlias = tuple[str | int, ...]
"""Keys and positions from the top of the file down to a value."""

_YAML: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(
    _YAML + name
    for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value", "merge")
)


@dataclass
class ConfigFile:
    """The values of the file, and the line of each."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: dict[Loc, int] = field(default_factory=dict)
    doubled: list[Loc] = field(default_factory=list)
    """Keys that are given twice: the last one counts, as it does in LiteLLM."""
    values: int = 0
    """How many there are, with aliases written out."""

    def line(self, loc: Loc) -> int:
        """Return the line of the value at `loc`, or of the nearest one around it."""
        while loc and loc not in self.lines:
            loc = loc[:-1]
        return self.lines.get(loc, 1)

    def error(self, line: int, what: str) -> UsageError:
        """Return the error for something on that line."""
        return UsageError(f"{self.name}:{line}: {what}")


def where(loc: Loc) -> str:
    """Return a place as `model_list[0].litellm_params.model`."""
    words = ""
    for step in loc:
        words += f"[{step}]" if isinstance(step, int) else f".{shown(step)}"
    return words.removeprefix(".")


def shown(key: str) -> str:
    """Return a key as it may be told.

    `{api_key:secret}` without a space is one key: what follows the colon stays untold.
    """
    told = re.sub(r"[:=].*", "...", key, flags=re.DOTALL)[:60]
    return "".join(letter if letter.isprintable() else "?" for letter in told)


def read_config(path: Path) -> ConfigFile:
    """Read the file at `path`. Raises `UsageError` with the line of what is wrong."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}") from error
    return parse_config(content, str(path))


def parse_config(content: bytes, name: str) -> ConfigFile:
    """Return what the bytes of a file that is called `name` say. Raises `UsageError`."""
    config = ConfigFile(name)
    if len(content) > MAX_BYTES:
        raise config.error(1, f"more than {MAX_BYTES} bytes; is it a config of LiteLLM?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise config.error(line, "not UTF-8; save the file as UTF-8") from error
    try:
        loader = _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise config.error(line, "not valid YAML: a control character") from error
    # Errors of YAML quote the lines around the mistake: only their own words are told, and they
    # are not chained.
    try:
        root = loader.get_single_node()
        if root is not None:
            _walk(root, (), config)
        values = None if root is None else loader.construct_document(root)
        problem = None
    except UsageError:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line if mark else loader.line
        said = re.sub(r" (['\"]).{5,}\1", "", error.problem or "", flags=re.DOTALL)
        problem = config.error(line + 1, f"not valid YAML: {said}")
    except (ValueError, OverflowError, TypeError):
        problem = config.error(loader.line + 1, "not valid YAML: a value that YAML does not know")
    if problem is not None:
        raise problem
    if not isinstance(values, dict):
        raise config.error(1, "must be a mapping with model_list; is it a config of LiteLLM?")
    config.data = values
    return config


class _Loader(yaml.SafeLoader):
    """Composes nodes no deeper than a config can be: composing is recursive."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if parent is not None and self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, "nested too deeply", parent.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _walk(node: yaml.Node, loc: Loc, config: ConfigFile, below: int = 0) -> None:
    """Note the lines of `node` and all below it. Raises `UsageError` for what is refused."""
    line = node.start_mark.line + 1
    config.lines[loc] = line
    config.values += 1
    if below > MAX_DEPTH or config.values > MAX_VALUES:
        raise config.error(line, "nested too deeply or too large; does an alias hold itself?")
    if node.tag not in _TAGS:
        raise config.error(line, "tags (!name) are not supported: write plain values")
    if isinstance(node, yaml.ScalarNode):
        # A quoted "\ud800" is half of a letter, and no file can hold it.
        if not node.value.isascii() and any("\ud800" <= each <= "\udfff" for each in node.value):
            raise config.error(line, "an escape that stands for no character")
        return
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*loc, index), config, below + 1)
        return
    keys = set()
    for position, (key, value) in enumerate(node.value):
        if not isinstance(key, yaml.ScalarNode):
            raise config.error(key.start_mark.line + 1, "a key must be a plain word")
        # Merged mappings count as often as they are merged.
        merged = key.tag == _YAML + "merge"
        here = (*loc, key.value, position) if merged else (*loc, key.value)
        if here in keys:
            config.doubled.append(here)
        keys.add(here)
        _walk(key, (*here, ""), config, below + 1)
        _walk(value, here, config, below + 1)
        config.lines[here] = key.start_mark.line + 1
