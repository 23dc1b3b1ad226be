"""Keys stay out of catalog files, and of all that is said and shown."""

import logging
import re
import traceback

import pytest
from catalog_texts import FULL, SECRET, Load, Problems, changed, with_endpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelyard.catalog_file import load_catalog
from modelyard.errors import CatalogError


class TestSecrets:
    refusal = (
        "catalog.yaml:6: model 'small', endpoint 1: 'api_key' must be exactly ${NAME}; "
        "keep the key in that environment variable"
    )

    @pytest.mark.parametrize(
        "value",
        [SECRET, f"'{SECRET}'", f"Bearer {SECRET}", "$KEY", "Bearer ${KEY}", "", "''", "[]"],
    )
    def test_a_key_in_the_file_is_refused(self, problems: Problems, value: str) -> None:
        text = with_endpoint("base_url: https://a.example", f"api_key: {value}")
        assert problems(text) == (self.refusal,)

    @settings(deadline=None)
    @given(key=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8))
    def test_a_key_in_the_file_is_never_repeated(
        self, key: str, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        assume(not re.fullmatch(r"\$\{\w+\}", key))
        path = tmp_path_factory.mktemp("key") / "catalog.yaml"
        quoted = "'" + key.replace("'", "''") + "'"
        path.write_text(with_endpoint("base_url: https://a.example", f"api_key: {quoted}"))
        with pytest.raises(CatalogError) as caught:
            load_catalog(path, {})
        assert caught.value.problems == (f"{path}{self.refusal.removeprefix('catalog.yaml')}",)

    @pytest.mark.parametrize(
        "endpoint",
        [
            f"api_key:{SECRET}",
            f"{{base_url: https://a.example, api_key:{SECRET}}}",
            f"{{base_url: https://a.example, api_key={SECRET}, api_key={SECRET}}}",
            f"{{base_url: https://a.example, apikey: {SECRET}}}",
            f"{{base_url: https://a.example, api_key: {{x: {SECRET}}}}}",
            f"{{base_url: https://a.example, api_key: !{SECRET} x}}",
            f"{{base_url: https://a.example, api_key: *{SECRET}}}",
            f'{{base_url: https://a.example, api_key: "{SECRET}}}',
            f"{{base_url: {SECRET}}}",
            f"{{base_url: [{SECRET}]}}",
            SECRET,
        ],
    )
    def test_stay_out_of_errors_wherever_they_were_put(self, load: Load, endpoint: str) -> None:
        with pytest.raises(CatalogError) as caught:
            load(with_endpoint(endpoint))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(caught.value.__context__)

    @pytest.mark.parametrize("key", [f"{SECRET} x", f"{SECRET}\u00e9", f"{SECRET}\nx"])
    def test_a_key_that_no_header_can_carry_is_refused_by_its_variable(
        self, problems: Problems, key: str
    ) -> None:
        text = with_endpoint("base_url: https://a.example", "api_key: ${KEY}")
        assert problems(text, {"KEY": key}) == (
            "catalog.yaml:6: model 'small', endpoint 1: the key in KEY holds a space or a "
            "character that is not ASCII",
        )

    def test_stay_out_of_everything_that_is_shown(
        self, load: Load, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        catalog = load(FULL)
        for shown in (repr(catalog), str(catalog), catalog.model_dump_json(), caplog.text):
            assert SECRET not in shown
        with pytest.raises(CatalogError) as caught:
            load(changed("quality: 0.6", "quality: 6"))
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(caught.value.__context__)
