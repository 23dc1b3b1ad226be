"""A settling task in a pool that is not ours, where Celery stores what the task raises."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import Ignore

from model_workers.coroutine_task import Settled, SettlingTask
from modelyard.claims import DONE, FENCED, LOST, Ack
from modelyard.errors import RequestFailed


class Failing(SettlingTask):
    """It ends with a failure."""

    app: Any = SimpleNamespace(backend=SimpleNamespace(client=None))

    async def run(self) -> Settled:
        return Settled(Ack("a claim"), error=RequestFailed("no", "id", "exhausted", []))


def raised(monkeypatch: pytest.MonkeyPatch, said: int) -> BaseException:
    """Return what the task raises if its settlement comes to that."""
    monkeypatch.setattr("model_workers.coroutine_task.settle_surely", lambda *_: said)
    with pytest.raises((Ignore, RequestFailed)) as caught:
        Failing()()
    error: BaseException = caught.value
    return error


def test_a_failure_that_counts_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(raised(monkeypatch, DONE), RequestFailed)


@pytest.mark.parametrize(
    ("said", "why"), [(FENCED, "another worker has it"), (LOST, "another outcome was first")]
)
def test_a_failure_that_does_not_count_is_not_stored_by_celery_either(
    monkeypatch: pytest.MonkeyPatch, said: int, why: str
) -> None:
    error = raised(monkeypatch, said)
    assert isinstance(error, Ignore)
    assert str(error) == why
