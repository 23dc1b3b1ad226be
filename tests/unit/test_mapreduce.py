"""Map and reduce, played through without any broker; and the window that decides on it."""

from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalog import Catalog, Model
from modelyard.messages import Request
from modelyard.routes import Route, Rule, When
from modelyard.tokens import estimate_tokens
from producer.failure import Failure
from producer.mapreduce import Ask, Limits, Round, Summary, advance, begin
from producer.window import Door, Window, candidates, json_bytes, window
from router_worker.policy import Unroutable, decide

DO = "Summarize this."
ROOMY = 10_000_000


def limits(tokens: int, text_bytes: int = ROOMY) -> Limits:
    return Limits(Window((Door(None, tokens),)), text_bytes)


def local(name: str, context: int) -> Model:
    return Model(name=name, provider="extractive", context_tokens=context, max_output_tokens=10)


def play(step: object, summary: str, *, most: int = 5000) -> tuple[list[Ask], object]:
    """Answer everything with `summary`; return what was asked and how it ended."""
    asked: list[Ask] = []
    while isinstance(step, tuple):
        current, asks = step
        assert asks, "a round in which nothing is asked would never end"
        asked += asks
        assert len(asked) < most
        for number, ask in enumerate(asks, 1):
            step = advance(current, ask.part, summary)
            if number < len(asks):
                assert isinstance(step, tuple)
                current, nothing = step
                assert nothing == ()
    return asked, step


def test_a_short_document_is_one_request() -> None:
    asked, end = play(begin(DO, "Minutes", "We met.", limits(100)), "They met.")

    assert [ask.text for ask in asked] == ["Summarize this.\n\nMinutes\n\nWe met."]
    assert end == Summary("They met.")


def test_a_title_that_the_text_begins_with_is_not_said_twice() -> None:
    asked, _ = play(begin(DO, "Minutes", "# Minutes\n\nWe met.", limits(100)), "x")

    assert asked[0].text == "Summarize this.\n\n# Minutes\n\nWe met."


def test_a_long_one_is_mapped_and_its_summaries_reduced_in_order() -> None:
    text = "\n\n".join(f"Paragraph {number}. " + "word " * 60 for number in range(12))
    step = begin(DO, "Minutes", text, limits(300))
    assert isinstance(step, tuple)
    current, asks = step
    count = len(asks)
    assert count > 2
    assert asks[1].text.startswith(f"Summarize this.\n\nMinutes (part 2 of {count})\n\nParagraph")

    for ask in reversed(asks):  # they may end in any order
        following = advance(current, ask.part, f"About {ask.part}.")
        assert isinstance(following, tuple)
        current, reduce = following

    assert len(reduce) == 1
    assert reduce[0].text.startswith(f"{DO} Use the summaries")
    positions = [reduce[0].text.index(f"About {ask.part}.") for ask in asks]
    assert positions == sorted(positions)
    assert advance(current, reduce[0].part, "All of it.") == Summary("All of it.")


def test_summaries_that_are_too_long_together_take_more_rounds() -> None:
    text = "\n\n".join("word " * 100 for _ in range(40))
    asked, end = play(begin(DO, None, text, limits(300)), "summary " * 30)

    assert end == Summary("summary " * 30)
    assert {ask.part.rpartition("/")[0] for ask in asked} >= {"map", "reduce/1", "reduce/2"}


def test_summaries_that_do_not_get_shorter_are_a_failure_and_no_endless_loop() -> None:
    text = "\n\n".join("word " * 100 for _ in range(40))
    _, end = play(begin(DO, None, text, limits(300)), "word " * 250)

    assert isinstance(end, Failure)
    assert end.reason == "too_long"


def test_a_part_that_failed_fails_the_document_when_all_have_ended() -> None:
    text = "word " * 1000
    step = begin(DO, None, text, limits(300))
    assert isinstance(step, tuple)
    current, asks = step
    first = advance(current, asks[0].part, Failure("refused", "no"))
    assert isinstance(first, tuple)
    current, nothing = first
    assert nothing == ()
    for ask in asks[1:-1]:
        following = advance(current, ask.part, "fine")
        assert isinstance(following, tuple)
        current, _ = following
    assert advance(current, asks[-1].part, "fine") == Failure("refused", "no")


def test_a_document_that_no_message_holds_is_cut_too() -> None:
    text = '"quoted"\n' * 2000
    asked, end = play(begin(DO, None, text, limits(ROOMY, 4000)), "Quotes.")

    assert isinstance(end, Summary)
    assert len(asked) > 4
    assert all(json_bytes(ask.text) <= 4000 for ask in asked)


def test_a_window_without_room_for_anything_is_explained() -> None:
    end = begin("Summarize. " * 100, None, "word " * 1000, limits(300))

    assert isinstance(end, Failure)
    assert "shorten the instruction" in end.message


@given(
    st.text(alphabet=st.sampled_from("ab é中\n.\x01"), max_size=3000),
    st.integers(100, 400),
    st.text(alphabet="xy ", max_size=400),
)
def test_every_request_fits_and_it_always_ends(text: str, tokens: int, summary: str) -> None:
    bound = limits(tokens, 2000)

    asked, end = play(begin(DO, "A title", text or "-", bound), summary or "-")

    assert isinstance(end, Summary | Failure)
    assert all(estimate_tokens(ask.text) <= tokens for ask in asked)
    assert all(json_bytes(ask.text) <= 2000 for ask in asked)
    assert len({ask.part for ask in asked}) == len(asked)


def test_no_word_of_a_long_document_is_left_out() -> None:
    words = [f"w{number}" for number in range(3000)]
    step = begin(DO, None, " ".join(words), limits(300))
    assert isinstance(step, tuple)
    mapped = " ".join(ask.text.split("\n\n", 2)[2] for ask in step[1])
    assert mapped.split() == words
    assert isinstance(step[0], Round)


def small_and_large(*rules: Rule, otherwise: tuple[str, ...] = ("small",)) -> Catalog:
    return Catalog(
        models=(local("small", 110), local("large", 1010)),
        routes={"default": Route(rules=rules, otherwise=otherwise)},
    )


class TestWindow:
    def test_the_largest_model_of_a_list_counts(self) -> None:
        catalog = small_and_large(otherwise=("small", "large"))
        assert window(catalog, "default").safe_tokens == 1000
        assert window(catalog, "default", ("small",)).safe_tokens == 100
        assert window(catalog, "default", max_tokens=500).safe_tokens == 510

    def test_a_long_text_goes_whole_where_a_rule_for_long_texts_takes_it(self) -> None:
        long = Rule(when=When(min_tokens=90), intent="long", models=("large",))
        found = window(small_and_large(long), "default")
        assert found.safe_tokens == 100
        assert found.takes("any", 900)
        assert not found.takes("any", 1001)

    def test_a_keyword_that_leads_to_a_small_model_is_minded(self) -> None:
        code = Rule(when=When(keywords=("code",)), intent="code", models=("small",))
        found = window(small_and_large(code, otherwise=("large",)), "default")
        assert found.takes("some prose", 900)
        assert not found.takes("some Code", 900)

    def test_candidates_are_all_that_the_route_may_use(self) -> None:
        code = Rule(when=When(keywords=("code",)), intent="code", models=("large",))
        assert candidates(small_and_large(code), "default", ()) == ("small", "large")
        assert candidates(small_and_large(code), "default", ("large",)) == ("large",)

    def test_where_a_classifier_decides_a_text_may_go_to_any_intent(self) -> None:
        catalog = small_and_large(otherwise=("large",))
        route = Route(classifier="builtin", intents={"code": ("small",)}, otherwise=("large",))
        found = window(catalog.model_copy(update={"routes": {"default": route}}), "default")
        assert found.safe_tokens == 100
        assert not found.takes("any", 900)

    @given(st.data())
    def test_what_it_takes_the_router_takes(self, data: st.DataObject) -> None:
        some = st.sampled_from([("small",), ("large",), ("small", "large")])
        conditions = st.one_of(
            st.builds(lambda word: When(keywords=(word,)), st.sampled_from(["code", "ab"])),
            st.builds(lambda tokens: When(min_tokens=tokens), st.integers(0, 1200)),
            st.builds(lambda tokens: When(max_tokens=tokens), st.integers(0, 1200)),
        )
        rules = data.draw(
            st.lists(
                st.builds(
                    lambda when, names: Rule(when=when, intent="x", models=names), conditions, some
                ),
                max_size=4,
                unique_by=lambda rule: rule.when.model_dump_json(),
            )
        )
        catalog = small_and_large(*rules, otherwise=data.draw(some))
        text = data.draw(st.sampled_from(["ab ", "code ", "zz "])) + "z" * data.draw(
            st.integers(0, 5000)
        )
        if window(catalog, "default").takes(text, estimate_tokens(text)):
            try:
                decide(Request.model_validate({"text": text}), catalog, 0.0)
            except Unroutable as error:
                raise AssertionError(f"{error} in {catalog}") from error
