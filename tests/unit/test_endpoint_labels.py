"""What Redis knows of an endpoint is told, whatever variables are set where somebody asks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.endpoints.board import Load, encode, encode_loads
from model_workers.lines import told_apart
from modelyard.alerts import News, alerts
from modelyard.catalog import Catalog
from modelyard.catalog_file import load_catalog
from modelyard.circuit import Circuit, Reason
from modelyard.endpoint_labels import named
from modelyard.news import endpoint_news
from producer.display import show_catalog
from producer.endpoints import states_of

NOW = 1_800_000_000.0
DENIED = encode(Circuit(until=NOW + 30, since=NOW - 1, why=Reason.DENIED))
ALL = {"BAD": "wrong", "GOOD": "right", "URL": "http://far.test/v1"}
TEXT = """
models:
  - name: small
    provider: openai
    endpoints:
      - {name: west, base_url: "${URL}", api_key: "${BAD}"}
      - {base_url: "http://a.test/v1", api_key: "${BAD}"}
      - {base_url: "http://a.test/v1", api_key: "${GOOD}"}
      - {base_url: "${URL}"}
routes: {default: {otherwise: [small]}}
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "catalog.yaml"
    path.write_text(TEXT)
    return path


def of(path: Path, *variables: str) -> Catalog:
    return load_catalog(path, {name: ALL[name] for name in variables})


def told(catalog: Catalog, label: str) -> tuple[list[str], list[str]]:
    """The states and the alerts where all workers have all variables, and one endpoint denies."""
    workers = ("west", "a.test/v1", "a.test/v1 (2)", "far.test/v1")
    loads = encode_loads({name: Load() for name in workers}, NOW - 60)
    fields = {label.encode(): DENIED.encode(), b"@one": loads.encode()}
    news = News(tuple(endpoint_news(catalog.models[0], fields, NOW)))
    states = states_of(catalog.models[0], fields, NOW)
    assert [each.endpoint for each in news.endpoints] == [each.endpoint for each in states]
    return [f"{each.endpoint}: {each.state}" for each in states], [
        each.about for each in alerts(news, NOW)
    ]


@pytest.mark.parametrize("label", ["west", "a.test/v1", "a.test/v1 (2)", "far.test/v1"])
@pytest.mark.parametrize("here", [(), ("GOOD",), ("BAD",), ("URL", "GOOD"), tuple(ALL)])
def test_what_workers_told_wins_over_the_environment_of_who_asks(
    path: Path, label: str, here: tuple[str, ...]
) -> None:
    assert told(of(path, *here), label) == told(of(path, *ALL), label)
    assert told(of(path, *here), label)[1] == [f"small at {label}"]


def test_of_what_nobody_told_only_the_environment_knows(path: Path) -> None:
    states = states_of(of(path, "GOOD").models[0], {}, NOW)
    assert [(each.endpoint, each.state) for each in states] == [
        ("west", "off"),
        ("a.test/v1 (2)", "off"),
        ("a.test/v1", "well"),
        ("endpoint 4", "off"),
    ]
    assert not list(endpoint_news(of(path).models[0], {}, NOW))


def test_endpoints_of_unknown_address_lose_no_alert_to_each_other(path: Path) -> None:
    model = of(path, "BAD", "GOOD").models[0]
    fields = {f"{name}.test".encode(): DENIED.encode() for name in ("old", "new")}
    news = News(tuple(endpoint_news(model, fields, NOW)))
    assert [each.about for each in alerts(news, NOW)] == ["small at new.test", "small at old.test"]


@given(here=st.sets(st.sampled_from(sorted(ALL))))
def test_who_has_the_variables_of_the_workers_has_their_labels(path: Path, here: set[str]) -> None:
    model = of(path, *here).models[0]
    theirs = [label for label, _ in told_apart(model)]
    assert [each.label for each in named(model, set(theirs)) if each.known] == theirs


@pytest.mark.parametrize(
    "odd", ["[]", "{", "5", '{"at": "x", "loads": {}}', '{"at": 9e9}', '{"at": 9e9, "loads": 5}']
)
def test_loads_that_nobody_can_read_say_nothing(path: Path, odd: str) -> None:
    assert not list(endpoint_news(of(path).models[0], {b"@one": odd.encode()}, NOW))


def test_a_catalog_says_which_endpoints_are_left_out(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_catalog(Path("c.yaml"), of(path, "GOOD"))
    assert capsys.readouterr().out.splitlines() == [
        "c.yaml: ok, 1 model, 1 route",
        "  small: ready, without 3 of 4 endpoints",
        "    west is off: BAD, URL are not set",
        "    a.test/v1 (2) is off: BAD is not set",
        "    endpoint 4 is off: URL is not set",
    ]


def test_a_model_without_any_endpoint_is_off(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_catalog(Path("c.yaml"), of(path))
    assert "  small: off, BAD, GOOD, URL are not set" in capsys.readouterr().out
