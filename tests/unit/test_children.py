"""When a child is started again, and which command lines the yard runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.children import (
    EARLY_DEATHS,
    EARLY_S,
    FIRST_BACKOFF_S,
    LONGEST_BACKOFF_S,
    Health,
    child_environment,
    death_notice,
)
from producer.commands import flower_command, model_command, node_name, router_command

lives = st.lists(st.floats(min_value=0, max_value=3 * EARLY_S))


def health_after(lives_s: list[float]) -> Health:
    health = Health()
    for lived_s in lives_s:
        health = health.after_death(lived_s)
    return health


@given(lives)
def test_the_backoff_stays_within_its_bounds(lives_s: list[float]) -> None:
    assert FIRST_BACKOFF_S <= health_after(lives_s).backoff_s <= LONGEST_BACKOFF_S


@given(lives)
def test_a_long_life_clears_what_was_before(lives_s: list[float]) -> None:
    assert health_after([*lives_s, EARLY_S]) == Health()


@given(lives)
def test_only_early_deaths_in_a_row_are_hopeless(lives_s: list[float]) -> None:
    row = 0
    for lived_s in lives_s:
        row = row + 1 if lived_s < EARLY_S else 0
    assert health_after(lives_s).hopeless == (row >= EARLY_DEATHS)


def test_the_backoff_doubles() -> None:
    assert [health_after([1.0] * n).backoff_s for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 10, 10]


def test_a_death_is_told_with_its_cause() -> None:
    assert death_notice("small", -9) == "small was killed by SIGKILL and is started again"
    assert death_notice("small", 3) == "small died (exit code 3) and is started again"


def test_a_worker_consumes_its_own_queue_under_its_own_name() -> None:
    assert " ".join(router_command(python="py")) == (
        "py -m celery -A router_worker worker -n router@%h -Q requests -E "
        "--without-gossip --loglevel INFO"
    )
    assert " ".join(model_command("small", process=2, python="py")) == (
        "py -m celery -A model_workers worker -n small-2@%h -Q model.small -E "
        "--without-gossip --loglevel INFO"
    )


@pytest.mark.parametrize("model", ["router", "flower"])
def test_a_model_does_not_take_the_name_of_a_part(model: str) -> None:
    assert node_name(model) == f"model.{model}"


def test_flower_is_for_this_machine_only() -> None:
    assert "--address=127.0.0.1" in flower_command(5555)


def test_children_find_catalog_and_prices_from_another_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("work")
    monkeypatch.chdir(folder)
    ours = {"MODELYARD_CATALOG": "mine.yaml", "MODELYARD_PRICES": "prices.json"}
    env = child_environment(ours, broker_url="redis://r/0", catalog=None)
    assert env["MODELYARD_CATALOG"] == str(folder / "mine.yaml")
    assert env["MODELYARD_PRICES"] == str(folder / "prices.json")
    assert env["MODELYARD_BROKER_URL"] == "redis://r/0"
