"""Files that are no catalog: empty, damaged, hostile, missing or no file at all."""

import os
import re
from pathlib import Path

import pytest
from catalog_texts import FULL, Problems
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelyard.catalog_file import MAX_BYTES, load_catalog
from modelyard.errors import CatalogError


class TestAFileThatIsNoCatalog:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("", "1: catalog: the file is empty; it needs 'models' and 'routes'"),
            ("# nothing\n", "1: catalog: the file is empty; it needs 'models' and 'routes'"),
            ("- a\n- b\n", "1: catalog: must be a mapping of keys to values"),
            (b"models:\n  - name: caf\xe9\n", "2: catalog: not UTF-8; save the file as UTF-8"),
            ("models:\n  - {name: a\n", "3: catalog: not valid YAML: "),
            ("a: 1\n---\nb: 2\n", "2: catalog: not valid YAML: expected a single document"),
            ("a: \x07\n", "1: catalog: not valid YAML: a control character"),
            ('a: "\\UFFFFFFFF"\n', "1: catalog: not valid YAML: an escape that stands for no"),
            ("models: &x [*x]\n", "1: catalog: nested too deeply or too large"),
            ("[" * 5000, "1: catalog: not valid YAML: nested too deeply"),
            ("#" * (MAX_BYTES + 1), f"1: catalog: more than {MAX_BYTES} bytes; is it a catalog?"),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_is_refused_with_the_reason(
        self, problems: Problems, content: str | bytes, problem: str
    ) -> None:
        [told] = problems(content)
        assert told.startswith(f"catalog.yaml:{problem}")

    def test_aliases_of_aliases_do_not_fill_the_memory(self, problems: Problems) -> None:
        levels = [f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        [told] = problems(f"models: [{', '.join(['&a0 [x, x]', *levels])}]")
        assert "too large" in told

    def test_a_missing_file_says_what_to_set(self, tmp_path: Path) -> None:
        with pytest.raises(
            CatalogError, match=r"nowhere\.yaml: can't be read: .*MODELYARD_CATALOG"
        ):
            load_catalog(tmp_path / "nowhere.yaml", {})

    def test_what_is_no_file_is_said_so_and_not_waited_for(self, tmp_path: Path) -> None:
        pipe = tmp_path / "catalog.yaml"
        os.mkfifo(pipe)
        for path, what in (
            (pipe, "a named pipe"),
            (tmp_path, "a folder"),
            (Path("/dev/zero"), "a device"),
        ):
            told = f"can't be read: it is {what}, not a file; set MODELYARD_CATALOG"
            with pytest.raises(CatalogError, match=told):
                load_catalog(path, {})

    @settings(deadline=None)
    @given(
        content=st.binary(max_size=60)
        | st.text(alphabet="models:rut-&*![]{}#'\"\\U%<\n ,0~", max_size=60).map(str.encode)
    )
    @example(content=b'models: [{name: "\\uD800", provider: extractive}]\nroutes: {default: 1}')
    def test_whatever_it_holds_the_answer_is_a_catalog_error(
        self, content: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("any") / "catalog.yaml"
        path.write_bytes(content)
        with pytest.raises(CatalogError) as caught:
            load_catalog(path, {})
        assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
        assert str(caught.value).encode()

    @settings(deadline=None)
    @given(
        at=st.integers(0, FULL.count("\n") - 1),
        damage=st.sampled_from(
            ["", "- ", "  ", "x", "[", "x: ", "~", "- - {x: [~]}", "? ", "&x *x"]
        )
        | st.text(st.characters(codec="utf-8"), max_size=10),
        keep=st.booleans(),
    )
    def test_a_damaged_line_is_a_catalog_or_a_catalog_error(
        self, at: int, damage: str, keep: bool, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        lines = FULL.splitlines()
        indent = len(lines[at]) - len(lines[at].lstrip())
        lines[at] = lines[at][:indent] + damage + (lines[at][indent:] if keep else "")
        path = tmp_path_factory.mktemp("damaged") / "catalog.yaml"
        path.write_text("\n".join(lines), encoding="utf-8")
        try:
            catalog = load_catalog(path, {})
        except CatalogError as error:
            assert all(re.match(rf"{path}:\d+: \w+.*: ", line) for line in error.problems)
        else:
            names = {model.name for model in catalog.models}
            assert names.issuperset(catalog.route("default").otherwise.models)
