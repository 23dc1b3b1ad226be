"""The model folder: what is kept, and that no folder does harm."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_worker.learned import array_file, model_file
from router_worker.learned.array_file import ArraySpec, pack, unpack
from router_worker.learned.model_file import (
    ModelFileError,
    Part,
    add_parts,
    load_model,
    save_model,
)

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def example_part(value: float = 1.5) -> Part:
    """A part with arrays of several types and shapes."""
    return Part(
        meta={"labels": ["code", "Übersetzung"], "gate": 0.25, "none": None},
        arrays={
            "w": np.full((3, 2), value, np.float32),
            "q": np.arange(-4, 4, dtype=np.int8).reshape(2, 4),
            "empty": np.zeros((0, 5), np.float64),
            "single": np.array(7, np.int64),
        },
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with one part."""
    folder = tmp_path / "model"
    save_model(folder, {"intents": example_part()}, created=NOW)
    return folder


def arrays_of(folder: Path) -> Path:
    """The array file of a model."""
    (found,) = folder.glob("arrays-*.npz")
    return found


def edit(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what `model.json` says."""
    path = folder / "model.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def put_arrays(folder: Path, data: bytes) -> None:
    """Put another array file in place, with the checksum that it needs."""
    checksum = hashlib.sha256(data).hexdigest()
    arrays_of(folder).unlink()
    (folder / f"arrays-{checksum[:16]}.npz").write_bytes(data)
    edit(folder, lambda header: header.update(sha256=checksum))


def refusal(folder: Path) -> str:
    """What a reader of the model is told."""
    with pytest.raises(ModelFileError) as refused:
        load_model(folder)
    return str(refused.value)


# -- what is kept --------------------------------------------------------------------------------


def test_what_was_saved_is_loaded(folder: Path) -> None:
    model = load_model(folder)

    assert model.created == "2026-03-01T12:30:00+00:00"
    assert model.versions["numpy"] == np.__version__
    part, saved = model.part("intents"), example_part()
    assert part.meta == saved.meta
    assert part.arrays.keys() == saved.arrays.keys()
    for name, array in saved.arrays.items():
        assert part.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(part.arrays[name], array)


def test_a_part_can_be_replaced_and_the_others_kept(folder: Path) -> None:
    before = load_model(folder)
    save_model(folder, {**before.parts, "quality": example_part(9.0)})

    after = load_model(folder)

    assert sorted(after.parts) == ["intents", "quality"]
    assert after.part("quality").arrays["w"][0, 0] == 9.0
    assert after.part("intents").meta == before.part("intents").meta
    assert after.sha256 != before.sha256
    assert len(list(folder.iterdir())) == 2, "the old array file is gone"


def test_parts_that_are_added_at_once_are_all_kept(tmp_path: Path) -> None:
    names = [f"part_{number}" for number in range(8)]
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: add_parts(tmp_path / "new", {name: example_part()}), names))

    assert sorted(load_model(tmp_path / "new").parts) == names


def test_a_damaged_model_is_not_added_to_and_it_is_said_what_to_do(folder: Path) -> None:
    (folder / "model.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"is not JSON.*remove what is there"):
        add_parts(folder, {"quality": example_part()})


def test_equal_parts_make_equal_files(folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", {"intents": example_part()}, created=NOW)

    for path in folder.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_numpy_reads_the_array_file(folder: Path) -> None:
    with np.load(arrays_of(folder), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["intents/q"], example_part().arrays["q"])


def test_a_model_that_is_replaced_while_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has the old `model.json`, and its array file goes away: it reads again."""
    read_header = model_file.read_header
    replaced: list[bool] = []

    def replaced_after(path: Path) -> model_file.Header:
        header = read_header(path)
        if not replaced:
            replaced.append(True)
            save_model(folder, {"intents": example_part(2.0)})
        return header

    monkeypatch.setattr(model_file, "read_header", replaced_after)

    assert load_model(folder).part("intents").arrays["w"][0, 0] == 2.0


def test_a_writer_that_dies_leaves_the_old_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def dies(self: Path, target: Path) -> Path:
        if target.name == "model.json":
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(ModelFileError, match="can't be written: No space left on device"):
        save_model(folder, {"intents": example_part(2.0)})

    assert load_model(folder).part("intents").arrays["w"][0, 0] == 1.5
    assert not list(folder.glob(".model-*")), "no temporary file is left"


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (Part({}, {"w": np.array([1.0, np.nan])}), "array 'intents/w' has values that are"),
        (Part({}, {"w": np.array([None])}), "array 'intents/w' is of object, which is not stored"),
        (Part({}, {"w": np.array(["text"])}), "array 'intents/w' is of <U4, which is not stored"),
        (Part({"gate": float("nan")}, {}), "Out of range float values are not JSON compliant"),
        (Part({"when": NOW}, {}), "Object of type datetime is not JSON serializable"),
        (Part({"text": "\ud800"}, {}), "surrogates not allowed"),
        (Part({}, {"../w": np.zeros(1)}), "String should match pattern"),
    ],
)
def test_what_could_not_be_read_again_is_not_saved(folder: Path, part: Part, what: str) -> None:
    with pytest.raises(ModelFileError) as refused:
        save_model(folder, {"intents": part})

    assert str(refused.value).startswith(str(folder))
    assert what in str(refused.value)
    assert load_model(folder).part("intents").meta == example_part().meta


# -- what is refused -----------------------------------------------------------------------------


def test_no_model(tmp_path: Path) -> None:
    assert "model.json: is missing: there is no model here" in refusal(tmp_path / "nothing")


def test_a_folder_where_a_file_should_be(folder: Path) -> None:
    (folder / "model.json").unlink()
    (folder / "model.json").mkdir()

    assert "model.json: can't be read: Is a directory" in refusal(folder)


def test_a_lost_array_file(folder: Path) -> None:
    arrays_of(folder).unlink()

    assert "is missing, and model.json names it" in refusal(folder)


def test_a_damaged_array_file(folder: Path) -> None:
    path = arrays_of(folder)
    path.write_bytes(path.read_bytes()[:-1])

    assert "has another checksum than model.json says: damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "is not JSON"),
        ('{"format": 1, "cre', "is not JSON: truncated, or another kind of file"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "has no format number: not a model of modelyard"),
        ('{"name": "modelyard"}', "has no format number: not a model of modelyard"),
        ('{"format": true}', "has no format number"),
        ('{"format": 2}', "has format 2, and this version of modelyard reads 1"),
        ('{"format": 1}', "sha256: Field required"),
    ],
)
def test_another_model_json(folder: Path, text: str, what: str) -> None:
    (folder / "model.json").write_text(text)

    assert f"{folder / 'model.json'}: " in refusal(folder)
    assert what in refusal(folder)


def test_a_huge_model_json(folder: Path) -> None:
    with (folder / "model.json").open("ab") as file:
        os.truncate(file.fileno(), model_file.MAX_HEADER_BYTES + 1)

    assert "is larger than" in refusal(folder)


def test_a_checksum_that_is_a_path(folder: Path) -> None:
    edit(folder, lambda header: header.update(sha256="../../../../etc/passwd"))

    assert "sha256: String should match pattern" in refusal(folder)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"dtype": "<f4", "shape": [2, 3]}, "has another type or shape than model.json says"),
        ({"dtype": "<i4", "shape": [3, 2]}, "has another type or shape than model.json says"),
        ({"dtype": "|O", "shape": [3, 2]}, "dtype: Input should be"),
        ({"dtype": "<f4", "shape": [-1, 2]}, "greater than or equal to 0"),
        ({"dtype": "<f4", "shape": [2**27, 2]}, "would take 1,073,741,"),
        ({"dtype": "<f4", "shape": [1] * 5}, "at most 4 items"),
    ],
)
def test_a_description_that_does_not_fit(folder: Path, spec: dict[str, Any], what: str) -> None:
    edit(folder, lambda header: header["parts"]["intents"]["arrays"].update(w=spec))

    assert what in refusal(folder)


def test_an_array_too_few_and_too_many(folder: Path) -> None:
    edit(folder, lambda header: header["parts"]["intents"]["arrays"].pop("w"))

    assert "has not the arrays that model.json names" in refusal(folder)


def npz(**arrays: bytes) -> bytes:
    """An array file with these files in it, in place of what the example has."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in example_part().arrays.items():
            npy = io.BytesIO()
            np.save(npy, array)
            archive.writestr(f"intents/{name}.npy", arrays.get(name, npy.getvalue()))
    return out.getvalue()


def npy(array: Any) -> bytes:
    """An array as `numpy.save` writes it, pickled where it has objects."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


class Trap:
    """Unpickling this fails the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was unpickled",))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04 but no zip", "is damaged, or no file of arrays"),
        (b"", "is damaged, or no file of arrays"),
        (npz(w=npy(np.array([[Trap()] * 2] * 3))), "has another type or shape"),
        (npz(w=npy(np.full((3, 2), np.nan, np.float32))), "array 'intents/w' has values that are"),
        (npz(w=npy(np.full((3, 2), np.inf, np.float32))), "array 'intents/w' has values that are"),
        (npz(w=npy(np.zeros((3, 2), np.float32))[:-1]), "has more or fewer numbers than its shape"),
        (npz(w=npy(np.zeros((3, 2), np.float32)) + b"0"), "has more or fewer numbers than"),
        (npz(w=npy(np.zeros((3, 2), np.float32, order="F"))), "has another type or shape"),
        (npz(w=b"\x80\x04."), "is no .npy of version 1.0"),
        (npz(w=b"\x93NUMPY\x01\x00\x04\x00{'a'"), "has a damaged header"),
        (npz(w=b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 9_999), "has a header that is too long"),
    ],
)
def test_array_files_of_another_kind(folder: Path, data: bytes, what: str) -> None:
    put_arrays(folder, data)

    assert what in refusal(folder)


def test_a_zip_bomb_takes_no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that unpacks to a thousand times its size is read no further than it should be."""
    put_arrays(folder, npz(w=npy(np.zeros((3, 2), np.float32)) + bytes(100_000_000)))
    sizes = []
    read = zipfile.ZipExtFile.read

    def noted(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        data = read(self, n)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "read", noted)

    assert "has more or fewer numbers" in refusal(folder)
    assert max(sizes) < 2_000


def test_a_part_that_is_not_there(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"has no part 'quality' \(it has intents\)"):
        load_model(folder).part("quality")


# -- what a part has -----------------------------------------------------------------------------


def test_a_part_gives_what_is_asked_of_it(folder: Path) -> None:
    part = load_model(folder).part("intents")

    assert part.array("w", "float32", (None, 2)).shape == (3, 2)
    assert part.number("gate", 0, 1) == 0.25
    assert part.names("labels") == ("code", "Übersetzung")


@pytest.mark.parametrize(
    ("ask", "what"),
    [
        (lambda part: part.array("x", "float32", ()), "has no array 'x'"),
        (lambda part: part.array("w", "float64", (3, 2)), "'w' is of float32, not float64"),
        (lambda part: part.array("w", "float32", (None, 3)), "'w' is 3 x 2, not any x 3"),
        (lambda part: part.array("w", "float32", (3,)), "'w' is 3 x 2, not 3"),
        (lambda part: part.number("labels"), "'labels' is not a number"),
        (lambda part: part.number("absent"), "'absent' is not a number"),
        (lambda part: part.number("gate", 0.5, 1), "'gate' is not a finite number from 0.5 to 1"),
        (lambda part: part.names("gate"), "'gate' is not a list of texts"),
    ],
)
def test_a_part_with_something_else(folder: Path, ask: Callable[[Part], Any], what: str) -> None:
    with pytest.raises(ModelFileError) as refused:
        ask(load_model(folder).part("intents"))

    assert str(refused.value) == f"{folder}: intents: {str(refused.value).split(': ')[-1]}"
    assert what in str(refused.value)


def test_names_that_are_no_names() -> None:
    for names in (["a", "a"], ["a", 1], "ab", None):
        with pytest.raises(ModelFileError):
            Part({"labels": names}, {}).names("labels")


def test_numbers_that_are_no_numbers() -> None:
    for number in (float("nan"), float("inf"), True, "1", 10**400):
        with pytest.raises(ModelFileError):
            Part({"gate": number}, {}).number("gate")


# -- laws ----------------------------------------------------------------------------------------

SPECS = {"w": ArraySpec(dtype="<f4", shape=[3, 2]), "q": ArraySpec(dtype="|i1", shape=[2, 4])}
PACKED = pack({"w": np.ones((3, 2), np.float32), "q": np.zeros((2, 4), np.int8)})


@given(st.binary())
def test_any_bytes_as_arrays_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data, SPECS)


@settings(max_examples=300)
@given(st.data())
def test_any_damage_to_arrays_is_refused_in_one_way_or_harmless(data: st.DataObject) -> None:
    damaged = bytearray(PACKED)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        arrays = unpack(bytes(damaged), SPECS)
    except ValueError:
        return
    assert {name: array.shape for name, array in arrays.items()} == {"w": (3, 2), "q": (2, 4)}


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose `model.json` is overwritten by each example."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, {"intents": example_part()}, created=NOW)
    return folder


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_as_model_json_are_refused_in_one_way(shared_folder: Path, data: bytes) -> None:
    (shared_folder / "model.json").write_bytes(data)

    with pytest.raises(ModelFileError):
        load_model(shared_folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["created", "versions", "sha256", "parts", "format"]), JSON)
def test_any_values_in_model_json_are_refused_in_one_way_or_read(
    shared_folder: Path, key: str, value: object
) -> None:
    save_model(shared_folder, {"intents": example_part()}, created=NOW)
    edit(shared_folder, lambda header: header.update({key: value}))
    try:
        load_model(shared_folder)
    except ModelFileError as error:
        assert str(error).startswith(str(shared_folder))


dtypes = st.sampled_from(["<f8", "<f4", "<f2", "<i8", "<i4", "<i2", "|i1", "<u4", "<u2", "|u1"])


@given(dtypes, st.lists(st.integers(0, 5), max_size=4), st.integers(0, 100))
def test_arrays_come_back_as_they_were(dtype: str, shape: list[int], seed: int) -> None:
    numbers = np.random.default_rng(seed).integers(0, 100, size=shape)
    array = np.asarray(numbers, dtype=dtype)

    found = unpack(pack({"a": array}), array_file.describe({"a": array}))["a"]

    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)
    assert not found.flags.writeable
