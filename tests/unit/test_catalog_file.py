"""The catalog file: what loads, and what each mistake is answered with."""

import difflib
import logging
import re
import textwrap
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from modelyard.catalog import Catalog, Model
from modelyard.catalog_file import MAX_BYTES, UNSET_URL, default_catalog, load_catalog
from modelyard.errors import CatalogError
from modelyard.settings import Settings, config_dir

SECRET = "sk-proj-T0psecret"

# Every key that a catalog can have, each on a line of its own.
FULL = """\
models:
  - name: small
    provider: openai
    model: gpt-4o-mini
    endpoints:
      - base_url: https://api.example.com/v1
        api_key: ${KEY}
    price:
      input_usd_per_mtok: 0.15
      output_usd_per_mtok: 0.60
    context_tokens: 128000
    max_output_tokens: 512
    quality: 0.6
    concurrency: 200
    timeout_s: 60
    retry:
      calls: 2
      base_s: 0.1
      cap_s: 5
      patience_s: 10
  - name: local
    provider: extractive
routes:
  default:
    rules:
      - when:
          keywords: [summarize, "tl;dr"]
          min_tokens: 10
          max_tokens: 400
        intent: summarize
        models: [small, local]
    otherwise: [local]
"""

Load = Callable[..., Catalog]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Write a text to catalog.yaml in the current folder and load it from there."""
    monkeypatch.chdir(tmp_path)

    def _load(text: str | bytes, environ: Mapping[str, str] | None = None) -> Catalog:
        path = Path("catalog.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_catalog(path, {"KEY": SECRET} if environ is None else environ)

    return _load


@pytest.fixture
def problems(load: Load) -> Callable[..., tuple[str, ...]]:
    """Load a text that must be refused; return what was said about it."""

    def _problems(text: str | bytes, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        with pytest.raises(CatalogError) as caught:
            load(text, environ)
        return caught.value.problems

    return _problems


Problems = Callable[..., tuple[str, ...]]


def changed(old: str, new: str) -> str:
    """Return the full catalog with one place changed."""
    assert FULL.count(old) == 1, f"{old!r} must stand in the catalog once"
    return FULL.replace(old, new)


def with_endpoint(*lines: str) -> str:
    """Return a small catalog whose only endpoint begins on line 5."""
    return (
        "models:\n  - name: small\n    provider: openai\n    endpoints:\n      - "
        + "\n        ".join(lines)
        + "\nroutes: {default: {otherwise: [small]}}\n"
    )


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


class TestMistakes:
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            (
                "provider: openai",
                "provider: opnai",
                "3: model 'small': unknown provider 'opnai' (did you mean 'openai'?)",
            ),
            (
                "context_tokens:",
                "contxt_tokens:",
                "11: model 'small': unknown key 'contxt_tokens' (did you mean 'context_tokens'?)",
            ),
            (
                "[small, local]",
                "[smal, local]",
                "31: route 'default', rule 1: unknown model 'smal' (did you mean 'small'?)",
            ),
            (
                "otherwise: [local]",
                "otherwise:\n      - small\n      - locl",
                "34: route 'default', otherwise: unknown model 'locl' (did you mean 'local'?)",
            ),
            (
                "[small, local]",
                "[small, local, small]",
                "31: route 'default', rule 1: model 'small' is in the list twice",
            ),
            (
                "provider: extractive",
                "provider: extractive\n  - name: small\n    provider: extractive",
                "23: model 'small': the model on line 2 has the same name",
            ),
            (
                "  default:",
                "  defalt:",
                "23: catalog: there is no route 'default', and there must be"
                " (is 'defalt' meant to be it?)",
            ),
            (
                "intent: summarize",
                "intent: summarize\n        intent: long",
                "31: route 'default', rule 1: 'intent' is given twice, first on line 30",
            ),
            (
                "        intent: summarize\n",
                "",
                "26: route 'default', rule 1: 'intent' is missing",
            ),
            (
                "context_tokens: 128000",
                "context_tokens: lots",
                "11: model 'small': 'context_tokens' must be a whole number (it is 'lots')",
            ),
            (
                "concurrency: 200",
                "concurrency: yes",
                "14: model 'small': 'concurrency' must be a whole number (it is 'yes')",
            ),
            (
                "quality: 0.6",
                "quality: 6",
                "13: model 'small': 'quality' must be 1 or less (it is '6')",
            ),
            (
                "timeout_s: 60",
                "timeout_s: .inf",
                "15: model 'small': 'timeout_s' must be a number (it is '.inf')",
            ),
            (
                "timeout_s: 60",
                "timeout_s: inf",
                "15: model 'small': 'timeout_s' must be a finite number (it is 'inf')",
            ),
            (
                "calls: 2",
                "calls: 0",
                "17: model 'small', retry: 'calls' must be 1 or more (it is '0')",
            ),
            (
                "provider: extractive",
                "provider: extractive\n  - name: lo cal\n    provider: extractive",
                "23: model 'lo cal': 'name' must start with a letter or digit and hold only "
                "letters, digits, '.', '_' and '-' (it is 'lo cal')",
            ),
            (
                '[summarize, "tl;dr"]',
                '[summarize, ""]',
                "27: route 'default', rule 1, when: 'keywords', item 2 must not be empty",
            ),
            (
                "otherwise: [local]",
                "otherwise: local",
                "32: route 'default', otherwise: must be a list of models, "
                "or a mapping with models",
            ),
            (
                "min_tokens: 10",
                "min_tokens: 1000",
                "26: route 'default', rule 1, when: min_tokens is larger than max_tokens: "
                "the rule can never match",
            ),
            (
                "model: gpt-4o-mini",
                "model: ${MODEL}",
                "4: model 'small', model: ${NAME} is replaced only in an endpoint's base_url "
                "and api_key",
            ),
            (
                "model: gpt-4o-mini",
                "model: !!python/name:os.system x",
                "4: model 'small', model: tags (!name) are not supported: write plain values",
            ),
            (
                "provider: extractive",
                "disabled: x\n    provider: extractive",
                "22: model 'local': unknown key 'disabled' (known: balance, breaker, "
                "concurrency, context_tokens, data_classes, endpoints, entry_point, latency_s, "
                "max_output_tokens, model, name, price, probe, provider, quality, quota, regions, "
                "retry, stream, timeout_s, tokens_per_s)",
            ),
        ],
    )
    def test_is_one_problem_with_its_line(
        self, problems: Problems, old: str, new: str, problem: str
    ) -> None:
        assert problems(changed(old, new)) == (f"catalog.yaml:{problem}",)

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (
                "provider: azur",
                "6: model 'small', endpoint 1: unknown provider 'azur' (did you mean 'azure'?)",
            ),
            (
                "provider: people",
                "5: model 'small', endpoint 1: provider 'people' has no endpoints: it can't be "
                "one's",
            ),
            ("model: ''", "6: model 'small', endpoint 1: 'model' must not be empty"),
        ],
    )
    def test_of_an_endpoints_own_provider_and_name_is_told_too(
        self, problems: Problems, line: str, problem: str
    ) -> None:
        assert problems(with_endpoint("base_url: http://h/v1", line)) == (
            f"catalog.yaml:{problem}",
        )

    def test_all_are_told_at_once_in_the_order_of_the_file(self, problems: Problems) -> None:
        text = textwrap.dedent(
            """\
            models:
              - name: small
                provider: opnai
                quality: -1
              - provider: extractive
              - nothing
            routes:
              default:
                rules:
                  - {when: {}, intent: x, models: [small]}
                  - when: {max_tokens: 1}
                    intent: x
                    models: []
                otherwise: [smal]
            extra: 1
            """
        )
        assert problems(text) == (
            "catalog.yaml:3: model 'small': unknown provider 'opnai' (did you mean 'openai'?)",
            "catalog.yaml:4: model 'small': 'quality' must be 0 or more (it is '-1')",
            "catalog.yaml:5: model 2: 'name' is missing",
            "catalog.yaml:6: model 3: must be a mapping of keys to values",
            "catalog.yaml:10: route 'default', rule 1, when: a rule needs a condition, such as "
            "keywords, pattern, min_tokens or metadata",
            "catalog.yaml:13: route 'default', rule 2: 'models' must not be empty",
            "catalog.yaml:14: route 'default', otherwise: unknown model 'smal' "
            "(did you mean 'small'?)",
            "catalog.yaml:15: catalog: unknown key 'extra' (known: aliases, budgets, models, "
            "quotas, routes)",
        )

    @settings(deadline=None)
    @given(data=st.data())
    def test_a_key_that_is_one_edit_off_is_suggested_on_its_line(
        self, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        lines = FULL.splitlines()
        named = [n for n, line in enumerate(lines) if ":" in line and "default:" not in line]
        at = data.draw(st.sampled_from(named))
        key = re.findall(r"([a-z_]+):", lines[at])[0]
        typo = data.draw(one_edit_off(key))
        known = set(re.findall(r"\b([a-z_]+):", FULL))
        assume(typo not in known)
        lines[at] = lines[at].replace(f"{key}:", f"{typo}:", 1)
        path = tmp_path_factory.mktemp("typo") / "catalog.yaml"
        path.write_text("\n".join(lines))
        with pytest.raises(CatalogError) as caught:
            load_catalog(path, {})
        [problem] = [p for p in caught.value.problems if f"unknown key {typo!r}" in p]
        assert problem.startswith(f"{path}:{at + 1}: ")
        meant = re.findall(r"did you mean '(\w+)'\?", problem)
        # `mix_tokens` is as near to max_tokens as to min_tokens: either is a good answer.
        assert meant == [key] or (meant and nearness(typo, meant[0]) >= nearness(typo, key))

    @settings(deadline=None)
    @given(blank=st.integers(0, 50))
    def test_the_line_is_the_one_in_the_file(
        self, blank: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("lines") / "catalog.yaml"
        path.write_text("# a comment\n" * blank + changed("quality: 0.6", "quality: 6"))
        with pytest.raises(CatalogError) as caught:
            load_catalog(path, {})
        assert caught.value.problems[0].startswith(f"{path}:{blank + 13}: ")


def one_edit_off(word: str) -> st.SearchStrategy[str]:
    """Return strategies for `word` with a letter dropped, doubled, changed or swapped."""
    place = st.integers(0, len(word) - 1)
    letter = st.sampled_from("abcdefghijklmnopqrstuvwxyz_")
    return st.one_of(
        place.map(lambda i: word[:i] + word[i + 1 :]),
        place.map(lambda i: word[:i] + word[i] + word[i:]),
        st.builds(lambda i, c: word[:i] + c + word[i + 1 :], place, letter),
        st.builds(lambda i, c: word[:i] + c + word[i:], place, letter),
    ).filter(lambda typo: typo != word)


def nearness(typo: str, key: str) -> float:
    return difflib.SequenceMatcher(None, key, typo).ratio()


class TestAFileThatIsNoCatalog:
    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            ("", "1: catalog: the file is empty; it needs 'models' and 'routes'"),
            ("# nothing\n", "1: catalog: the file is empty; it needs 'models' and 'routes'"),
            ("- a\n- b\n", "1: catalog: must be a mapping of keys to values"),
            (b"models:\n  - name: caf\xe9\n", "2: catalog: not UTF-8; save the file as UTF-8"),
            ("models:\n  - {name: a\n", "3: catalog: not valid YAML: "),
            ("a: 1\n---\nb: 2\n", "2: catalog: not valid YAML: expected a single document"),
            ("a: \x07\n", "1: catalog: not valid YAML: a control character"),
            ('a: "\\UFFFFFFFF"\n', "1: catalog: not valid YAML: an escape that stands for no"),
            ("models: &x [*x]\n", "1: catalog: nested too deeply or too large"),
            ("[" * 5000, "1: catalog: not valid YAML: nested too deeply"),
            ("#" * (MAX_BYTES + 1), f"1: catalog: more than {MAX_BYTES} bytes; is it a catalog?"),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_is_refused_with_the_reason(
        self, problems: Problems, content: str | bytes, problem: str
    ) -> None:
        [told] = problems(content)
        assert told.startswith(f"catalog.yaml:{problem}")

    def test_aliases_of_aliases_do_not_fill_the_memory(self, problems: Problems) -> None:
        levels = [f"&a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        [told] = problems(f"models: [{', '.join(['&a0 [x, x]', *levels])}]")
        assert "too large" in told

    def test_a_missing_file_says_what_to_set(self, tmp_path: Path) -> None:
        with pytest.raises(
            CatalogError, match=r"nowhere\.yaml: can't be read: .*MODELYARD_CATALOG"
        ):
            load_catalog(tmp_path / "nowhere.yaml", {})

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(CatalogError, match="can't be read"):
            load_catalog(tmp_path, {})

    @settings(deadline=None)
    @given(
        content=st.binary(max_size=60)
        | st.text(alphabet="models:rut-&*![]{}#'\"\\U%<\n ,0~", max_size=60).map(str.encode)
    )
    @example(content=b'models: [{name: "\\uD800", provider: extractive}]\nroutes: {default: 1}')
    def test_whatever_it_holds_the_answer_is_a_catalog_error(
        self, content: bytes, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        path = tmp_path_factory.mktemp("any") / "catalog.yaml"
        path.write_bytes(content)
        with pytest.raises(CatalogError) as caught:
            load_catalog(path, {})
        assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
        assert str(caught.value).encode()

    @settings(deadline=None)
    @given(
        at=st.integers(0, FULL.count("\n") - 1),
        damage=st.sampled_from(
            ["", "- ", "  ", "x", "[", "x: ", "~", "- - {x: [~]}", "? ", "&x *x"]
        )
        | st.text(st.characters(codec="utf-8"), max_size=10),
        keep=st.booleans(),
    )
    def test_a_damaged_line_is_a_catalog_or_a_catalog_error(
        self, at: int, damage: str, keep: bool, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        lines = FULL.splitlines()
        indent = len(lines[at]) - len(lines[at].lstrip())
        lines[at] = lines[at][:indent] + damage + (lines[at][indent:] if keep else "")
        path = tmp_path_factory.mktemp("damaged") / "catalog.yaml"
        path.write_text("\n".join(lines), encoding="utf-8")
        try:
            catalog = load_catalog(path, {})
        except CatalogError as error:
            assert all(re.match(rf"{path}:\d+: \w+.*: ", line) for line in error.problems)
        else:
            names = {model.name for model in catalog.models}
            assert names.issuperset(catalog.route("default").otherwise.models)


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


ROUTED = """\
models:
  - {name: small, provider: extractive}
  - {name: large, provider: extractive}
  - {name: support, provider: people}
routes:
  default:
    rules:
      - when:
          days: [mon]
          escalated: true
        intent: a
        models: [small, large]
        strategy: cascade
        accept:
          json_schema: {minimum: 1}
      - when: {min_tokens: 5}
        intent: b
        models:
          - small
          - large
        strategy: ensemble
        combine:
          judge: small
    otherwise: [small]
    experiments:
      - name: try
        of: small
        to: large
        percent: 10
        rollback: {alpha: 0.1, min_score: 0.5}
  other:
    otherwise: [small]
    experiments:
      - name: else
        route: default
        percent: 10
        starts: 2026-11-23T09:00:00Z
"""


class TestAMistakeInWhatIsRouted:
    @pytest.mark.parametrize(
        ("old", "new", "problem"),
        [
            ("days: [mon]", "days: [mon, Tue]", "9: route 'default', rule 1, when: 'days', item 2: "
             "unknown 'Tue' (did you mean 'tue'?)"),
            ("escalated: true", "escalated: maybe", "10: route 'default', rule 1, when: "
             "'escalated' must be true or false (it is 'maybe')"),
            ("days: [mon]", "pattern: (a", "9: route 'default', rule 1, when, pattern: "
             "not a regular expression that RE2 knows: missing ): (a"),
            ("strategy: cascade", "strategy: cascad", "13: route 'default', rule 1: "
             "unknown strategy 'cascad' (did you mean 'cascade'?)"),
            ("minimum: 1", "maximum: .inf", "15: route 'default', rule 1, accept, json_schema, "
             "maximum: must be a finite number"),
            ("json_schema: {minimum: 1}", "judge: support", "15: route 'default', rule 1, accept: "
             "'support' is people, who can't be a judge"),
            ("judge: small", "judge: support", "23: route 'default', rule 2, combine: "
             "'support' is people, who can't be a judge"),
            ("- large\n        str", "- support\n        str", "20: route 'default', rule 2: "
             "'support' is people, who can't be one of an ensemble"),
            ("judge: small", "function: f", "16: route 'default', rule 2: "
             "function 'f' must be written as module:name"),
            ("to: large", "to: support\n        kind: shadow", "28: route 'default', experiment 1: "
             "'support' is people, who can't be a shadow"),
            ("to: large", "to: small", "26: route 'default', experiment 1: "
             "of and to are the same model: there is nothing to try"),
            (", min_score: 0.5", "", "30: route 'default', experiment 1, rollback: a rollback "
             "needs a bound: max_error_rate, max_latency_s, max_cost_usd or min_score"),
            ("alpha: 0.1", "alpha: 0.5", "30: route 'default', experiment 1, rollback: "
             "'alpha' must be less than 0.5 (it is '0.5')"),
            ("name: else", "name: try", "34: route 'other', experiment 1: route 'default' has an "
             "experiment 'try', too: its figures would be those of both"),
            ("route: default", "route: other", "35: route 'other', experiment 1: "
             "its route is the one that it is in: there is nothing to try"),
            ("2026-11-23T09:00:00Z", "tomorrow", "37: route 'other', experiment 1: 'starts' must "
             "be a moment, such as 2026-11-23T09:00:00Z (it is 'tomorrow')"),
        ],
    )  # fmt: skip
    def test_is_one_problem_with_its_line(
        self, problems: Problems, old: str, new: str, problem: str
    ) -> None:
        assert old in ROUTED
        assert problems(ROUTED.replace(old, new, 1)) == (f"catalog.yaml:{problem}",)

    def test_a_date_in_a_schema_is_a_text_as_json_has_none(self, load: Load) -> None:
        found = load(ROUTED.replace("minimum: 1", "const: 2026-01-01"))
        accept = found.route("default").rules[0].accept
        assert accept is not None
        assert accept.json_schema == {"const": "2026-01-01"}
