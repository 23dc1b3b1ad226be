"""`modelyard train` and `modelyard evaluate`, as one uses them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_models import write_embeddings

from modelyard.decision_ledger import Entry, Kind
from producer.learn import LEAST_SCORES, frequent, lessons
from router_worker.learned.train_quality import MIN_ROWS

SUBJECTS = {
    "billing": "invoice refund charge card payment price fee receipt".split(),
    "shipping": "parcel courier delivery address tracking package late warehouse".split(),
    "account": "password login email profile username reset locked sign".split(),
}


def modelyard(*arguments: object, code: int = 0, path: Path | None = None) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "producer", *map(str, arguments)],
        env=os.environ | ({} if path is None else {"PYTHONPATH": str(path)}),
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert run.returncode == code, run.stderr + run.stdout
    return run.stdout if code == 0 else run.stderr


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def intents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"text": f"please help with my {one} and the {two}", "intent": intent}
        for intent, words in SUBJECTS.items()
        for one in words
        for two in words
        if one != two
    ]
    rows += [{"text": f"what is the weather in town {n}", "intent": "oos"} for n in range(12)]
    return write(tmp_path_factory.mktemp("data") / "intents.jsonl", rows)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = []
    for n in range(90):
        easy = f"add {n} and {n + 1}" + " carefully" * (n % 7)
        rows.append({"prompt": easy, "weak": int(n % 3 > 0), "strong": 1})
        hard = f"prove lemma {n} of the theorem"
        rows.append({"prompt": hard, "weak": int(n % 9 == 0), "strong": int(n % 5 > 0)})
    return write(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.fixture(scope="module")
def model(intents: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mine"
    said = json.loads(modelyard("train", intents, "-o", folder, "--json"))
    assert said["intents"]["intents"] == 3
    assert "of weak, strong" in modelyard("train", pairs, "-o", folder)
    return folder


def test_a_classifier_is_measured_with_all_that_is_promised(model: Path, intents: Path) -> None:
    said = json.loads(modelyard("evaluate", intents, "--model", model, "--json"))

    assert said["accuracy"] > 0.95
    for name in ("accuracy", "macro_f1", "in_scope_kept_right", "oos_recall"):
        low, high = said["intervals"][name]
        assert low <= said[name] <= high
    assert said["apgr"] is None
    assert {each["intent"] for each in said["classes"]} == set(SUBJECTS)
    assert said["baselines"]["most_common"]["accuracy"] < 0.5
    assert 0 < said["decision_ms"]["p50"] <= said["decision_ms"]["p99"]
    assert said["model_bytes"] == sum(each.stat().st_size for each in model.iterdir())


def test_a_predictor_is_measured_beside_length_random_and_oracle(
    model: Path, pairs: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "curve.png"
    said = json.loads(modelyard("evaluate", pairs, "--model", model, "--plot", picture, "--json"))

    assert 0.5 < said["apgr"] <= said["baselines"]["oracle"]["apgr"]
    assert set(said["baselines"]) == {"random", "length", "oracle"}
    for name in ("apgr", "cpt50", "cpt80"):
        low, high = said["intervals"][name]
        assert low <= said[name] <= high
    assert said["accuracy"] is None
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_without_a_model_rows_are_judged_by_models_that_have_not_seen_them(intents: Path) -> None:
    words = modelyard("evaluate", intents)

    assert "cross-validated in 5 folds" in words
    assert "baseline" in words
    assert "confused most often" in words


def test_several_models_are_compared_with_their_prices(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"add {n} and {n}", "scores": {"a": 1, "b": 1, "c": n % 2}} for n in range(80)
    ] + [
        {"prompt": f"prove lemma {n}", "scores": {"a": 0, "b": 1, "c": n % 2}} for n in range(80)
    ]  # fmt: skip
    data = write(tmp_path / "scores.jsonl", rows)
    said = json.loads(
        modelyard(
            *("evaluate", data, "--json", "--weak", "a", "--strong", "b"),
            *("--price", "a=1", "--price", "b=10", "--price", "c=2"),
        )
    )

    assert said["how"] == "cross-validated in 10 folds"  # 5 of them where there are 2,000 rows
    assert said["pair"]["weak"] == "a"
    assert said["models"]["best_single"] == "b"
    assert said["models"]["saved_at_equal_quality"]["value"] > 0.2


def test_rows_of_a_ledger_are_measured_where_two_models_were_graded(tmp_path: Path) -> None:
    """Most have a score of the one model that answered."""
    both = [
        {"prompt": f"{word} {n}", "scores": {"a": int(word == "add"), "b": 1}}
        for n in range(20)
        for word in ("add", "prove lemma")
    ]
    one = [
        {"prompt": f"{word} number {n}", "scores": {name: int(name == "b" or word == "add")}}
        for n in range(40)
        for word in ("add", "prove lemma")
        for name in ("ab"[n % 2],)
    ]
    data = write(tmp_path / "ledger.jsonl", [*both, *one])
    said = json.loads(modelyard("evaluate", data, "--json"))

    assert said["rows"] == 40
    assert said["how"].endswith("on those of 120 rows that have scores of two models")
    assert (said["pair"]["weak"], said["pair"]["strong"]) == ("a", "b")
    assert said["apgr"] > 0.7

    alone = write(tmp_path / "alone.jsonl", one)
    assert "modelyard feedback --model" in modelyard("evaluate", alone, code=2)


def test_embeddings_of_a_folder_are_features(intents: Path, tmp_path: Path) -> None:
    place, folder = tmp_path / "meanings", tmp_path / "model"
    meanings = [(word, number) for number, each in enumerate(SUBJECTS.values()) for word in each]
    write_embeddings(
        place, {word: [float(number == n) for n in range(3)] for word, number in meanings}
    )

    told = json.loads(modelyard("train", intents, "-o", folder, "--embeddings", place, "--json"))
    by_model = json.loads(
        modelyard("evaluate", intents, "--model", folder, "--embeddings", place, "--json")
    )

    assert told["intents"]["accuracy"] == by_model["accuracy"] == 1
    assert "with embeddings meanings" in modelyard("evaluate", intents, "--embeddings", place)
    assert "or by --embeddings" in modelyard("evaluate", intents, "--model", folder, code=2)
    nowhere = ("--embeddings", tmp_path / "nowhere")
    assert "there is no folder" in modelyard("train", intents, "-o", folder, *nowhere, code=2)


def test_embeddings_of_a_function_are_features(intents: Path, tmp_path: Path) -> None:
    (tmp_path / "own_model.py").write_text(
        "def embed(texts):\n    return [[float('invoice' in text), 1.0] for text in texts]\n"
        "def fail(texts):\n    raise RuntimeError('no accelerator')\n"
    )
    folder, place = tmp_path / "model", "own_model:embed"

    modelyard("train", intents, "-o", folder, "--embeddings", place, path=tmp_path)
    words = modelyard("evaluate", intents, "--model", folder, "--embeddings", place, path=tmp_path)
    failed = ("train", intents, "-o", folder, "--embeddings", "own_model:fail")

    assert "with embeddings own_model:embed" in words
    assert "failed: RuntimeError: no accelerator" in modelyard(*failed, code=2, path=tmp_path)


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", "has no rows"),
        ("not json\n", ":1: "),
        ('{"text": "x"}\n', ":1: "),
        ('{"text": "x", "intent": "a"}\n{"prompt": "y", "weak": 1, "strong": 1}\n', ":2: "),
        ('{"text": "x", "intent": "a"}\n{"text": "y", "intent": "a"}\n', "intent"),
    ],
)
def test_data_that_teaches_nothing_is_refused_with_its_line(
    tmp_path: Path, lines: str, problem: str
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(lines)

    assert problem in modelyard("train", data, "-o", tmp_path / "model", code=2)
    assert not (tmp_path / "model").exists()


def test_a_model_that_is_none_is_refused_with_its_file(tmp_path: Path, intents: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("[]")

    assert "model.json" in modelyard("evaluate", intents, "--model", folder, code=2)
    assert "is missing" in modelyard("evaluate", intents, "--model", tmp_path / "none", code=2)


def test_arguments_that_are_missing_are_asked_for(intents: Path) -> None:
    assert "-o MODEL/" in modelyard("train", intents, code=2)
    assert "--from-ledger" in modelyard("train", "-o", "x", code=2)
    assert "at least one file" in modelyard("evaluate", code=2)
    assert "both --weak and --strong" in modelyard("evaluate", intents, "--weak", "a", code=2)
    assert "MODEL=COST" in modelyard("evaluate", intents, "--price", "a", code=2)


def test_the_ledger_teaches_what_people_and_judges_thought() -> None:
    def entry(kind: Any, id: str, **values: Any) -> Entry:
        return Entry(kind=kind, id=id, at=1.0, **values)

    kept = {"messages": [{"role": "user", "content": "hello"}]}
    rows = list(
        lessons(
            [
                entry("request", "1", model="small", request=kept),
                entry("feedback", "1", model="small", score=0.2),
                entry("feedback", "1", model="small", score=0.4),
                entry("shadow", "1", model="large", score=0.9),
                entry("request", "2", model="small", request=kept),
                entry("request", "3", model="small"),
                entry("feedback", "3", model="small", score=1.0),
            ]
        )
    )

    assert rows == [{"prompt": "hello", "scores": {"small": 0.4, "large": 0.9}}]


def test_ids_with_colons_are_requests_of_their_own_and_what_is_no_request_is_left_out() -> None:
    def asked(id: str, request: dict[str, Any]) -> Entry:
        return Entry(kind=Kind.REQUEST, id=id, at=1.0, model="small", score=0.5, request=request)

    def shadow(id: str, score: float) -> Entry:
        return Entry(kind=Kind.SHADOW, id=id, at=2.0, model="large", score=score)

    rows = list(
        lessons(
            [
                asked("job:7", {"text": "seven"}),
                asked("job:8", {"text": "eight"}),
                asked("job:9", {"text": "nine", "key_of_a_later_version": 1}),
                shadow("job:7", 0.9),
                shadow("job:8", 0.1),
            ]
        )
    )

    assert rows == [
        {"prompt": "seven", "scores": {"small": 0.5, "large": 0.9}},
        {"prompt": "eight", "scores": {"small": 0.5, "large": 0.1}},
    ]


def test_prices_with_nothing_to_save_are_told(model: Path, pairs: Path) -> None:
    prices = ("--price", "weak=1", "--price", "strong=0")
    said = modelyard("evaluate", pairs, "--model", model, *prices, code=2)
    assert said == "with these prices: the best model costs nothing: there is nothing to save\n"


def test_a_model_that_hardly_anybody_judged_does_not_keep_others_from_being_learned() -> None:
    rows = [{"prompt": f"p{n}", "scores": {"small": 1.0}} for n in range(LEAST_SCORES)]
    rare = [{"prompt": "q", "scores": {"large": 0.5}}]
    both = [{"prompt": "r", "scores": {"small": 0.0, "large": 0.5}}]

    kept, left_out = frequent([*rows, *rare, *both])

    assert kept == [*rows, {"prompt": "r", "scores": {"small": 0.0}}]
    assert left_out == {"large": 2}
    assert LEAST_SCORES == MIN_ROWS


def test_an_answer_of_several_models_teaches_nothing_of_one() -> None:
    kept = {"messages": [{"role": "user", "content": "hello"}]}
    judged = {"model": "small+large", "score": 0.5, "request": kept}
    assert not list(lessons([Entry(kind=Kind.REQUEST, id="1", at=1.0, **judged)]))


def test_a_row_of_the_ledger_is_what_the_user_said() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    entry = Entry(
        kind=Kind.REQUEST, id="1", at=1.0, model="small", score=1.0, request={"messages": messages}
    )

    assert list(lessons([entry])) == [{"prompt": "hi", "scores": {"small": 1.0}}]
