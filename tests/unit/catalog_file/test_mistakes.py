"""Mistakes in a catalog file: all are told, each with its line and what was meant."""

import difflib
import re
import textwrap

import pytest
from catalog_texts import FULL, Problems, changed, with_endpoint
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from modelyard.catalog_file import load_catalog
from modelyard.errors import CatalogError


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
