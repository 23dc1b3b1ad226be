"""Loading a text as a catalog file."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from catalog_texts import SECRET, Load, Problems

from modelyard.catalog import Catalog
from modelyard.catalog_file import load_catalog
from modelyard.errors import CatalogError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write a text to catalog.yaml in the current folder and load it from there."""
    monkeypatch.chdir(tmp_path)

    def _load(text: str | bytes, environ: Mapping[str, str] | None = None) -> Catalog:
        path = Path("catalog.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_catalog(path, {"KEY": SECRET} if environ is None else environ)

    return _load


@pytest.fixture
def problems(load: Load) -> Problems:
    """Load a text that must be refused; return what was said about it."""

    def _problems(text: str | bytes, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        with pytest.raises(CatalogError) as caught:
            load(text, environ)
        return caught.value.problems

    return _problems
