"""What is kept of texts, and which texts are the same."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_worker.normal import normal
from router_worker.oracles.cache import ENTRY_BYTES, TEXT_CHARS, Cache, size_of


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("What is  the\ttime? ", "what is the time?"),
        ("STRASSE", "straße"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("x² ﬁ", "x2 fi"),
        ("one \r\n two\n\n three", "ONE\ntwo\n\nthree"),
    ],
)
def test_case_width_and_spaces_make_no_other_text(one: str, two: str) -> None:
    assert normal(one) == normal(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [("a list:\n- one", "a list: - one"), ("do", "do not"), ("2 + 2", "2 - 2"), ("é", "e")],
)
def test_what_may_matter_makes_another(one: str, two: str) -> None:
    assert normal(one) != normal(two)


@given(st.text())
def test_the_normal_form_is_its_own(text: str) -> None:
    assert normal(normal(text)) == normal(text)


@given(st.text(st.characters(max_codepoint=127)))
def test_no_case_of_ascii_matters(text: str) -> None:
    assert normal(text.upper()) == normal(text) == normal(text.lower())


TEXTS = st.sampled_from([chr(97 + number) for number in range(8)])


@given(
    st.lists(st.tuples(TEXTS, st.none() | st.integers())),
    st.integers(0, 5),
    st.integers(0, 5 * (ENTRY_BYTES + 100)),
)
def test_it_keeps_what_was_asked_for_last_within_its_bounds(
    steps: list[tuple[str, int | None]], entries: int, size_bytes: int
) -> None:
    cache = Cache[int](entries, size_bytes)
    room = min(entries, size_bytes // size_of("a"))  # all texts here are of one size
    model: OrderedDict[str, int] = OrderedDict()
    hits = 0
    for text, value in steps:
        if value is None:
            assert cache.get(text) == model.get(text)
            hits += text in model
            if text in model:
                model.move_to_end(text)
        else:
            cache.put(text, value)
            model[text] = value
            model.move_to_end(text)
            while len(model) > room:
                model.popitem(last=False)
        assert len(cache) == len(model) <= entries
        assert cache.size_bytes == len(model) * size_of("a") <= size_bytes
    asked = sum(value is None for _, value in steps)
    assert (cache.hits, cache.misses) == (hits, asked - hits)


def test_a_long_text_is_not_kept_and_pushes_nothing_out() -> None:
    cache = Cache[int]()
    cache.put("short", 1)
    cache.put("x" * (TEXT_CHARS + 1), 2)

    assert "short" in cache
    assert len(cache) == 1
