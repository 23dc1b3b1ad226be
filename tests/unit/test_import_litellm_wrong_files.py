"""Files that are no config of LiteLLM, or hostile: refused at once, with the line."""

import pytest

from producer.import_litellm import translate
from producer.litellm_file import MAX_BYTES, parse_config
from producer.output import UsageError


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "config.yaml:1: must be a mapping with model_list"),
        ("- a", "config.yaml:1: must be a mapping"),
        ("a: 1", "config.yaml:1: model_list: is missing"),
        ("a: 1\nmodel_list: {}", "config.yaml:2: model_list: must be a list"),
        ("model_list: []", "no model can be imported"),
        ("model_list:\n- 1", r"config.yaml:2: model_list\[0\]: must be a mapping"),
        ("model_list:\n- {model_name: x}", r"config.yaml:2: .*'model' is missing"),
        ("model_list:\n- {litellm_params: {}}", r"config.yaml:2: .*'model_name' is missing"),
        ("model_list: []\nrouter_settings: []", "config.yaml:2: router_settings: must be a map"),
        ("a: 1\nb: [", "config.yaml:2: not valid YAML"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]", "config.yaml:2: tags"),
        ("a: 1\nb: !env KEY", "config.yaml:2: tags"),
        ("a: 1\nb: &x [*x]", "config.yaml:2: nested too deeply or too large"),
        ("a: 1\nb: " + "[" * 100, "config.yaml:2: not valid YAML: nested too deeply"),
        ("a: 1\n? [b]\n: c", "config.yaml:2: a key must be a plain word"),
        ("a: 1\nb: *nowhere", "config.yaml:2: not valid YAML"),
        ("a: 1\nb: 2024-99-99", "not valid YAML: a value"),
        ('a: 1\nb: "\\ud800"', "config.yaml:2: an escape"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: 1\nb: \x07", "config.yaml:2: not valid YAML: a control character"),
    ],
)
def test_a_wrong_file_is_refused_with_the_line(text: str, error: str) -> None:
    with pytest.raises(UsageError, match=error):
        translate(parse_config(text.encode(), "config.yaml"))


def test_aliases_that_unfold_to_millions_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(UsageError, match="too large"):
        parse_config("\n".join(lines).encode(), "config.yaml")


def test_keys_that_are_doubled_do_not_hide_from_the_limit() -> None:
    lines = ["a0: &a0 {x: 1}"]
    merged = [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)]
    with pytest.raises(UsageError, match="too large"):
        parse_config("\n".join(lines + merged).encode(), "config.yaml")


def test_what_is_too_long_or_no_utf8_is_refused() -> None:
    with pytest.raises(UsageError, match="more than"):
        parse_config(b"#" * (MAX_BYTES + 1), "config.yaml")
    with pytest.raises(UsageError, match=r"config.yaml:2: not UTF-8"):
        parse_config(b"a: 1\nb: \xff", "config.yaml")
