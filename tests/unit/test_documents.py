"""Finding and reading documents: what can be used is used, and the rest is explained."""

import hashlib
import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pypdf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from producer.document_text import READERS, NoText
from producer.documents import Unreadable, UnreadableDocument, digest, find, read, real_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "documents"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file (and its folders) into the test's folder."""

    def write(name: str, content: str | bytes = "Some text.") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's folder, as the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*paths: str | Path) -> list[str]:
    """What `find` yields: paths as text, and what is unreadable as `PATH!`."""
    return [
        f"{item.path}!" if isinstance(item, Unreadable) else str(item)
        for item in find([str(path) for path in paths])
    ]


def why(path: str | Path) -> str:
    """Why nothing but one error is found at `path`."""
    [item] = find([str(path)])
    assert isinstance(item, Unreadable)
    return item.why


def refusal(path: Path, **options: int) -> str:
    """Why `read` refuses the file."""
    with pytest.raises(UnreadableDocument) as caught:
        read(path, **options)
    assert str(caught.value) == f"{path}: {caught.value.item.why}"
    return caught.value.item.why


def simple_pdf(*lines: str) -> bytes:
    """A one-page PDF, as small as they come."""
    shown = " T* ".join(f"({line}) Tj" for line in lines)
    stream = f"BT /F1 12 Tf 14 TL 50 700 Td {shown} ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out = bytearray(b"%PDF-1.4\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 6\n0000000000 65535 f \n" + table
    out += b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % start
    return bytes(out)


def encrypted_pdf(user_password: str) -> bytes:
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(simple_pdf("A secret plan.")))
    # RC4 needs no package beside pypdf.
    writer.encrypt(user_password, owner_password="owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can enter; pytest's own are for their owner only."""
    with TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path
        for locked in path.iterdir():
            locked.chmod(0o755)


@contextmanager
def nobody() -> Iterator[None]:
    """Read as a user without rights: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


class TestFind:
    def test_a_folder_gives_its_documents_sorted_files_before_folders(
        self, write: Write, here: Path
    ) -> None:
        for name in ("b.txt", "a/z.PDF", "a/b/deep.htm", "c.md", "B.html"):
            write(f"docs/{name}")
        assert found("docs") == [
            f"docs/{name}" for name in ("B.html", "b.txt", "c.md", "a/z.PDF", "a/b/deep.htm")
        ]

    def test_hidden_files_and_other_kinds_in_a_folder_are_passed_over(
        self, write: Write, here: Path
    ) -> None:
        for name in (".a.txt", ".git/b.txt", "photo.jpg", "Makefile", "good.txt"):
            write(f"docs/{name}")
        assert found("docs") == ["docs/good.txt"]

    def test_a_file_reached_twice_counts_once(self, write: Write, here: Path) -> None:
        write("docs/a.txt")
        Path("docs/link.txt").symlink_to("a.txt")
        Path("elsewhere").symlink_to("docs")
        assert found("docs/a.txt", "./docs/a.txt", "docs", "docs/*", "elsewhere") == ["docs/a.txt"]

    def test_an_error_reached_twice_counts_once(self, here: Path) -> None:
        assert found("no.txt", "no.txt") == ["no.txt!"]

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("docs/*.txt", ["docs/a.txt", "docs/b.txt"]),
            ("docs/[b-z].txt", ["docs/b.txt"]),
            ("docs/?.txt", ["docs/a.txt", "docs/b.txt"]),
            ("docs/**/*.md", ["docs/deep/c.md", "docs/deep/er/d.md"]),
            ("**/c.*", ["docs/deep/c.md"]),
            ("docs/*/c.md", ["docs/deep/c.md"]),
            ("docs/.*.txt", ["docs/.hidden.txt"]),
            ("docs/d*", ["docs/deep/c.md", "docs/deep/er/d.md"]),
        ],
    )
    def test_globs_are_expanded(
        self, write: Write, here: Path, pattern: str, expected: list[str]
    ) -> None:
        for name in ("a.txt", "b.txt", ".hidden.txt", "x.png", "deep/c.md", "deep/er/d.md"):
            write(f"docs/{name}")
        assert found(pattern) == expected

    def test_an_absolute_glob_works_too(self, write: Write, tmp_path: Path) -> None:
        path = write("docs/a.txt")
        assert found(f"{tmp_path}/d*/*.txt") == [str(path)]

    def test_a_double_star_at_the_end_is_all_below(self, write: Write, here: Path) -> None:
        write("docs/a.txt")
        write("docs/deep/b.txt")
        assert sorted(found("docs/**")) == ["docs/a.txt", "docs/deep/b.txt"]

    def test_a_file_whose_name_looks_like_a_glob_is_that_file(
        self, write: Write, here: Path
    ) -> None:
        write("notes[1].txt")
        assert found("notes[1].txt") == ["notes[1].txt"]

    def test_one_bad_path_does_not_hide_the_others(self, write: Write, here: Path) -> None:
        write("a.txt")
        write("b.txt")
        assert found("a.txt", "missing.txt", "b.txt") == ["a.txt", "missing.txt!", "b.txt"]

    def test_a_missing_file_is_explained(self, tmp_path: Path) -> None:
        assert why(tmp_path / "no.txt") == (
            "no such file or folder: check the name and the folder you are in"
        )
        assert "no such file" in why(tmp_path / "no" / "no.txt")

    def test_an_empty_folder_is_explained(self, tmp_path: Path) -> None:
        assert why(tmp_path).startswith("no documents in this folder (.txt .md .html .htm .pdf;")

    def test_a_glob_without_matches_is_explained(self, write: Write, tmp_path: Path) -> None:
        assert why(tmp_path / "*.txt").startswith("no document matches this pattern; what can be")
        write("table.csv")
        assert "(files of other kinds: 1)" in why(tmp_path / "*")

    def test_a_file_of_another_kind_is_refused_when_named(self, write: Write) -> None:
        assert why(write("letter.docx")) == (
            ".docx files can't be read: convert or rename it to one of .txt .md .html .htm .pdf"
        )
        assert "its name has no ending" in why(write("README"))

    @pytest.mark.parametrize("given", ["", "  "])
    def test_an_empty_argument_is_not_the_current_folder(
        self, write: Write, here: Path, given: str
    ) -> None:
        write("a.txt")
        assert why(given).startswith("the path is empty")

    def test_a_path_that_no_system_takes_is_explained(self) -> None:
        assert why("a\0b.txt").startswith("this is no path")
        assert why("x" * 5000 + ".txt").startswith("it can't be read: File name too long")

    def test_a_folder_that_links_to_its_parent_ends(self, write: Write, here: Path) -> None:
        write("docs/deep/a.txt")
        Path("docs/deep/up").symlink_to("..")
        Path("docs/deep/up2").symlink_to("../..")
        assert found("docs") == ["docs/deep/a.txt"]
        assert found("docs/**/*.txt") == ["docs/deep/a.txt"]

    def test_a_link_to_itself_is_explained(self, tmp_path: Path) -> None:
        loop = tmp_path / "loop.txt"
        loop.symlink_to("loop.txt")
        assert why(loop) == "it is a link that leads back to itself: remove it"
        assert why(tmp_path) == why(loop)
        assert why(tmp_path / "*.txt") == why(loop)

    def test_a_link_to_nothing_is_explained(self, tmp_path: Path) -> None:
        link = tmp_path / "link.txt"
        link.symlink_to("gone.txt")
        assert why(link) == "it is a link to something that is not there: remove it or mend it"
        assert why(tmp_path) == why(link)

    def test_a_pipe_or_device_is_not_waited_for(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe.txt"
        os.mkfifo(pipe)
        assert why(pipe) == "it is a named pipe, not a file: copy the text into a file first"
        assert why(tmp_path) == why(pipe)
        assert "it is a device" in why("/dev/null")

    def test_a_locked_folder_is_explained(self, open_path: Path) -> None:
        (open_path / "locked").mkdir(mode=0)
        with nobody():
            assert why(open_path).startswith("permission denied")

    def test_finding_starts_before_all_is_listed(self, write: Write, here: Path) -> None:
        write("a.txt")
        assert next(find(["a.txt", "/"])) == Path("a.txt")


class TestRead:
    def test_a_text_file_is_its_text(self, write: Write) -> None:
        path = write("a.txt", "One.\r\nTwo.\rThree.\n")
        document = read(path)
        assert document.path == str(path)
        assert document.text == "One.\nTwo.\nThree."
        assert document.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert document.title is None

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    def test_unicode_with_its_mark_is_read(self, write: Write, encoding: str) -> None:
        assert read(write("a.txt", "Grüße, 東京 🙂".encode(encoding))).text == "Grüße, 東京 🙂"

    def test_big_endian_utf_16_is_read(self, write: Write) -> None:
        assert read(write("a.txt", "\ufeffGrüße".encode("utf-16-be"))).text == "Grüße"

    def test_latin_1_is_refused_with_the_place_and_the_way_out(self, write: Write) -> None:
        assert refusal(write("a.txt", "Grüße".encode("latin-1"))) == (
            "it is not UTF-8 at byte offset 2: convert it, e.g. iconv -f latin1 -t utf-8 FILE > NEW"
        )

    def test_a_cut_off_utf_16_file_is_refused(self, write: Write) -> None:
        assert "not UTF-16-LE at byte offset 6" in refusal(write("a.txt", b"\xff\xfea\0b\0c"))

    @pytest.mark.parametrize("kind", ["txt", "md", "html", "pdf"])
    @pytest.mark.parametrize("content", [b"", b" \n\t \r\n"])
    def test_an_empty_file_is_refused(self, write: Write, kind: str, content: bytes) -> None:
        assert refusal(write(f"a.{kind}", content)).startswith("it is empty")

    def test_a_page_without_words_is_empty(self, write: Write) -> None:
        page = "<html><script>var x = 1</script><p> &nbsp; </p></html>"
        assert refusal(write("a.html", page)).startswith("it is empty")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"PK\x03\x04\0\0zip", "a NUL byte at offset 4"),
            (random.Random(7).randbytes(400).replace(b"\0", b"\1"), "control characters"),
            ("plain UTF-16".encode("utf-16-le"), "iconv -f utf-16le"),
        ],
    )
    def test_binary_data_is_refused(self, write: Write, content: bytes, said: str) -> None:
        reason = refusal(write("a.txt", content))
        assert reason.startswith("it is binary, not text")
        assert said in reason

    def test_a_stray_control_character_is_only_dropped(self, write: Write) -> None:
        text = "A log line \x1b[31min red\x1b[0m and a bell \x07. " + "More text. " * 20
        assert read(write("a.txt", text)).text.startswith("A log line [31min red[0m and a bell .")

    def test_a_large_file_is_refused_before_it_is_read(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write("a.txt", "")
        os.truncate(path, 50 * 1024 * 1024)

        def no_open(*_: object, **__: object) -> None:
            raise AssertionError("it was opened")

        monkeypatch.setattr(Path, "open", no_open)
        assert refusal(path).startswith("it has 50 MiB, more than the 20 MiB")

    def test_the_limit_itself_is_allowed(self, write: Write) -> None:
        path = write("a.txt", "12345678")
        assert read(path, max_bytes=8).text == "12345678"
        assert "more than" in refusal(path, max_bytes=7)

    def test_what_is_no_file_is_refused(self, tmp_path: Path) -> None:
        pipe, folder, loop = (tmp_path / f"{name}.txt" for name in ("pipe", "folder", "loop"))
        os.mkfifo(pipe)
        folder.mkdir()
        loop.symlink_to(loop.name)
        assert "a named pipe" in refusal(pipe)
        assert "a folder" in refusal(folder)
        assert "leads back to itself" in refusal(loop)
        assert "no such file" in refusal(tmp_path / "missing.txt")
        assert "can't be read" in refusal(tmp_path / "letter.docx")

    def test_a_locked_file_is_refused(self, open_path: Path) -> None:
        path = open_path / "a.txt"
        path.write_text("One.")
        path.chmod(0)
        with nobody():
            assert refusal(path).startswith("permission denied: make it readable")

    def test_permission_denied_says_what_to_do(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def denied(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        path = write("a.txt")
        monkeypatch.setattr(Path, "open", denied)
        assert refusal(path).startswith("permission denied: make it readable (chmod u+r)")

    def test_a_name_that_is_not_utf_8_gives_a_path_that_can_be_encoded(
        self, tmp_path: Path
    ) -> None:
        name = os.fsdecode(b"caf\xe9.txt")
        (tmp_path / name).write_text("Open at nine.")
        [path] = find([str(tmp_path)])
        assert isinstance(path, Path)
        assert read(path).path == f"{tmp_path}/caf\\xe9.txt"


class TestHtml:
    def test_a_page_becomes_paragraphs(self, write: Write) -> None:
        document = read(
            write(
                "a.html",
                """<!DOCTYPE html><html><head><title> The
                launch </title><style>p {color: red}</style></head><body>
                <nav><a href="/">Home</a></nav><!-- a comment -->
                <h1>Launch <em>day</em></h1><p>It went
                well.<p>Nobody noticed.<br>Almost.</p>
                <ul><li>First</li><li>Second</li></ul>
                <template><p>Never shown</p></template>
                <script>alert("no")</script>Caf&eacute; &amp; bar
                <table><tr><th>Day</th><td>Monday</td></tr><tr><td>Hour</td><td>9</td></tr></table>
                </body></html>""",
            )
        )
        assert document.title == "The launch"
        assert document.text.split("\n\n") == [
            "Launch day",
            "It went well.",
            "Nobody noticed.\nAlmost.",
            "First\nSecond",
            "Café & bar",
            "Day Monday\nHour 9",
        ]

    def test_preformatted_text_keeps_its_lines(self, write: Write) -> None:
        page = "<p>Run:</p><pre>make test\nmake   check</pre>"
        assert read(write("a.html", page)).text == "Run:\n\nmake test\nmake check"

    def test_a_heading_is_the_title_where_there_is_no_other(self, write: Write) -> None:
        assert read(write("a.htm", "<h1>Menu <b>today</b></h1><p>Soup.")).title == "Menu today"

    def test_a_declared_charset_is_honoured(self, write: Write) -> None:
        page = '<meta charset="iso-8859-1"><p>10 € für „Grüße“</p>'
        assert read(write("a.html", page.encode("cp1252"))).text == "10 € für „Grüße“"

    @pytest.mark.parametrize("charset", ["", '<meta charset="no-such">', '<meta charset="utf-8">'])
    def test_an_unknown_charset_is_refused(self, write: Write, charset: str) -> None:
        page = f"{charset}<p>Grüße</p>".encode("latin-1")
        assert f"not UTF-8 at byte offset {len(charset) + 5}" in refusal(write("a.html", page))

    @pytest.mark.parametrize(
        "page",
        [
            '<?xml version="1.0"?><rss><p>News</p></rss>',
            '<!-- x --><?xml version="1.0"?><rss><p>News</p></rss>',
            "News",
            "<head><title>T</title><p>News",
            "<body><div><p>News</div></body></html></div>",
            "<![CDATA[x]]><!ELEMENT y><p>News",
        ],
    )
    def test_odd_pages_are_read_without_warnings(self, write: Write, page: str) -> None:
        assert read(write("a.html", page)).text.strip() == "News"

    def test_what_looks_like_an_address_or_a_file_name_is_text(self, write: Write) -> None:
        for text in ("https://example.org/x", "index.html"):
            assert read(write("a.html", text)).text == text

    def test_deep_nesting_is_no_problem(self, write: Write) -> None:
        assert read(write("a.html", "<div>" * 3000 + "deep" + "</div>" * 3000)).text == "deep"


class TestMarkdown:
    def test_front_matter_fences_and_links_go(self, write: Write) -> None:
        document = read(
            write(
                "a.md",
                "---\ntitle: 'Plan B'\ntags: [x]\n---\n# The plan\n\n"
                'See [the *guide*](https://example.org/a_(b) "t") and ![a cat](cat.png), '
                "[![badge](b.svg)](https://ci) or [there][1].\n\n"
                "```python\nx = table[1](2)\n```\n\n~~~\n```\n~~~\n\n[1]: https://example.org\n",
            )
        )
        assert document.title == "Plan B"
        assert document.text == (
            "# The plan\n\nSee the *guide* and a cat, badge or there.\n\nx = table[1](2)\n\n```"
        )

    def test_the_first_heading_is_the_title(self, write: Write) -> None:
        assert read(write("a.md", "Intro.\n\n## Why *now* ##\n\nText.")).title == "Why *now*"

    def test_a_rule_at_the_top_is_no_front_matter(self, write: Write) -> None:
        assert read(write("a.md", "---\nHello.\n\n---\nBye.")).text == "---\nHello.\n\n---\nBye."

    def test_an_open_fence_or_front_matter_loses_nothing(self, write: Write) -> None:
        assert read(write("a.md", "Code:\n```\nx = 1\n")).text == "Code:\nx = 1"
        assert read(write("b.md", "---\ntitle: x\nNo end.")).text == "---\ntitle: x\nNo end."

    def test_a_speaker_in_brackets_is_no_link_target(self, write: Write) -> None:
        assert read(write("a.md", "[Anna]: Yes.\n[Ben]: And/or no.")).text.count("]:") == 2

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(st.text("ab[]()!`~-:# \n", min_size=1, max_size=300))
    def test_words_of_prose_outlast_any_markup(self, noise: str) -> None:
        text = READERS[".md"](f"\n{noise}\n\nlast words\n".encode()).text
        assert text.endswith("last words")


class TestPdf:
    def test_its_text_is_read(self, write: Write) -> None:
        pdf = simple_pdf("The pump failed.", "It was repaired.")
        assert read(write("a.pdf", pdf)).text == "The pump failed.\nIt was repaired."

    def test_an_empty_password_opens_it(self, write: Write) -> None:
        assert read(write("a.pdf", encrypted_pdf(""))).text == "A secret plan."

    def test_a_real_password_is_not_guessed(self, write: Write) -> None:
        assert refusal(write("a.pdf", encrypted_pdf("hunter2"))).startswith(
            "it is encrypted: remove its password"
        )

    def test_a_scan_needs_ocr(self, write: Write) -> None:
        assert refusal(write("a.pdf", simple_pdf())) == "no text in it: a scan needs OCR first"

    @pytest.mark.parametrize(
        "content",
        [b"not a PDF at all", b"%PDF-1.7\n", simple_pdf("Half of it.")[:200], b"\0" * 100],
    )
    def test_a_broken_file_is_refused(self, write: Write, content: bytes) -> None:
        assert refusal(write("a.pdf", content)).startswith("it is not a PDF, or a broken one")

    def test_too_many_pages_are_refused(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("producer.document_text.MAX_PDF_PAGES", 0)
        assert refusal(write("a.pdf", simple_pdf("x"))).startswith("it has 1 pages, more than 0")

    def test_too_much_text_is_refused(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("producer.document_text.MAX_PDF_CHARACTERS", 3)
        assert refusal(write("a.pdf", simple_pdf("Four"))).startswith("it has more than 3 char")

    def test_oddities_stay_out_of_the_log(
        self, write: Write, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write("a.pdf", b"junk before\n" + simple_pdf("Still read."))
        assert read(path).text == "Still read."
        assert caplog.records == []

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=12))
    def test_damage_gives_text_or_a_reason_and_nothing_else(
        self, damage: list[tuple[int, int]]
    ) -> None:
        data = bytearray(simple_pdf("The pump failed."))
        for place, value in damage:
            data[place % len(data)] = value
        try:
            assert READERS[".pdf"](bytes(data)).text
        except NoText as error:
            assert str(error)


def test_all_example_documents_can_be_read_and_one_is_long() -> None:
    documents = [read(path) for path in find([str(EXAMPLES)]) if isinstance(path, Path)]
    kinds = [Path(document.path).suffix for document in documents]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        ".txt": 4,
        ".md": 3,
        ".html": 2,
        ".pdf": 1,
    }
    words = sorted(len(document.text.split()) for document in documents)
    assert words[0] >= 150
    assert words[-2] <= 900
    assert words[-1] >= 3000


@pytest.mark.parametrize("kind", [".txt", ".md", ".html"])
@given(data=st.binary(max_size=300))
def test_any_bytes_give_text_or_a_reason(kind: str, data: bytes) -> None:
    try:
        content = READERS[kind](data)
    except NoText as error:
        assert str(error)
    else:
        assert content.text.strip() == content.text != ""
        assert content.text.encode()


class TestSameFile:
    def test_names_that_are_no_utf8_stay_different(self, tmp_path: Path) -> None:
        for name in (b"a\xe9.txt", b"a\xe8.txt"):
            (tmp_path / os.fsdecode(name)).write_text("text")
        found = list(find([str(tmp_path)]))

        assert {real_path(item) for item in found} == {
            f"{tmp_path}/a\\xe9.txt",
            f"{tmp_path}/a\\xe8.txt",
        }
        assert len({read(item).path for item in found if isinstance(item, Path)}) == 2

    def test_a_file_has_one_real_path_however_it_is_spelled(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a.txt").write_text("text")
        (tmp_path / "link.txt").symlink_to("a.txt")
        monkeypatch.chdir(tmp_path)
        paths = [Path("a.txt"), Path("./a.txt"), tmp_path / "a.txt", Path("link.txt")]
        missing = [Unreadable("no.txt", "gone"), Unreadable(f"{tmp_path}/no.txt", "gone")]

        assert {real_path(path) for path in paths} == {str(tmp_path / "a.txt")}
        assert {real_path(item) for item in missing} == {str(tmp_path / "no.txt")}

    def test_what_is_in_it_is_told_by_its_digest_even_if_it_is_no_document(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.txt"
        path.write_bytes(b"")
        with pytest.raises(UnreadableDocument) as caught:
            read(path)

        assert digest(path) == caught.value.item.sha256 == hashlib.sha256(b"").hexdigest()
        assert digest(tmp_path / "no.txt") is None
