"""Following the catalog file: a change is used once it is whole, and a bad one changes nothing."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard.catalog import Catalog
from modelyard.catalog_file import default_catalog
from modelyard.catalog_follower import CatalogFollower
from modelyard.settings import Settings

TEXT = """
models: [{name: small, provider: extractive}, {name: large, provider: extractive}]
routes: {default: {otherwise: [FIRST]}}
"""

Make = Callable[..., CatalogFollower]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(TEXT.replace("FIRST", "small"))
    return path


class Used:
    """Those that were used, by their first model; it may fail."""

    def __init__(self) -> None:
        self.first: list[str] = []
        self.error: Exception | None = None

    def __call__(self, catalog: Catalog) -> None:
        if self.error is not None:
            raise self.error
        self.first.append(catalog.route("default").otherwise.models[0])


def follower(path: Path, used: Used) -> CatalogFollower:
    settings = Settings(catalog=path)
    made = CatalogFollower(settings, default_catalog(settings), used)
    for _ in range(3):
        made.look()
    return made


def write(path: Path, text: str) -> None:
    """Write it, so that it is another file even where the clock of files is coarse."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_a_change_is_used_at_the_second_look_that_finds_it_the_same(path: Path) -> None:
    used = Used()
    made = follower(path, used)
    assert used.first == []
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    assert used.first == []
    write(path, TEXT.replace("FIRST", "large") + "# still being written\n")
    made.look()
    assert used.first == []
    made.look()
    made.look()
    assert used.first == ["large"]
    assert made.catalog.route("default").otherwise.models == ("large",)


def test_what_changed_between_the_start_and_the_first_look_is_seen(path: Path) -> None:
    used = Used()
    settings = Settings(catalog=path)
    made = CatalogFollower(settings, default_catalog(settings), used)
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    made.look()
    assert used.first == ["large"]


@pytest.mark.parametrize("text", ["", "models: [", "models: []\nroutes: {}\n", None])
def test_what_is_no_catalog_is_told_once_and_what_is_one_again_is_used(
    path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    used = Used()
    made = follower(path, used)
    if text is None:
        path.unlink()
    else:
        write(path, text)
    for _ in range(5):
        made.look()
    errors = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert len(errors) == 1 and "stays as it was" in errors[0].getMessage()
    assert made.problem is not None and str(path) in made.problem
    assert used.first == []
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    made.look()
    assert used.first == ["large"]
    assert made.report()["problem"] is None


def test_a_file_that_says_the_same_is_no_change(path: Path) -> None:
    used = Used()
    made = follower(path, used)
    write(path, "# looks different\n" + TEXT.replace("FIRST", "small"))
    made.look()
    made.look()
    assert used.first == []


def test_a_link_that_shows_another_file_is_a_change(tmp_path: Path, path: Path) -> None:
    # As Kubernetes changes what it mounts of a ConfigMap.
    link = tmp_path / "mounted.yaml"
    link.symlink_to(path)
    used = Used()
    made = follower(link, used)
    other = tmp_path / "other.yaml"
    other.write_text(TEXT.replace("FIRST", "large"))
    os.utime(other, (path.stat().st_atime, path.stat().st_mtime))
    fresh = tmp_path / "fresh"
    fresh.symlink_to(other)
    fresh.replace(link)
    made.look()
    made.look()
    assert used.first == ["large"]


def test_a_catalog_that_can_not_be_used_leaves_the_one_before(path: Path) -> None:
    used = Used()
    made = follower(path, used)
    used.error = RuntimeError("no room")
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    made.look()
    assert made.problem is not None and "no room" in made.problem
    assert made.catalog.route("default").otherwise.models == ("small",)
    used.error = None
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    made.look()
    assert used.first == ["large"]
    assert made.report()["problem"] is None


def test_a_changed_price_file_is_a_change(tmp_path: Path, path: Path) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text("{}")
    remote = "provider: openai, endpoints: [{base_url: http://a.test}]"
    write(path, path.read_text().replace("provider: extractive", remote))
    used = Used()
    settings = Settings(catalog=path, prices=prices)
    made = CatalogFollower(settings, default_catalog(settings), used)
    made.look()
    made.look()
    write(prices, '{"small": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}}')
    made.look()
    made.look()
    assert used.first == ["small"]
    assert made.catalog.model("small").price.input_usd_per_mtok == pytest.approx(1.0)


def test_what_could_be_used_in_part_only_is_no_reason_to_take_what_was_there_for_in_use(
    path: Path,
) -> None:
    used = Used()
    made = follower(path, used)
    used.error = RuntimeError("half of it")
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    made.look()
    assert "half of it" in (made.problem or "")
    used.error = None
    write(path, TEXT.replace("FIRST", "small") + "# as it was\n")
    made.look()
    made.look()
    assert (used.first, made.problem) == (["small"], None)


def test_whatever_reading_raises_changes_nothing_and_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = Used()
    made = follower(path, used)

    def fails(_: Settings) -> Catalog:
        raise TypeError("unhashable")

    monkeypatch.setattr("modelyard.catalog_follower.default_catalog", fails)
    write(path, TEXT.replace("FIRST", "large"))
    made.look()
    made.look()
    assert "unhashable" in (made.problem or "")
    assert used.first == []
