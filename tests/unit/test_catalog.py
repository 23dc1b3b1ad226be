"""What the catalog's parts know about themselves."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from modelyard.catalog import Catalog, Endpoint, Model, Price, UnknownName, suggestion
from modelyard.messages import Usage
from modelyard.routes import Route, Rule, When

LIVE = Endpoint(base_url="http://live.example/v1")
OFF = Endpoint(base_url="http://off.example/v1", disabled="OFF_KEY")


def remote(**values: Any) -> Model:
    return Model(**{"name": "small", "provider": "openai", "endpoints": (LIVE,)} | values)


class TestSuggestion:
    def test_names_the_nearest(self) -> None:
        assert suggestion("smal", ["large", "small"]) == " (did you mean 'small'?)"

    def test_lists_all_when_none_is_near(self) -> None:
        assert suggestion("xyz", ["small", "large"]) == " (known: large, small)"

    def test_is_silent_when_there_is_nothing_to_suggest(self) -> None:
        assert suggestion("xyz", []) == ""


class TestPrice:
    def test_is_per_million_tokens(self) -> None:
        price = Price(input_usd_per_mtok=0.15, output_usd_per_mtok=0.60)
        usage = Usage(input_tokens=2_000_000, output_tokens=500_000)
        assert price.cost_usd(usage) == pytest.approx(0.60)

    def test_is_nothing_by_default(self) -> None:
        assert Price().cost_usd(Usage(input_tokens=10, output_tokens=10)) == 0.0

    @given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
    def test_two_calls_cost_as_much_as_their_sum(self, a: int, b: int, out: int) -> None:
        price = Price(input_usd_per_mtok=2.5, output_usd_per_mtok=10.0)
        first, second = Usage(input_tokens=a), Usage(input_tokens=b, output_tokens=out)
        apart = price.cost_usd(first) + price.cost_usd(second)
        assert price.cost_usd(first + second) == pytest.approx(apart)

    @pytest.mark.parametrize("price", [-0.01, math.inf, math.nan])
    def test_is_a_finite_amount(self, price: float) -> None:
        with pytest.raises(ValidationError):
            Price(input_usd_per_mtok=price)


class TestEndpoint:
    @pytest.mark.parametrize(
        ("url", "label"),
        [
            ("https://api.openai.com/v1/", "api.openai.com/v1"),
            ("http://localhost:8000", "localhost:8000"),
            ("https://user:word@proxy.example/v1?key=word", "proxy.example/v1"),
        ],
    )
    def test_label_has_no_scheme_credentials_or_query(self, url: str, label: str) -> None:
        assert Endpoint(base_url=url).label == label

    @pytest.mark.parametrize("url", ["", "api.openai.com", "ftp://x.example", "http://"])
    def test_needs_an_http_address(self, url: str) -> None:
        with pytest.raises(ValidationError):
            Endpoint(base_url=url)

    def test_hides_its_key(self) -> None:
        endpoint = Endpoint.model_validate({"base_url": "http://x", "api_key": "hidden-key"})
        model = remote(endpoints=(endpoint,))
        for shown in (repr(endpoint), str(endpoint), repr(model), model.model_dump_json()):
            assert "hidden-key" not in shown

    def test_hides_its_key_when_the_model_around_it_is_refused(self) -> None:
        endpoint = {"base_url": "http://x", "api_key": "hidden-key"}
        with pytest.raises(ValidationError) as caught:
            Model.model_validate({"name": "a", "provider": "extractive", "endpoints": [endpoint]})
        assert "hidden-key" not in str(caught.value)


class TestModel:
    def test_is_called_by_its_own_name_unless_the_provider_has_another(self) -> None:
        assert remote().provider_model == "small"
        assert remote(model="gpt-4o-mini").provider_model == "gpt-4o-mini"

    def test_an_endpoint_may_have_a_provider_and_a_name_of_its_own(self) -> None:
        model = Model.model_validate(
            {
                "name": "gpt",
                "provider": "openai",
                "model": "gpt-4o",
                "endpoints": [
                    {"base_url": "http://a"},
                    {"base_url": "http://b", "provider": "azure", "model": "eu"},
                    {"base_url": "http://c", "provider": "azure"},
                    {"provider": "bedrock", "region": "eu-west-1", "model": "eu"},
                    {"provider": "anthropic"},
                ],
            }
        )
        there = [model.at(each) for each in model.endpoints]
        assert there[0] is model
        assert [(each.provider, each.provider_model) for each in there] == [
            ("openai", "gpt-4o"),
            ("azure", "eu"),
            ("azure", "gpt-4o"),
            ("bedrock", "eu"),
            ("anthropic", "gpt-4o"),
        ]
        assert [each.base_url for each in model.endpoints[3:]] == [
            "https://bedrock-runtime.eu-west-1.amazonaws.com",
            "https://api.anthropic.com",
        ], "the address follows from its own provider"
        assert model.provider_models == ("gpt-4o", "eu")

    def test_the_address_of_the_models_provider_is_not_for_another_one(self) -> None:
        with pytest.raises(ValidationError, match="base_url"):
            Model.model_validate(
                {"name": "c", "provider": "anthropic", "endpoints": [{"provider": "openai"}]}
            )

    @pytest.mark.parametrize("provider", ["extractive", "python", "people"])
    def test_what_has_no_address_is_no_endpoints_provider(self, provider: str) -> None:
        with pytest.raises(ValidationError, match=f"provider '{provider}' has no endpoints"):
            Endpoint.model_validate({"base_url": "http://x", "provider": provider})

    def test_one_live_endpoint_is_enough(self) -> None:
        model = remote(endpoints=(OFF, LIVE))
        assert model.disabled is None
        assert model.live_endpoints == (LIVE,)

    def test_without_a_live_endpoint_it_says_what_is_missing_once(self) -> None:
        model = remote(endpoints=(OFF, OFF))
        assert model.disabled == "OFF_KEY is not set"
        assert model.live_endpoints == ()

    def test_an_extractive_model_is_always_live(self) -> None:
        assert Model(name="local", provider="extractive").disabled is None

    def test_a_remote_model_needs_an_endpoint(self) -> None:
        with pytest.raises(ValidationError, match="needs at least one endpoint"):
            remote(endpoints=())

    def test_an_extractive_model_has_none(self) -> None:
        with pytest.raises(ValidationError, match="has no endpoints"):
            remote(provider="extractive")

    def test_a_function_has_none(self) -> None:
        with pytest.raises(ValidationError, match="'python' runs inside the worker and has no"):
            remote(provider="python", entry_point="answers:answer")

    def test_input_leaves_room_for_the_output(self) -> None:
        assert remote(context_tokens=8_000, max_output_tokens=256).input_limit_tokens == 7_744

    @given(st.integers(1, 10**6), st.integers(1, 10**6))
    def test_some_input_always_fits(self, context: int, output: int) -> None:
        model = remote(context_tokens=context, max_output_tokens=output)
        assert 1 <= model.input_limit_tokens <= context

    @pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "ä", "a" * 81, "a\n"])
    def test_names_are_safe_in_queue_names_and_shells(self, name: str) -> None:
        with pytest.raises(ValidationError):
            remote(name=name)

    def test_is_frozen(self) -> None:
        with pytest.raises(ValidationError):
            remote().quality = 1.0  # type: ignore[misc]


class TestWhen:
    @pytest.mark.parametrize(
        "condition", [{"keywords": ("tl;dr",)}, {"min_tokens": 0}, {"max_tokens": 0}]
    )
    def test_one_condition_is_enough(self, condition: dict[str, Any]) -> None:
        assert When(**condition)

    def test_no_condition_is_a_mistake(self) -> None:
        with pytest.raises(ValidationError, match="needs a condition"):
            When()

    def test_a_range_may_be_one_length_but_not_empty(self) -> None:
        assert When(min_tokens=5, max_tokens=5)
        with pytest.raises(ValidationError, match="can never match"):
            When(min_tokens=6, max_tokens=5)

    def test_an_empty_keyword_would_match_everything(self) -> None:
        with pytest.raises(ValidationError):
            When(keywords=("",))


class TestCatalog:
    catalog = Catalog(
        models=(remote(), remote(name="off", endpoints=(OFF,))),
        routes={"default": Route(otherwise=("small", "off"))},
    )

    def test_finds_models_and_routes_by_name(self) -> None:
        assert self.catalog.model("off").name == "off"
        assert self.catalog.route("default").otherwise.models == ("small", "off")

    def test_suggests_the_name_that_was_meant(self) -> None:
        with pytest.raises(UnknownName, match=r"unknown model 'smal' \(did you mean 'small'\?\)"):
            self.catalog.model("smal")
        with pytest.raises(UnknownName, match=r"unknown route 'defalt' \(did you mean 'default'"):
            self.catalog.route("defalt")

    def test_live_models_are_those_that_can_be_called(self) -> None:
        assert [model.name for model in self.catalog.live_models] == ["small"]

    def test_needs_a_model_and_a_route_and_candidates(self) -> None:
        with pytest.raises(ValidationError):
            Catalog(models=(), routes=self.catalog.routes)
        with pytest.raises(ValidationError):
            Catalog(models=self.catalog.models, routes={})
        with pytest.raises(ValidationError):
            Route(otherwise=())
        with pytest.raises(ValidationError):
            Rule(when=When(min_tokens=1), intent="long", models=())
