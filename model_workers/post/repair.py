"""JSON as models write it, made JSON: and refused wherever that would be a guess.

What is repaired: a code fence or text around one value, comments, trailing commas, single quotes,
names without quotes as keys, Python's `True`, `False` and `None`, line breaks inside strings, and
brackets that are missing at the end. What is cut off inside a string, a number or an entry is
refused, as nobody can tell what it was. Numbers and strings keep their digits and letters.
"""

import json
import re
from typing import Any, Final, NoReturn

MAX_DEPTH: Final = 100

SPACE: Final = re.compile(r"(?:\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/)+", re.DOTALL)
NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*", re.ASCII)
LITERALS: Final = {
    **{"true": "true", "false": "false", "null": "null"},
    **{"True": "true", "False": "false", "None": "null"},
}
ESCAPE: Final = re.compile(r'\\(?:["\'\\/bfnrt]|u[0-9A-Fa-f]{4})')
STRING: Final = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL),
    "'": re.compile(r"'((?:[^'\\]|\\.)*)'", re.DOTALL),
}
FENCED: Final = re.compile(r"```[ \t]*(?:json[a-z5]*)?[ \t]*\n\s*(?=[\[{])", re.IGNORECASE)
SCALAR: Final = re.compile(r"\s*```[ \t]*(?:json)?[ \t]*\n([^`]*)```\s*", re.IGNORECASE)
START: Final = re.compile(r"[\[{]")
BLANK: Final = re.compile(r"\s*")
LIKE_OBJECT: Final = re.compile(r"""["'}]|//|/\*|[A-Za-z_$][A-Za-z0-9_$-]*\s*:""", re.ASCII)
LIKE_ARRAY: Final = re.compile(
    r"""["'\[{\]]|//|/\*|-?\d|(?:true|false|null|True|False|None)\b""", re.ASCII
)
CONTROL: Final = re.compile(r"[\x00-\x1f]")


class Unrepairable(ValueError):
    """There is no JSON, or it can't be told which. The message says why, without the text."""


def repaired(text: str) -> str:
    """Return the one JSON value that is in a text. What is JSON already is returned as it is.

    Raises `Unrepairable`.
    """
    if is_json(text):
        return text
    found = value_in(text)
    if not is_json(found):  # A bug here must not go out as JSON.
        raise Unrepairable("its JSON can't be repaired")
    return found


def is_json(text: str) -> bool:
    """Return whether a text is JSON as RFC 8259 has it: `NaN` is none."""
    try:
        json.loads(text, parse_constant=no_number)
    except (ValueError, RecursionError):
        return False
    return True


def no_number(constant: str) -> NoReturn:
    """Refuse NaN and the infinities."""
    raise ValueError(f"{constant} is no JSON")


def value_in(text: str) -> str:
    """Return the repaired value in a text that has one. Raises `Unrepairable`."""
    fenced = list(FENCED.finditer(text))
    if len(fenced) > 1:
        raise Unrepairable("it has more than one block of JSON")
    if fenced:
        return Reader(text, fenced[0].end()).whole()[0]
    scalar = SCALAR.fullmatch(text)
    if scalar is not None:
        return scalar[1].strip()
    found, at = "", 0
    while (start := START.search(text, at)) is not None:
        if not is_like_json(text, start.start()):
            at = start.end()  # A bracket in a sentence.
            continue
        if found:
            raise Unrepairable("it has more than one JSON value")
        found, at = Reader(text, start.start()).whole()
    if not found:
        raise Unrepairable("it has no JSON")
    return found


def is_like_json(text: str, at: int) -> bool:
    """Return whether what follows a bracket looks as in JSON: a failure is not passed over then.

    Otherwise a part of a broken value would be taken for the whole.
    """
    first = BLANK.match(text, at + 1).end()  # type: ignore[union-attr]
    like = LIKE_OBJECT if text[at] == "{" else LIKE_ARRAY
    return first == len(text) or like.match(text, first) is not None


class Reader:
    """Reads one value from `at` on, and writes it as JSON."""

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self._at = at

    def whole(self) -> tuple[str, int]:
        """Return the value as JSON, and where it ends. Raises `Unrepairable`."""
        return self._value(0), self._at

    def _value(self, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise Unrepairable("its JSON is nested too deep")
        match self._next():
            case "{":
                return self._many(depth, "}", self._member)
            case "[":
                return self._many(depth, "]", self._value)
            case '"' | "'":
                return self._string()
        if number := NUMBER.match(self._text, self._at):
            return self._number(number)
        name = NAME.match(self._text, self._at)
        if name is None or name[0] not in LITERALS:
            self._refuse("a value is expected")
        self._at = name.end()
        return LITERALS[name[0]]

    def _many(self, depth: int, end: str, one: Any) -> str:
        """Return an object or an array, whose entries `one` reads."""
        begin = self._text[self._at]
        self._at += 1
        entries: list[str] = []
        comma = True
        while (char := self._next()) != end:
            if not char:
                if comma:
                    raise Unrepairable("its JSON is cut off where more was to come")
                break  # Only the bracket is missing.
            if not comma:
                self._refuse(f"a comma or {end} is expected")
            entries.append(one(depth + 1))
            comma = self._next() == ","
            self._at += comma
        self._at += bool(char)
        return f"{begin}{', '.join(entries)}{end}"

    def _member(self, depth: int) -> str:
        """Return one `key: value` of an object."""
        if self._next() in {'"', "'"}:
            key = self._string()
        else:
            name = NAME.match(self._text, self._at)
            if name is None:
                self._refuse("a key is expected")
            self._at = name.end()
            key = f'"{name[0]}"'
        if self._next() != ":":
            self._refuse("a colon is expected")
        self._at += 1
        return f"{key}: {self._value(depth)}"

    def _string(self) -> str:
        quote = self._text[self._at]
        found = STRING[quote].match(self._text, self._at)
        if found is None:
            raise Unrepairable("its JSON is cut off in a string")
        self._at = found.end()
        inside = found[1]
        if inside.count("\\") and "\\" in ESCAPE.sub("", inside):
            raise Unrepairable("its JSON has an escape in a string that is none")
        if quote == "'":
            inside = re.sub(r"""\\(.)|(")""", single, inside, flags=re.DOTALL)
        else:
            inside = re.sub(r"\\(.)", double, inside, flags=re.DOTALL)
        return '"' + CONTROL.sub(lambda char: json.dumps(char[0])[1:-1], inside) + '"'

    def _number(self, number: re.Match[str]) -> str:
        self._at = number.end()
        after = self._text[self._at : self._at + 1]
        if not after:
            raise Unrepairable("its JSON is cut off in a number")
        if after.isalnum() or after in "._+-":
            self._refuse("a number is expected")
        return number[0]

    def _next(self) -> str:
        """Return the next character that is neither white space nor a comment, '' at the end."""
        if space := SPACE.match(self._text, self._at):
            self._at = space.end()
        return self._text[self._at : self._at + 1]

    def _refuse(self, what: str) -> NoReturn:
        if not self._next():
            raise Unrepairable("its JSON is cut off inside an entry")
        raise Unrepairable(f"its JSON breaks at character {self._at + 1}: {what}")


def single(found: re.Match[str]) -> str:
    """Return an escape or a double quote of a single-quoted string as JSON has it."""
    if found[2]:
        return '\\"'
    return double(found)


def double(found: re.Match[str]) -> str:
    """Return an escape as JSON has it, which knows none for the single quote."""
    return "'" if found[1] == "'" else found[0]
