"""What each node of an expression means: the functions that `modelyard.expression` is made of.

No result is larger than what went in: text is never put together, and numbers are bounded.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

MAX_NUMBER: Final = 2**63
"""No arithmetic beyond this: Python's integers would grow without a bound."""
SHOWN_CHARS: Final = 60

Evaluate = Callable[[Mapping[str, Any]], Any]
Meaning = tuple[str, Evaluate]
"""What a node gives ('' if that depends on the answer), and how."""


class CannotTell(Exception):
    """A part has no value for this answer. The message has nothing of the answer in it."""


@dataclass(frozen=True, slots=True)
class Term:
    """One node: how it is written, what it gives, and how."""

    shown: str
    kind: str
    evaluate: Evaluate

    def fail(self, what: str) -> NoReturn:
        """Say that this has no value, and why."""
        raise CannotTell(f"{self.shown} {what}")


class Reading:
    """The reading of one source, whose first and last lines are a parenthesis.

    `names` are those that were read.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._one_line = source.count("\n") == 2
        self.names: set[str] = set()

    def term(self, node: ast.expr) -> Term:
        """Return what a node means. Raises `ValueError`."""
        mean = NODES.get(type(node))
        if mean is None:
            self.refuse(node, "is not allowed here")
        kind, evaluate = mean(node, self)
        return Term(self.shown(node), kind, evaluate)

    def refuse(self, node: ast.expr, what: str) -> NoReturn:
        """Raise the `ValueError` of a node that may not be there."""
        raise ValueError(f"{self.place(node.lineno, node.col_offset)}: {self.shown(node)} {what}")

    def shown(self, node: ast.expr) -> str:
        """Return how a node is written, in short."""
        text = " ".join((ast.get_source_segment(self._source, node) or "").split())
        return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 3]}..."

    def place(self, line: int, column: int) -> str:
        """Return where something is in what was written, for people."""
        return f"column {column + 1}" if self._one_line else f"line {line - 1}, column {column + 1}"


def constant(node: ast.Constant, read: Reading) -> Meaning:
    value = node.value
    if isinstance(value, bool) or value is None:
        return ("condition" if isinstance(value, bool) else ""), lambda _: value
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            read.refuse(node, "is too large a number")
        return "number", lambda _: value
    if isinstance(value, str):
        return "text", lambda _: value
    return read.refuse(node, "is neither text nor a number")


def name(node: ast.Name, read: Reading) -> Meaning:
    read.names.add(node.id)
    if node.id not in NAMES:
        read.refuse(node, f"is unknown: there are {', '.join(NAMES)}")

    def evaluate(values: Mapping[str, Any]) -> Any:
        if node.id not in values:
            raise CannotTell(f"{node.id} is not there")
        return values[node.id]

    return NAMES[node.id], evaluate


def several(node: ast.Tuple | ast.List, read: Reading) -> Meaning:
    terms = [read.term(part) for part in node.elts]
    return "list", lambda values: [term.evaluate(values) for term in terms]


def connected(node: ast.BoolOp, read: Reading) -> Meaning:
    terms = [read.term(part) for part in node.values]
    connect = all if isinstance(node.op, ast.And) else any
    return "condition", lambda values: connect(bool(term.evaluate(values)) for term in terms)


def signed(node: ast.UnaryOp, read: Reading) -> Meaning:
    term = read.term(node.operand)
    if isinstance(node.op, ast.Not):
        return "condition", lambda values: not term.evaluate(values)
    if not isinstance(node.op, ast.USub | ast.UAdd):
        read.refuse(node, "is not allowed here")
    sign = -1 if isinstance(node.op, ast.USub) else 1
    return "number", lambda values: sign * number(term, values)


def calculated(node: ast.BinOp, read: Reading) -> Meaning:
    act = ARITHMETIC.get(type(node.op))
    if act is None:
        read.refuse(node, "is not allowed here: of numbers there are + - * / // %")
    left, right = read.term(node.left), read.term(node.right)
    for term in (left, right):
        if term.kind not in {"number", ""}:
            read.refuse(node, f"is about numbers, and {term.shown} is none")

    def evaluate(values: Mapping[str, Any]) -> Any:
        one, two = number(left, values), number(right, values)
        try:
            return bounded(act(one, two), left)
        except ZeroDivisionError:
            right.fail("is 0")

    return "number", evaluate


def number(term: Term, values: Mapping[str, Any]) -> int | float:
    """Return the term's value. Raises `CannotTell` if it is no number that we calculate with."""
    value = term.evaluate(values)
    if isinstance(value, bool) or not isinstance(value, int | float):
        term.fail(f"is {kind_of(value)} and no number")
    return bounded(value, term)


def bounded(value: int | float, term: Term) -> int | float:
    # `not <=` and not `>`: it must be true of NaN.
    if not abs(value) <= MAX_NUMBER:
        term.fail("leads to too large a number")
    return value


def compared(node: ast.Compare, read: Reading) -> Meaning:
    terms = [read.term(part) for part in (node.left, *node.comparators)]
    steps = []
    for left, op, right in zip(terms, node.ops, terms[1:], strict=False):
        if isinstance(op, ast.Is | ast.IsNot):
            if right.shown != "None":
                read.refuse(node, "is not allowed here: `is` is for None, write ==")
        elif type(op) in ORDERS and "" not in {left.kind, right.kind} and left.kind != right.kind:
            read.refuse(node, f"compares {left.kind} with {right.kind}")
        steps.append((left, COMPARISONS[type(op)], right))

    def evaluate(values: Mapping[str, Any]) -> bool:
        return all(holds(left, right, values) for left, holds, right in steps)

    return "condition", evaluate


def ordered(act: Callable[[Any, Any], bool]) -> "Comparison":
    """Return the comparison of two numbers, or of two texts."""

    def holds(left: Term, right: Term, values: Mapping[str, Any]) -> bool:
        one, two = left.evaluate(values), right.evaluate(values)
        for term, value in ((left, one), (right, two)):
            if isinstance(value, bool) or not isinstance(value, int | float | str):
                term.fail(f"is {kind_of(value)} and can't be compared")
        if isinstance(one, str) != isinstance(two, str):
            left.fail(f"is {kind_of(one)} and {right.shown} is {kind_of(two)}")
        return act(one, two)

    return holds


def same(one: Any, two: Any) -> bool:
    """Return whether two values are equal; unlike in Python, True is not 1."""
    return isinstance(one, bool) == isinstance(two, bool) and bool(one == two)


def contained(left: Term, right: Term, values: Mapping[str, Any]) -> bool:
    one, two = left.evaluate(values), right.evaluate(values)
    if isinstance(two, list):
        return any(same(one, each) for each in two)
    if isinstance(two, dict):
        return isinstance(one, str) and one in two
    if not isinstance(two, str):
        right.fail(f"is {kind_of(two)} and has nothing in it")
    if not isinstance(one, str):
        left.fail(f"is {kind_of(one)} and no text")
    return one in two


def item(node: ast.Subscript, read: Reading) -> Meaning:
    if isinstance(node.slice, ast.Slice):
        read.refuse(node, "is not allowed here: only one key or index")
    whole, key = read.term(node.value), read.term(node.slice)
    if whole.kind:
        read.refuse(node, "is not allowed here: only JSON has keys and indexes")

    def evaluate(values: Mapping[str, Any]) -> Any:
        of, at = whole.evaluate(values), key.evaluate(values)
        if not isinstance(of, dict | list):
            whole.fail(f"is {kind_of(of)} and has nothing in it")
        wanted = str if isinstance(of, dict) else int
        if isinstance(at, bool) or not isinstance(at, wanted):
            whole.fail(f"is {kind_of(of)}, and {key.shown} is {kind_of(at)}")
        try:
            return of[at]  # type: ignore[index]
        except LookupError:
            whole.fail(f"has no {key.shown}")

    return "", evaluate


def call(node: ast.Call, read: Reading) -> Meaning:
    if node.keywords or any(isinstance(part, ast.Starred) for part in node.args):
        read.refuse(node, "is not allowed here: only arguments in their order")
    # The one method: it is ours, nothing is looked up on the value.
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return got(node, read)
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
        read.refuse(node, f"is no call of {', '.join(FUNCTIONS)} or .get")
    function = node.func.id
    terms = [read.term(part) for part in node.args]
    kind, count, act = FUNCTIONS[function]
    if len(terms) != count:
        read.refuse(node, f"must have {count} argument{'s' * (count > 1)}")
    for term in terms:
        if term.kind not in {"", "text"} and not (function == "len" and term.kind == "list"):
            read.refuse(node, f"is about text, and {term.shown} is none")
    if function == "matches":
        return kind, matching(node, terms[0], read)

    def evaluate(values: Mapping[str, Any]) -> Any:
        given = [term.evaluate(values) for term in terms]
        for term, value in zip(terms, given, strict=True):
            if not isinstance(value, str) and not (
                function == "len" and isinstance(value, list | dict)
            ):
                term.fail(f"is {kind_of(value)} and no text")
        return act(*given)

    return kind, evaluate


def got(node: ast.Call, read: Reading) -> Meaning:
    assert isinstance(node.func, ast.Attribute)
    whole, terms = read.term(node.func.value), [read.term(part) for part in node.args]
    if not 1 <= len(terms) <= 2 or whole.kind:
        read.refuse(node, "is not allowed here: write json.get(key) or json.get(key, default)")

    def evaluate(values: Mapping[str, Any]) -> Any:
        of, at, *default = whole.evaluate(values), *(term.evaluate(values) for term in terms)
        if of is not None and not isinstance(of, dict):
            whole.fail(f"is {kind_of(of)} and has no keys")
        if of is None or not isinstance(at, str) or at not in of:
            return default[0] if default else None
        return of[at]

    return "", evaluate


def matching(node: ast.Call, term: Term, read: Reading) -> Evaluate:
    import re2  # noqa: PLC0415 - most programs that read messages have no use for it

    pattern = node.args[1]
    if not isinstance(pattern, ast.Constant) or not isinstance(pattern.value, str):
        read.refuse(node, "must have a pattern in quotes")
    options = re2.Options()
    options.log_errors = False
    try:
        regex = re2.compile(pattern.value, options)
    except re2.error as error:
        read.refuse(node, f"has a pattern that RE2 does not know: {said(error)}")

    def evaluate(values: Mapping[str, Any]) -> bool:
        value = term.evaluate(values)
        if not isinstance(value, str):
            term.fail(f"is {kind_of(value)} and no text")
        return regex.search(value) is not None

    return evaluate


def said(error: Exception) -> str:
    """Return RE2's words, which are bytes."""
    words = error.args[0] if error.args else ""
    return words.decode(errors="replace") if isinstance(words, bytes) else str(words)


def kind_of(value: Any) -> str:
    """Return what a value is, in words."""
    for kinds, word in KINDS:
        if isinstance(value, kinds):
            return word
    return "nothing"


NAMES: Final[Mapping[str, str]] = {
    "text": "text",
    "finish_reason": "text",
    "output_tokens": "number",
    "confidence": "number",
    "json": "",
}
"""What each name holds."""

Comparison = Callable[[Term, Term, Mapping[str, Any]], bool]

KINDS: Final[tuple[tuple[Any, str], ...]] = (
    (bool, "true or false"),
    (int | float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
)
ARITHMETIC: Final[Mapping[type, Callable[[Any, Any], Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
ORDERS: Final = frozenset({ast.Lt, ast.LtE, ast.Gt, ast.GtE})
COMPARISONS: Final[Mapping[type, Comparison]] = {
    ast.Lt: ordered(operator.lt),
    ast.LtE: ordered(operator.le),
    ast.Gt: ordered(operator.gt),
    ast.GtE: ordered(operator.ge),
    ast.Eq: lambda left, right, values: same(left.evaluate(values), right.evaluate(values)),
    ast.NotEq: lambda left, right, values: not same(left.evaluate(values), right.evaluate(values)),
    ast.Is: lambda left, right, values: left.evaluate(values) is None,
    ast.IsNot: lambda left, right, values: left.evaluate(values) is not None,
    ast.In: contained,
    ast.NotIn: lambda left, right, values: not contained(left, right, values),
}
FUNCTIONS: Final[Mapping[str, tuple[str, int, Callable[..., Any]]]] = {
    "len": ("number", 1, len),
    "lower": ("text", 1, str.lower),
    "contains": ("condition", 2, operator.contains),
    "startswith": ("condition", 2, str.startswith),
    "endswith": ("condition", 2, str.endswith),
    "matches": ("condition", 2, bool),
}
"""What each function gives, how many arguments it has, and what it does with them."""
NODES: Final[Mapping[type, Callable[[Any, "Reading"], Meaning]]] = {
    ast.Constant: constant,
    ast.Name: name,
    ast.Tuple: several,
    ast.List: several,
    ast.BoolOp: connected,
    ast.UnaryOp: signed,
    ast.BinOp: calculated,
    ast.Compare: compared,
    ast.Subscript: item,
    ast.Call: call,
}
