"""Choosing sentences, and showing them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.extractive import (
    ORDERS,
    Length,
    Order,
    centroid_order,
    lead_order,
    split_sentences,
    summarize,
)
from modelyard.tokens import estimate_tokens

ABSTRACT = (
    "Bridges are inspected by people on ropes. "
    "The weather was mild last year. "
    "We propose a drone that inspects bridges and finds cracks in their concrete. "
    "Some readers may like music. "
    "The drone finds nine of ten cracks in concrete bridges, as many as people on ropes find. "
    "The drone finds nine of ten cracks in concrete bridges, as many as people on ropes do. "
    "It was blue."
)
MEETING = """Chair: Welcome everybody to the budget meeting of the garden club .
Ann: Yeah .
Bob: OK .
Ann: So the
Chair: Uh , we decided to spend the money of the garden club on a new greenhouse .
Bob: Right , right .
Ann: The greenhouse costs nine hundred dollars , and the budget allows it .
Bob: Mm-hmm .
Chair: Thanks , bye ."""

every_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())


def numbers(document: str, order: Order, length: Length | None = None) -> list[int]:
    return [sentence.number for sentence in summarize(document, order, length).sentences]


def test_lead_takes_the_first_sentences() -> None:
    assert numbers(ABSTRACT, lead_order, Length(sentences=2)) == [1, 2]


def test_lead_passes_over_a_heading() -> None:
    document = "# Bridges\n\n" + ABSTRACT

    assert numbers(document, lead_order, Length(sentences=2)) == [2, 3]


def test_centroid_takes_what_the_text_is_about() -> None:
    assert set(numbers(ABSTRACT, centroid_order, Length(sentences=2))) <= {1, 3, 5, 6}


def test_centroid_says_nothing_twice() -> None:
    chosen = numbers(ABSTRACT, centroid_order, Length(sentences=3))

    assert len({5, 6} & set(chosen)) == 1


def test_centroid_reads_text_without_spaces() -> None:
    document = "我们研究桥梁检查。今天天气很好。无人机进行桥梁检查，发现桥梁裂缝。他喜欢音乐。"

    assert numbers(document, centroid_order, Length(sentences=2)) == [1, 3]


@every_order
def test_a_meeting_is_summarized_without_filler(order: Order) -> None:
    summary = summarize(MEETING, order, Length(sentences=9))

    assert summary.text.splitlines() == [
        "Chair: Welcome everybody to the budget meeting of the garden club. [1]",
        "Chair: we decided to spend the money of the garden club on a new greenhouse. [5]",
        "Ann: The greenhouse costs nine hundred dollars, and the budget allows it. [7]",
    ]


MAIL = """From: Irena Kolar (Dairy)
31 March, 07:52

Since Sunday night all our loggers in the depot are one hour behind. The reports carry wrong times.

Place   Hotel, each night

Leeds   140 euros

The other depots are correct. We have not changed any settings of the loggers.

Irena
"""


@every_order
def test_headers_dates_and_rows_of_tables_are_passed_over(order: Order) -> None:
    summary = summarize(MAIL, order, Length(sentences=9))

    assert [sentence.text.split()[0] for sentence in summary.sentences] == [
        "Since",
        "The",
        "The",
        "We",
    ]


@every_order
def test_a_table_with_nothing_else_is_summarized_all_the_same(order: Order) -> None:
    assert summarize("Leeds 140 euros\n\nGraz 120 euros\n\nGdynia 90 euros.", order).sentences


@every_order
def test_filler_is_better_than_nothing(order: Order) -> None:
    summary = summarize("Ann: Yeah .\nBob: OK .\nAnn: Bye .\nBob: Bye .", order)

    assert summary.sentences


def test_prose_runs_on_and_lists_stay_lists() -> None:
    prose = summarize("It rained. We left. They stayed. All slept.", lead_order)
    items = summarize("- rain\n- snow\n- hail\n- wind", lead_order)

    assert prose.text == "It rained. [1] We left. [2]"
    assert items.text == "- rain [1]\n- snow [2]"


@every_order
def test_one_sentence_is_its_own_summary(order: Order) -> None:
    assert summarize(" The cat sat. \n", order).text == "The cat sat."


@every_order
def test_nothing_has_no_summary(order: Order) -> None:
    assert summarize(" ... \n", order).sentences == ()


@pytest.mark.parametrize(
    ("sentences", "chosen"), [(2, 1), (3, 1), (4, 2), (6, 3), (30, 3), (60, 6), (500, 10)]
)
def test_the_usual_length_is_a_tenth_within_bounds(sentences: int, chosen: int) -> None:
    document = " ".join(f"Fact {number} is here." for number in range(sentences))

    assert len(numbers(document, lead_order)) == chosen


def test_a_sentence_that_does_not_fit_leaves_room_for_the_next() -> None:
    document = f"Short one. {'Very ' * 50}long. Short two. Short three."

    assert numbers(document, lead_order, Length(sentences=2, words=10)) == [1, 3]


def test_if_no_sentence_fits_the_best_one_is_cut() -> None:
    summary = summarize(ABSTRACT, lead_order, Length(words=3))

    assert summary.cut
    assert summary.text == "Bridges are inspected"


WORDS = st.sampled_from("rain snow hail wind sun Cloud 3.5 e.g. fog, 雨。 uh Dr. it".split())
SENTENCES = st.lists(WORDS, min_size=1, max_size=12).map(lambda words: " ".join(words) + ".")
DOCUMENTS = st.lists(SENTENCES, max_size=15).map(" ".join) | st.text(max_size=200)
ANY_ORDER = st.sampled_from(sorted(ORDERS)).map(ORDERS.__getitem__)


def squeezed(text: str) -> str:
    return "".join(text.split())


@given(DOCUMENTS, ANY_ORDER, st.integers(1, 20))
def test_a_summary_is_parts_of_the_document_in_its_order(
    document: str, order: Order, limit: int
) -> None:
    summary = summarize(document, order, Length(sentences=limit))
    chosen = [sentence.number for sentence in summary.sentences]
    rest = squeezed(document)

    assert chosen == sorted(set(chosen))
    assert len(chosen) <= limit
    assert sum(len(squeezed(sentence.text)) for sentence in summary.sentences) <= len(rest)
    for sentence in summary.sentences:
        _, found, rest = rest.partition(squeezed(sentence.text))
        assert found


@given(DOCUMENTS, ANY_ORDER, st.integers(1, 60), st.integers(1, 60))
def test_a_summary_stays_within_its_limits(
    document: str, order: Order, words: int, tokens: int
) -> None:
    summary = summarize(document, order, Length(words=words, tokens=tokens))

    assert len(summary.text.split()) <= words
    assert estimate_tokens(summary.text) <= tokens


@given(DOCUMENTS, ANY_ORDER)
def test_an_order_yields_no_sentence_twice(document: str, order: Order) -> None:
    sentences = split_sentences(document)
    ordered = list(order(sentences))

    assert len(set(ordered)) == len(ordered)
    assert set(ordered) <= set(sentences)
    assert bool(ordered) == bool(sentences)


def test_tokens_are_estimated_by_script() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens("a") == 1
    assert estimate_tokens("twelve chars") == 3
    assert estimate_tokens("天气很好") == 4
    assert estimate_tokens("Привет") == 3
    assert estimate_tokens("\ud800") > 0


@given(st.text(), st.text())
def test_tokens_of_parts_are_never_fewer_than_of_the_whole(left: str, right: str) -> None:
    whole = estimate_tokens(left + right)

    assert max(estimate_tokens(left), estimate_tokens(right)) <= whole
    assert whole <= estimate_tokens(left) + estimate_tokens(right)
