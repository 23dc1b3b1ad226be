"""Models of provider `people`, and names with a version: what runs for them, and its name."""

from modelyard.catalog import Catalog
from producer.commands import model_command, node_name
from producer.window import window
from producer.yard import pool_specs

SMALL = {"name": "small", "provider": "extractive", "context_tokens": 1_000}
SUPPORT = {"name": "support", "provider": "people", "context_tokens": 50_000}


def catalog(*models: dict[str, object], otherwise: tuple[str, ...] = ("small",)) -> Catalog:
    return Catalog.model_validate(
        {"models": models, "routes": {"default": {"otherwise": otherwise}}}
    )


def test_people_are_no_model_that_a_worker_calls() -> None:
    assert [model.name for model in catalog(SMALL, SUPPORT).live_models] == ["small"]


def test_the_window_of_a_route_is_that_of_its_models_and_not_of_the_people_behind_them() -> None:
    both = catalog(SMALL, SUPPORT, otherwise=("small", "support"))
    alone = catalog(SMALL, otherwise=("small",))
    assert window(both, "default") == window(alone, "default")
    people = catalog(SMALL, SUPPORT, otherwise=("support",))
    assert window(people, "default").safe_tokens > 40_000


def test_a_version_is_no_host() -> None:
    # Celery's nodes are NAME@HOST; the name ends at the first @.
    command = model_command("small@v2", "large", process=2)
    assert command[command.index("-n") + 1] == "small=v2+large-2@%h"
    assert command[command.index("-Q") + 1] == "model.small@v2,model.large"
    assert node_name("small@v2") != node_name("small-v2")
    specs = pool_specs("small@v2", processes=2, python="py", loglevel="INFO")
    assert [spec.name for spec in specs] == ["small=v2-1", "small=v2-2"]
