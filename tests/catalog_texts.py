"""Texts of catalog files, good ones and such as have one place changed."""

from collections.abc import Callable

from modelyard.catalog import Catalog

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
