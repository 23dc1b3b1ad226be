"""The small language of `Accept.expression`: conditions on an answer, in a subset of Python.

```
finish_reason == "stop" and len(text) > 20
not contains(lower(text), "i don't know")
json["total"] >= 0 and json.get("currency", "EUR") in ("EUR", "USD")
```

Names: `text`, `finish_reason`, `output_tokens`, `confidence`, `json` (the text's JSON value).
Operators: comparisons, `in`, `is None`, `and`, `or`, `not`, and `+ - * / // %` of numbers.
Functions: `len`, `lower`, `contains`, `startswith`, `endswith`, `matches` (a regular expression in
RE2's syntax, found anywhere). Of JSON: `[key]`, `[index]`, `.get(key, default)`.

Python's `ast` parses, and nothing of Python runs: each node that is known becomes a function of
ours (`modelyard.expression_terms`), and any other is refused when the catalog is loaded.
"""

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from modelyard.expression_terms import CannotTell, Reading, Term

MAX_CHARS: Final = 2_000
MAX_DEPTH: Final = 30


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition that was parsed. `names` are those whose values it needs."""

    source: str
    names: frozenset[str]
    clauses: tuple[Term, ...]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether it is true of these values, by name; what can't be told is not."""
        return not self.why_not(values)

    def why_not(self, values: Mapping[str, Any]) -> str:
        """Return '' if it holds, else which part does not, without anything of the values."""
        try:
            for clause in self.clauses:
                if not clause.evaluate(values):
                    return f"{clause.shown} does not hold"
        except CannotTell as error:
            return str(error)
        except (RecursionError, ValueError) as error:
            # JSON that is nested very deep, or text that is no Unicode.
            return f"can't be told: {type(error).__name__}"
        return ""


@lru_cache(maxsize=256)
def parse(source: str) -> Expression:
    """Return the condition that `source` says.

    Raises `ValueError` that says what is wrong, and where.
    """
    if len(source) > MAX_CHARS:
        raise ValueError(f"it has {len(source):,} characters, {MAX_CHARS:,} are allowed")
    if not source.strip():
        raise ValueError("it is empty: write a condition such as len(text) > 20")
    # In parentheses it may have several lines; on lines of its own it moves no column.
    wrapped = f"(\n{source}\n)"
    read = Reading(wrapped)
    with warnings.catch_warnings():
        # "\d" is what people write in a pattern, and it means what they mean.
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(wrapped, mode="eval").body
        except SyntaxError as error:
            at = read.place((error.lineno or 2), (error.offset or 1) - 1)
            raise ValueError(f"{at}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"it can't be parsed: {error or type(error).__name__}") from None
    check_depth(tree)
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    clauses = tuple(map(read.term, parts))
    for clause, part in zip(clauses, parts, strict=True):
        if clause.kind not in {"condition", ""}:
            read.refuse(part, "is no condition: compare it with something")
    return Expression(source, frozenset(read.names), clauses)


def check_depth(tree: ast.expr) -> None:
    """Raise `ValueError` if it is nested so deep that reading it could exhaust the stack."""
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [part for node in level for part in ast.iter_child_nodes(node)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
