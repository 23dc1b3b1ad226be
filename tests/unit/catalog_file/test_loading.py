"""A catalog file that is well, and the one that is there by default."""

import re
from pathlib import Path

import pytest
from catalog_texts import FULL, SECRET, Load, changed

from modelyard.catalog import Model
from modelyard.catalog_file import default_catalog, load_catalog
from modelyard.settings import Settings, config_dir


class TestAGoodFile:
    def test_becomes_a_catalog(self, load: Load) -> None:
        catalog = load(FULL)
        small, local = catalog.models
        assert small.provider_model == "gpt-4o-mini"
        assert small.price.output_usd_per_mtok == 0.60
        assert small.retry.calls == 2
        assert local == Model(name="local", provider="extractive")
        rule = catalog.route("default").rules[0]
        assert rule.when.keywords == ("summarize", "tl;dr")
        assert rule.models == ("small", "local")

    def test_words_that_yaml_takes_for_something_else_stay_words(self, load: Load) -> None:
        catalog = load(
            """
            models:
              - {name: no, provider: extractive}
              - {name: 4.10, provider: extractive}
              - {name: 2024-01-02, provider: extractive}
            routes:
              default:
                rules:
                  - {when: {keywords: [yes, 007]}, intent: on, models: [no]}
                otherwise: [4.10, 2024-01-02]
            """
        )
        assert [model.name for model in catalog.models] == ["no", "4.10", "2024-01-02"]
        assert catalog.route("default").rules[0].when.keywords == ("yes", "007")

    def test_a_key_whose_entries_are_commented_out_counts_as_not_given(self, load: Load) -> None:
        text = changed("    retry:\n", "    retry:\n      # as the others\n")
        text = re.sub(r"      (calls|base_s|cap_s|patience_s): .*\n", "", text)
        assert load(text).model("small").retry.calls == 3

    def test_aliases_repeat_a_value(self, load: Load) -> None:
        text = changed("models: [small, local]", "models: &both [small, local]")
        text = text.replace("otherwise: [local]", "otherwise: *both")
        assert load(text).route("default").otherwise.models == ("small", "local")

    def test_may_begin_with_a_byte_order_mark(self, load: Load) -> None:
        assert load(b"\xef\xbb\xbf" + FULL.encode()).models


class TestTheDefaultCatalog:
    path = config_dir() / "catalog.yaml"

    def test_without_a_key_has_the_local_models(self) -> None:
        catalog = load_catalog(self.path, {})
        assert [model.name for model in catalog.live_models] == ["local-small", "local-large"]
        assert catalog.model("small").disabled == "OPENAI_API_KEY is not set"

    def test_with_a_key_has_all_models_and_the_key(self) -> None:
        catalog = load_catalog(self.path, {"OPENAI_API_KEY": SECRET})
        assert len(catalog.live_models) == len(catalog.models) == 4
        key = catalog.model("large").endpoints[0].api_key
        assert key is not None
        assert key.get_secret_value() == SECRET

    def test_every_route_tries_provider_models_first_and_ends_at_local_ones(self) -> None:
        catalog = load_catalog(self.path, {})
        for route in catalog.routes.values():
            for names in (route.otherwise.models, *(rule.models for rule in route.rules)):
                local = [catalog.model(name).provider == "extractive" for name in names]
                assert local == sorted(local)
                assert not local[0]
                assert local[-1]

    def test_is_what_the_settings_name_by_default(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MODELYARD_CATALOG", raising=False)
        monkeypatch.setenv("OPENAI_API_KEY", SECRET)
        assert default_catalog() == load_catalog(self.path, {"OPENAI_API_KEY": SECRET})

    def test_settings_can_name_another(self, load: Load) -> None:
        load(FULL)
        catalog = default_catalog(Settings(catalog=Path("catalog.yaml")))
        assert [model.name for model in catalog.models] == ["small", "local"]
