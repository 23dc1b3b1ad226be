"""From a file's bytes to plain text: one pure function for each kind of document."""

import codecs
import io
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector
from bs4.element import NavigableString, PreformattedString, Tag

from modelyard.errors import ModelyardError

MAX_PDF_PAGES: Final = 5_000
MAX_PDF_CHARACTERS: Final = 20_000_000


class NoText(ModelyardError):
    """The bytes are no readable text. The message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Content:
    """The text of a document, with `\\n` line ends, and its title if it has one."""

    text: str
    title: str | None = None


def plain(data: bytes) -> Content:
    """Return the content of a text file. Raises `NoText`."""
    return _content(_decode(data))


def markdown(data: bytes) -> Content:
    """Return Markdown without front matter, code fences and link targets. Raises `NoText`."""
    text = _decode(data)
    front = _FRONT_MATTER.match(text)
    title = _FRONT_TITLE.search(front.group()) if front else None
    body = text[front.end() :] if front else text
    title = title or _HEADING.search(body)
    # Code goes out as it is: what looks like a link in it is none.
    pieces = [piece if code else _without_links(piece) for code, piece in _code_and_prose(body)]
    return _content("".join(pieces), title.group(1).rstrip("# ").strip("\"' ") if title else None)


def html(data: bytes) -> Content:
    """Return what a page says, without scripts, styles, navigation and templates.

    Headings and paragraphs are set apart by blank lines. Raises `NoText`.
    """
    # An XML declaration tells nothing here, and Beautiful Soup warns of it. The line ends keep
    # a page without tags from being taken for a file name, which it warns of as well.
    markup = _XML_DECLARATION.sub("", _decode(data, declared=_html_charset(data)))
    soup = BeautifulSoup(f"\n{markup}\n", "html.parser")
    title = (soup.head or soup).find("title") or soup.find("h1")
    raw = "".join(_html_pieces(soup))
    paragraphs = (
        "\n".join(" ".join(line.split()) for line in paragraph.split(_LINE)).strip()
        for paragraph in raw.split(_PARAGRAPH)
    )
    text = "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
    return _content(text, title.get_text(" ") if title else None)


def pdf(data: bytes) -> Content:
    """Return the text layer of a PDF, its pages apart by blank lines. Raises `NoText`."""
    # Only who reads a PDF pays for the import.
    import pypdf  # noqa: PLC0415
    from pypdf.errors import DependencyError  # noqa: PLC0415

    if not data.strip():
        raise NoText(_EMPTY)
    # pypdf logs each oddity of each file; what matters comes out as an error.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = pypdf.PdfReader(io.BytesIO(data), strict=False)
        # Many PDFs are encrypted with an empty password, only to forbid printing.
        if reader.is_encrypted and not reader.decrypt(""):
            raise NoText("it is encrypted: remove its password, e.g. qpdf --decrypt --password=...")
        count = len(reader.pages)
        if count > MAX_PDF_PAGES:
            raise NoText(f"it has {count} pages, more than {MAX_PDF_PAGES}: split it")
        pages: list[str] = []
        length = 0
        for page in reader.pages:
            pages.append(page.extract_text())
            length += len(pages[-1])
            if length > MAX_PDF_CHARACTERS:
                raise NoText(f"it has more than {MAX_PDF_CHARACTERS:,} characters: split it")
        about = reader.metadata
        title = about.title if about else None
    except NoText:
        raise
    except DependencyError as error:
        raise NoText(
            f"it is encrypted, and reading it needs more: pip install 'pypdf[crypto]' ({error})"
        ) from error
    except Exception as error:
        # Its documentation says that broken files may cause any exception.
        raise NoText(
            "it is not a PDF, or a broken one: open it in a viewer and save it anew "
            f"({type(error).__name__}: {error})"
        ) from error
    # Many writers put a line of one space between paragraphs.
    text = "\n".join(line.rstrip() for line in "\n\n".join(pages).split("\n"))
    return _content(text, title, empty="no text in it: a scan needs OCR first")


READERS: Final[Mapping[str, Callable[[bytes], Content]]] = {
    ".txt": plain,
    ".md": markdown,
    ".html": html,
    ".htm": html,
    ".pdf": pdf,
}
"""How each kind is read, by the ending of its name in lower case."""

_EMPTY = "it is empty: there is nothing to summarize"

# The longer marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\b\t\n\v\f\r\x1b")) + b"\x7f"
_MAX_CONTROL_RATIO = 0.02
# Escape sequences and the like must not reach a terminal from someone's document.
_DROPPED = {i: None for i in (*range(32), *range(127, 160)) if chr(i) not in "\t\n"}

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?=[\w-]+[ \t]*:)(?:(?!---|\.\.\.).*\n)*(?:---|\.\.\.).*\n")
_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6}[ \t]+([^\s#].*)$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_INLINE_LINK = re.compile(r"!?\[([^\[\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_REFERENCE_LINK = re.compile(r"!?\[([^\[\]\n]+)\]\[[^\[\]\n]*\]")
# Only what looks like an address: `[Anna]: Yes.` is a line of a transcript.
_LINK_TARGET = re.compile(
    r"^ {0,3}\[[^\[\]\n]+\]:[ \t]+[^\s/#]*[/#]\S*(?:[ \t]+[\"'(].*)?$", re.MULTILINE
)

_XML_DECLARATION = re.compile(r"<\?xml[^<>]*>", re.IGNORECASE)
_SKIPPED_TAGS = frozenset({"script", "style", "nav", "template", "noscript", "title"})
_PARAGRAPH_TAGS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog"}
    | {"div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3"}
    | {"h4", "h5", "h6", "header", "hr", "main", "ol", "p", "pre", "section", "summary", "table"}
    | {"ul"}
)
_LINE_TAGS = frozenset({"br", "caption", "li", "option", "tr"})
# Neither occurs in a page's strings: `_normal` lets no control character through.
_PARAGRAPH, _LINE = "\x00", "\x01"


def _content(text: str, title: str | None = None, *, empty: str = _EMPTY) -> Content:
    text = _normal(text).strip()
    if not text:
        raise NoText(empty)
    return Content(text, " ".join(_normal(title or "").split()) or None)


def _normal(text: str) -> str:
    """Return text with one kind of line end, no control characters and no half surrogates."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\v", "\n")
    clean = lines.translate(_DROPPED)
    # Some PDFs spell an emoji as two halves, which no JSON could carry.
    return clean.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _decode(data: bytes, *, declared: str | None = None) -> str:
    """Return the text of bytes that are UTF-8, marked UTF-16 or 32, or in `declared`'s encoding."""
    mark, encoding = next((pair for pair in _MARKS if data.startswith(pair[0])), (b"", "utf-8"))
    if encoding == "utf-8":
        if b"\0" in data:
            raise NoText(
                f"it is binary, not text: a NUL byte at offset {data.index(0)} (if it is UTF-16 "
                "without a byte order mark: iconv -f utf-16le -t utf-8 FILE > NEW)"
            )
        controls = len(data) - len(data.translate(None, _CONTROLS))
        if controls > len(data) * _MAX_CONTROL_RATIO:
            raise NoText(
                f"it is binary, not text: {controls} of its {len(data)} bytes are control "
                "characters; give the file that it was made from"
            )
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        other = _decode_as(data, declared) if declared is not None else None
        if other is not None:
            return _normal(other)
        raise NoText(
            f"it is not {encoding.upper()} at byte offset {error.start + len(mark)}: convert it, "
            "e.g. iconv -f latin1 -t utf-8 FILE > NEW"
        ) from error
    return _normal(text)


def _decode_as(data: bytes, declared: str) -> str | None:
    try:
        # Pages that say Latin-1 mean Windows-1252: https://encoding.spec.whatwg.org/#names-and-labels
        if codecs.lookup(declared).name in ("iso8859-1", "ascii"):
            declared = "cp1252"
        return data.decode(declared)
    except (LookupError, UnicodeError):
        return None  # the caller says where UTF-8 failed, which is what can be acted on


def _html_charset(data: bytes) -> str | None:
    return EncodingDetector.find_declared_encoding(data, is_html=True)


def _html_pieces(soup: BeautifulSoup) -> Iterator[str]:
    """Yield strings and breaks in the page's order, without recursion: pages may nest deeply."""
    open_tags: list[Tag] = [soup]
    skipped = preformatted = 0
    for node in soup.descendants:
        while node.parent is not open_tags[-1]:
            closed = open_tags.pop()
            skipped -= closed.name in _SKIPPED_TAGS
            preformatted -= closed.name == "pre"
            yield _break(closed.name, ends=True)
        if isinstance(node, Tag):
            open_tags.append(node)
            skipped += node.name in _SKIPPED_TAGS
            preformatted += node.name == "pre"
            yield _break(node.name)
        elif not skipped and isinstance(node, NavigableString) and not _is_markup(node):
            # Again, because character references bring in what `_decode` took out.
            text = _normal(node)
            yield text.replace("\n", _LINE) if preformatted else text


def _is_markup(string: NavigableString) -> bool:
    """Tell comments, doctypes and the like from what is to be read."""
    return isinstance(string, PreformattedString)


def _break(tag: str, *, ends: bool = False) -> str:
    if tag in _PARAGRAPH_TAGS:
        return _PARAGRAPH
    if tag in _LINE_TAGS:
        # Only at its start, so that rows stay together and two <br> make a paragraph.
        return "" if ends else _LINE
    return " " if tag in ("td", "th") else ""


def _code_and_prose(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the text in pieces, True with those from code blocks, without the fences."""
    fence = ""
    prose: list[str] = []
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence = mark.group(1)
            yield False, "".join(prose)
            prose = []
        elif fence and mark and mark.group(1).startswith(fence):
            fence = ""
        elif fence:
            yield True, line
        else:
            prose.append(line)
    yield False, "".join(prose)


def _without_links(text: str) -> str:
    text = _LINK_TARGET.sub("", text)
    for _ in range(2):  # twice, for an image inside a link
        text = _INLINE_LINK.sub(r"\1", text)
    return _REFERENCE_LINK.sub(r"\1", text)
