"""Functions are named as `module:function`, and what is wrong with a name is told."""

from pathlib import Path

import pytest

from modelyard.entry_point import EntryPointError, NotAFunction, load_function
from modelyard.errors import ModelyardError

SOURCE = """
number = 7
def answer():
    return 42
class Place:
    @staticmethod
    def answer():
        return 43
"""


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_here.py").write_text(SOURCE)
    (tmp_path / "broken_here.py").write_text("raise ValueError('no GPU')")
    (tmp_path / "leaving_here.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("place", "returned"), [("named_here:answer", 42), ("named_here:Place.answer", 43)]
)
def test_a_function_is_found_in_its_module(place: str, returned: int) -> None:
    assert load_function(place)() == returned


@pytest.mark.parametrize("place", ["", "named_here", "named_here:", ":answer", "named_here.answer"])
def test_another_form_is_no_name(place: str) -> None:
    with pytest.raises(EntryPointError, match=r"^is not written as module:name$"):
        load_function(place)


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere_here:answer", "ModuleNotFoundError: No module named 'nowhere_here'"),
        ("named_here:none", "AttributeError: module 'named_here' has no attribute 'none'"),
        ("named_here:Place.none", "AttributeError: type object 'Place' has no attribute 'none'"),
        ("broken_here:answer", "ValueError: no GPU"),
        ("leaving_here:answer", "SystemExit: 3"),
    ],
)
def test_what_can_t_be_imported_says_why(place: str, why: str) -> None:
    with pytest.raises(EntryPointError) as caught:
        load_function(place)
    assert str(caught.value) == f"can't be imported: {why}"
    assert caught.value.__cause__ is not None
    assert isinstance(caught.value, ModelyardError)


def test_what_is_no_function_says_what_it_is() -> None:
    with pytest.raises(NotAFunction, match=r"^is no function but a int$") as caught:
        load_function("named_here:number")
    assert caught.value.found == 7
