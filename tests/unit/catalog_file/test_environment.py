"""Addresses and keys that a catalog file takes from the environment."""

import logging

import pytest
from catalog_texts import SECRET, Load, Problems, with_endpoint

from modelyard.catalog_file import UNSET_URL


class TestTheEnvironment:
    def test_fills_in_addresses_and_keys(self, load: Load) -> None:
        text = with_endpoint("base_url: http://${HOST}:${PORT}/v1", "api_key: ${KEY}")
        catalog = load(text, {"HOST": "gpu-1", "PORT": "8000", "KEY": f"{SECRET}\n"})
        [endpoint] = catalog.model("small").live_endpoints
        assert endpoint.base_url == "http://gpu-1:8000/v1"
        assert endpoint.api_key is not None
        assert endpoint.api_key.get_secret_value() == SECRET

    def test_a_server_without_a_key_needs_none(self, load: Load) -> None:
        [endpoint] = (
            load(with_endpoint("base_url: http://localhost:11434/v1"), {}).models[0].endpoints
        )
        assert endpoint.api_key is None
        assert endpoint.disabled is None

    @pytest.mark.parametrize("environ", [{}, {"KEY": ""}, {"KEY": " \n"}])
    def test_an_unset_or_empty_key_disables_its_endpoint_only(
        self, load: Load, environ: dict[str, str]
    ) -> None:
        text = with_endpoint("base_url: https://a.example", "api_key: ${KEY}").replace(
            "routes:", "      - base_url: http://b.example\nroutes:"
        )
        off, live = load(text, environ).model("small").endpoints
        assert (off.disabled, off.base_url, off.api_key) == ("KEY", "https://a.example", None)
        assert live.disabled is None

    def test_an_unset_address_disables_its_endpoint(self, load: Load) -> None:
        catalog = load(with_endpoint("base_url: ${URL}", "api_key: ${KEY}"))
        [endpoint] = catalog.model("small").endpoints
        assert (endpoint.disabled, endpoint.base_url) == ("URL", UNSET_URL)

    def test_each_disabled_endpoint_is_logged_once(
        self, load: Load, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "modelyard.catalog")
        text = with_endpoint("base_url: https://${HOST}", "api_key: ${KEY}").replace(
            "routes:", "      - base_url: http://${HOST_2}\nroutes:"
        )
        load(text, {})
        assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
            (
                "modelyard.catalog",
                "INFO",
                f"model 'small', endpoint {number} is not used: "
                f"set {names} in the environment to use it",
            )
            for number, names in ((1, "HOST, KEY"), (2, "HOST_2"))
        ]

    @pytest.mark.parametrize(
        ("url", "what"),
        [
            ("api.example.com", "must start with http:// or https://"),
            ("https://:443", "is not an address, such as https://api.example.com/v1"),
            ("http://[::1", "is not an address, such as https://api.example.com/v1"),
            ("http://host:port", "is not an address, such as https://api.example.com/v1"),
            ("http://a b", "is not an address, such as https://api.example.com/v1"),
            ("http://$HOST", "has a '$' that is not part of ${NAME}"),
            ("http://${HOST", "has a '$' that is not part of ${NAME}"),
            ("http://${HOST:-x}", "has a '$' that is not part of ${NAME}"),
            (
                f"https://me:{SECRET}@a.example",
                "must not hold a user name or password; a key goes into api_key",
            ),
        ],
    )
    def test_a_wrong_address_is_a_mistake(self, problems: Problems, url: str, what: str) -> None:
        assert problems(with_endpoint(f"base_url: '{url}'")) == (
            f"catalog.yaml:5: model 'small', endpoint 1: 'base_url' {what}",
        )

    def test_a_wrong_address_from_the_environment_names_its_variable(
        self, problems: Problems
    ) -> None:
        assert problems(with_endpoint("base_url: ${URL}"), {"URL": "localhost:1"}) == (
            "catalog.yaml:5: model 'small', endpoint 1: 'base_url' must start with http:// or "
            "https:// (with URL from the environment)",
        )

    def test_a_disabled_endpoint_hides_no_other_mistake(self, problems: Problems) -> None:
        text = with_endpoint("base_url: ${URL}", "api_kye: ${KEY}")
        assert problems(text, {}) == (
            "catalog.yaml:6: model 'small', endpoint 1: unknown key 'api_kye' "
            "(did you mean 'api_key'?)",
        )
