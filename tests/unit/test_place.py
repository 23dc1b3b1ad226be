"""What tells the guesses of one model in Redis from those of others."""

from pathlib import Path

import pytest
from small_models import write_classifier
from test_shelf import ONE

from router_worker.learned.model_file import load_model
from router_worker.oracles import place


def test_the_same_model_read_by_other_code_is_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_classifier(tmp_path, ONE)
    model = load_model(tmp_path)
    before = place.version_of(model)

    assert place.version_of(load_model(tmp_path)) == before
    monkeypatch.setattr(place, "READING", place.READING + 1)
    assert place.version_of(model) != before
