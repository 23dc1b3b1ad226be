"""Price files: what is found under which name, what a catalog gets, what is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog import Catalog, Model, Price
from modelyard.catalog_file import default_catalog
from modelyard.errors import CatalogError
from modelyard.price_file import (
    MAX_BYTES,
    Priced,
    Prices,
    names_of,
    parse_prices,
    read_prices,
    with_prices,
)
from modelyard.settings import Settings

FILE: dict[str, Any] = {
    "sample_spec": {
        "input_cost_per_token": 0.0,
        "max_input_tokens": "max input tokens, if the provider specifies it",
        "mode": "one of: chat, embedding",
    },
    "gpt-4o": {
        "cache_read_input_token_cost": 1.25e-06,
        "input_cost_per_token": 2.5e-06,
        "litellm_provider": "openai",
        "max_input_tokens": 128000,
        "max_output_tokens": 16384,
        "mode": "chat",
        "output_cost_per_token": 1e-05,
        "supports_vision": True,
    },
    "azure/gpt-4o": {"input_cost_per_token": 2.75e-06, "mode": "chat"},
    "gpt-4o-2024-05-13": {"input_cost_per_token": 5e-06, "mode": "chat"},
    "claude-3-haiku": {
        "input_cost_per_token": 2.5e-07,
        "output_cost_per_token": 1.25e-06,
        "cache_creation_input_token_cost": 3e-07,
        "max_input_tokens": 200000.0,
    },
    "groq/llama-3.3-70b": {"input_cost_per_token": 5.9e-07, "max_input_tokens": 131072},
    "text-embedding-3": {"input_cost_per_token": 2e-08, "mode": "embedding"},
    "dall-e-3": {"output_cost_per_image": 0.04, "mode": "image_generation"},
    "by-the-second": {"input_cost_per_second": 0.1, "mode": "chat"},
    "bad-cost": {"input_cost_per_token": "cheap"},
    "bad-window": {"input_cost_per_token": 0, "max_input_tokens": "large"},
    "bad-entry": 3,
}
PRICES = Prices("prices.json", FILE)


def model(provider: str = "openai", name: str = "gpt-4o", url: str = "", **more: Any) -> Model:
    endpoints = [{"base_url": url or "https://api.openai.com/v1"}]
    if provider in {"extractive", "people", "litellm"}:
        endpoints = []
    return Model.model_validate(
        {"name": "m", "provider": provider, "model": name, "endpoints": endpoints, **more}
    )


def catalog(*models: Model) -> Catalog:
    return Catalog.model_validate(
        {"models": models, "routes": {"default": {"otherwise": [models[0].name]}}}
    )


def priced(one: Model) -> Model:
    return with_prices(catalog(one), PRICES).models[0]


def test_prices_are_by_the_million_and_windows_come_along() -> None:
    assert PRICES.find("gpt-4o") == Priced(
        Price(
            input_usd_per_mtok=2.5, output_usd_per_mtok=10, cached_input_usd_per_mtok=1.25
        ),
        128_000,
        16_384,
    )  # fmt: skip
    haiku = PRICES.find("claude-3-haiku")
    assert haiku is not None
    assert haiku.price.cache_write_usd_per_mtok == 0.3
    assert haiku.max_input_tokens == 200_000


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        ("gpt-4o-2024-08-06", 2.5),
        ("gpt-4o-2024-05-13", 5),
        ("gpt-4o-0806", 2.5),
        ("gpt-4o-latest", 2.5),
        ("claude-3-haiku-20240307", 0.25),
        ("claude-3-haiku@20240307", 0.25),
    ],
)
def test_a_date_is_left_away_where_the_file_does_not_have_it(name: str, usd: float) -> None:
    found = PRICES.find(name)
    assert found is not None
    assert found.price.input_usd_per_mtok == usd


@pytest.mark.parametrize(
    "name",
    ["", "gpt-4", "gpt-4o-mini", "sample_spec", "text-embedding-3", "dall-e-3", "by-the-second"],
)
def test_what_is_not_there_or_not_for_chat_is_not_found(name: str) -> None:
    assert PRICES.find(name) is None


def test_an_exact_name_counts_before_one_without_its_date() -> None:
    found = PRICES.find("azure/gpt-4o-2024-05-13", "gpt-4o-2024-05-13")
    assert found is not None
    assert found.price.input_usd_per_mtok == 5


@pytest.mark.parametrize(
    ("one", "usd"),
    [
        (model(), 2.5),
        (model("azure", url="https://x.openai.azure.com"), 2.75),
        (model("litellm", "azure/gpt-4o"), 2.75),
        (model("litellm", "openai/gpt-4o"), 2.5),
        (model(name="llama-3.3-70b", url="https://api.groq.com/openai/v1"), 0.59),
        (model(name="llama-3.3-70b", url="http://gpu:8000/v1"), 0),
        (model(name="unheard-of"), 0),
        (model("extractive", "gpt-4o"), 0),
        (model("people", "gpt-4o"), 0),
    ],
)
def test_a_model_is_found_by_its_provider_and_its_address(one: Model, usd: float) -> None:
    assert priced(one).price.input_usd_per_mtok == usd


def test_bedrock_and_vertex_have_names_with_their_prefixes() -> None:
    bedrock = model("bedrock", "nova", endpoints=[{"region": "eu-west-1"}])
    assert names_of(bedrock) == ("bedrock/eu-west-1/nova", "bedrock/nova", "nova")
    vertex = model("vertex", "gemini-x", endpoints=[{"region": "global"}])
    assert names_of(vertex) == ("vertex_ai/gemini-x", "gemini-x")


def test_where_endpoints_differ_the_first_ones_names_come_first() -> None:
    azure = {"base_url": "https://x.openai.azure.com", "provider": "azure", "model": "our-gpt"}
    groq = {"base_url": "https://api.groq.com/openai/v1", "model": "y"}
    two = model(endpoints=[azure, {"base_url": "https://api.openai.com/v1"}, groq, azure])
    names = ("azure/our-gpt", "our-gpt", "openai/gpt-4o", "gpt-4o", "groq/y", "y")
    assert names_of(two) == names
    assert priced(two).price.input_usd_per_mtok == 2.5, "a deployment may have any name"


def test_a_price_of_its_own_stays_and_so_does_the_window() -> None:
    free = model(price={"input_usd_per_mtok": 0})
    assert priced(free) == free
    assert priced(free).context_tokens == model().context_tokens


def test_the_window_is_the_files_unless_the_catalog_gives_one() -> None:
    assert priced(model("anthropic", "claude-3-haiku")).context_tokens == 200_000
    given = model("anthropic", "claude-3-haiku", context_tokens=1000)
    assert priced(given).context_tokens == 1000
    assert priced(given).price.output_usd_per_mtok == 1.25


def test_a_catalog_keeps_its_routes_and_the_order_of_its_models() -> None:
    before = catalog(model(), model(name="x").model_copy(update={"name": "n"}))
    after = with_prices(before, PRICES)
    assert after.routes == before.routes
    assert [each.name for each in after.models] == ["m", "n"]
    assert before.models[0].price == Price(), "the old one is as it was"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("bad-cost", "prices.json: model 'bad-cost': 'input_cost_per_token' must be a number"),
        ("bad-window", "prices.json: model 'bad-window': 'max_input_tokens' must be a whole"),
        ("bad-entry", "prices.json: model 'bad-entry': must be an object"),
    ],
)
def test_a_wrong_entry_is_told_when_it_is_used_and_not_before(name: str, error: str) -> None:
    assert priced(model()).price.input_usd_per_mtok == 2.5
    with pytest.raises(CatalogError) as caught:
        priced(model(name=name))
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize("cost", [-1e-06, float("inf"), float("nan"), True, "1", [], 1e9])
def test_a_cost_that_is_none_is_refused(cost: object) -> None:
    with pytest.raises(CatalogError, match="dollars per token"):
        Prices("p", {"x": {"input_cost_per_token": 1, "output_cost_per_token": cost}}).find("x")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "p.json:1: the price file is not JSON"),
        (b'{\n"a": }', "p.json:2: the price file is not JSON"),
        (b"[]", "p.json:1: a price file is an object of models"),
        (b'{"a": NaN}', "p.json: the price file is not JSON of numbers and names: NaN"),
        (b'{\n"a": "\xff"}', "p.json:2: the price file is not UTF-8"),
        (b"[" * 200_000, "p.json: the price file is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "p.json: the price file is not JSON"),
    ],
)
def test_what_is_no_price_file_is_refused_with_the_line(content: bytes, error: str) -> None:
    with pytest.raises(CatalogError) as caught:
        parse_prices(content, "p.json")
    assert str(caught.value).startswith(error)


def test_a_file_that_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    with pytest.raises(CatalogError, match="can't be read: No such file"):
        read_prices(path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(CatalogError, match="can't be read: it is a named pipe, not a file"):
        read_prices(tmp_path / "pipe.json")
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(CatalogError, match="more than"):
        read_prices(path)


def test_the_setting_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prices.json").write_text(json.dumps(FILE))
    (tmp_path / "catalog.yaml").write_text(
        "models:\n"
        "  - {name: a, provider: openai, model: gpt-4o, endpoints: [{base_url: https://a/v1}]}\n"
        "  - {name: b, provider: openai, model: other, endpoints: [{base_url: https://a/v1}]}\n"
        "routes: {default: {otherwise: [a]}}\n"
    )
    monkeypatch.setenv("MODELYARD_CATALOG", str(tmp_path / "catalog.yaml"))
    assert default_catalog().model("a").price == Price()
    monkeypatch.setenv("MODELYARD_PRICES", str(tmp_path / "prices.json"))
    assert default_catalog().model("a").price.input_usd_per_mtok == 2.5
    assert default_catalog().model("b").price == Price()
    missing = Settings(catalog=tmp_path / "catalog.yaml", prices=tmp_path / "none.json")
    with pytest.raises(CatalogError, match="the price file can't be read"):
        default_catalog(missing)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
)
entries = st.one_of(
    values,
    st.dictionaries(
        st.sampled_from(["input_cost_per_token", "output_cost_per_token", "max_input_tokens"])
        | st.sampled_from(["mode", "cache_read_input_token_cost", "max_output_tokens"]),
        values,
    ),
)


@given(entry=entries)
def test_any_entry_is_a_price_none_or_an_error_of_ours(entry: object) -> None:
    try:
        found = Prices("p", {"x": entry}).find("x")
    except CatalogError:
        return
    assert found is None or found.price.input_usd_per_mtok >= 0
