"""What `modelyard train` does with the folder that it writes to, and with a seed that is none."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_models import predictor_part

from modelyard.errors import ModelyardError
from router_worker.learned import commands
from router_worker.learned.model_file import load_model, save_model
from router_worker.learned.train_intents import TrainedIntents, train_intents


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = {"sum": "add {} and two", "poem": "write {} lines of verse"}
    path.write_text(
        "".join(
            json.dumps({"text": text.format(n), "intent": intent}) + "\n"
            for intent, text in texts.items()
            for n in range(10)
        )
    )
    return path


def test_what_others_train_in_the_meantime_is_kept(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"

    def slowly(*arguments: Any, **options: Any) -> TrainedIntents:
        save_model(folder, {"quality": predictor_part({"small": 0.5})})
        return train_intents(*arguments, **options)

    monkeypatch.setattr(commands, "train_intents", slowly)
    commands.train([rows], folder)

    assert sorted(load_model(folder).parts) == ["intents", "quality"]


def test_a_damaged_model_is_told_before_anything_is_trained(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{")
    monkeypatch.setattr(commands, "train_intents", None)

    with pytest.raises(ModelyardError, match="remove what is there, or choose another folder"):
        commands.train([rows], tmp_path / "model")


def test_a_seed_below_zero_is_refused(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelyardError, match="from 0, not -5"):
        commands.train([rows], tmp_path / "model", seed=-5)
    with pytest.raises(ModelyardError, match="from 0, not -5"):
        commands.evaluate([rows], seed=-5)
