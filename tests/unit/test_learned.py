"""What is learned of limits from headers and refusals."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_workers.endpoints.learned import (
    FORGET_S,
    KNOWN_S,
    MOST_PER_S,
    NOTHING,
    SETTLE_S,
    Learned,
    decode,
    encode,
    is_over,
    learned_after,
    newest,
    pace_per_s,
    runs_short,
    scope_of,
    slowed,
    told,
)
from model_workers.providers.base import Allowance
from modelyard.catalog import Quota
from modelyard.quota import Meter, admit

NOW = 1_800_000_000.0
NONE = Quota()


class Bucket:
    """A provider's limit that refills all the time, and tells how it stands."""

    def __init__(self, much: float, window_s: float) -> None:
        self.much, self.per_s = much, much / window_s
        self.level, self.at = much, NOW

    def call(self, now: float, amount: float = 1.0) -> Allowance | None:
        """Return what it tells, or None if it refuses."""
        self.level = min(self.much, self.level + (now - self.at) * self.per_s)
        self.at = now
        if self.level < amount:
            return None
        self.level -= amount
        reset_s = round((self.much - self.level) / self.per_s, 3)
        return Allowance(self.much, math.floor(self.level), reset_s)


class Window:
    """A limit that begins anew each `window_s` seconds, counted from `NOW - offset_s`."""

    def __init__(self, much: float, window_s: float, offset_s: float, used: float = 0.0) -> None:
        self.much, self.window_s = much, window_s
        self.began, self.used = NOW - offset_s, used

    def call(self, now: float) -> Allowance | None:
        while now >= self.began + self.window_s:
            self.began, self.used = self.began + self.window_s, 0.0
        if self.used >= self.much:
            return None
        self.used += 1
        return Allowance(
            self.much, self.much - self.used, round(self.began + self.window_s - now, 3)
        )


def drive(
    limit: Bucket | Window, seconds: float, learned: Learned = NOTHING
) -> tuple[Learned, int, int]:
    """Call as fast as what is learned lets, from `NOW` on; return what is learned, and how many
    calls were answered and refused.
    """
    now, arrival, answered, refused = NOW, 0.0, 0, 0
    left = 0.0
    while now < NOW + seconds:
        scope = scope_of("x", learned, NONE, now, left=(left - 1.0, 0.0))
        if scope is not None and scope.requests is not None:
            delay, arrival = admit(arrival, scope.requests, 1, now)
            now += delay
        else:
            now += 0.005
        said = limit.call(now)
        if said is None:
            refused += 1
            learned = slowed(learned, 100, answered / max(1.0, now - NOW), now)
            now += 1.0
        else:
            answered += 1
            left = said.remaining_requests or 0.0
            learned = told(learned, said, now)
            if runs_short(learned, said):
                learned = slowed(learned, 100, answered / max(1.0, now - NOW), now)
            if said.remaining_requests == 0 and said.reset_requests_s:
                now += said.reset_requests_s  # as its circuit has it
    return learned, answered, refused


@pytest.mark.parametrize(
    ("much", "window_s"), [(120, 60), (5000, 60), (10, 5), (20, 10), (3, 60), (50, 1)]
)
def test_a_bucket_s_pace_is_known_from_its_first_answers(much: float, window_s: float) -> None:
    _, answered, refused = drive(Bucket(much, window_s), 180.0)
    assert refused == 0
    assert answered >= 0.9 * (much / window_s) * 180.0


@pytest.mark.parametrize("offset_s", [0.0, 20.0, 50.0, 59.0])
@pytest.mark.parametrize("used", [0.0, 60.0, 115.0])
def test_one_that_begins_anew_each_minute_is_not_taken_for_a_faster_one(
    offset_s: float, used: float
) -> None:
    """Not even by who comes late, when little is left that is whole again soon."""
    _, answered, refused = drive(Window(120, 60.0, offset_s, used), 240.0)
    assert refused <= 5
    assert answered >= 0.7 * (480.0 - used)


def test_what_comes_together_need_not_wait_while_much_is_left() -> None:
    learned = told(NOTHING, Allowance(120, 110, 5.0, 1000, 900, 6.0), NOW)
    assert scope_of("x", learned, NONE, NOW, left=(61.0, 501.0)) is None
    fewer = scope_of("x", learned, NONE, NOW, left=(60.0, 501.0))
    assert fewer is not None and fewer.tokens is None
    slow = scope_of("x", slowed(learned, 100, 1.0, NOW), NONE, NOW, left=(100.0, 900.0))
    assert slow is not None and slow.requests is not None  # a refusal knows better


def test_openai_s_own_figures_are_those_of_a_minute() -> None:
    learned = told(NOTHING, Allowance(5000, 4999, 0.012, 160000, 159976, 0.009), NOW)
    assert learned.requests is not None and learned.tokens is not None
    assert learned.requests.window_s == pytest.approx(60.0)
    assert learned.tokens.window_s == pytest.approx(60.0)
    scope = scope_of("x", learned, NONE, NOW)
    assert scope is not None
    assert scope.requests == Meter.per_minute(5000)


def test_the_limit_of_a_day_is_no_pace() -> None:
    """It may be used up at once; nothing left of it says enough."""
    learned = told(NOTHING, Allowance(10000, 9900, 864.0), NOW)
    assert scope_of("x", learned, NONE, NOW) is None
    minute = told(NOTHING, Allowance(120, 60, 30.0), NOW)
    assert told(minute, Allowance(120, 60, 3600.0), NOW).requests is None


def test_a_limit_that_is_raised_counts_at_once() -> None:
    learned = told(NOTHING, Allowance(120, 60, 30.0), NOW)
    raised = told(learned, Allowance(1200, 1199, 0.05), NOW + 1)
    scope = scope_of("x", raised, NONE, NOW + 1)
    assert scope is not None and scope.requests == Meter.per_minute(1200)


def test_what_is_not_told_again_is_forgotten() -> None:
    learned = told(NOTHING, Allowance(120, 60, 30.0, 1000, 500, 30.0), NOW)
    assert told(learned, Allowance(), NOW + 60) == learned
    assert scope_of("x", learned, NONE, NOW + KNOWN_S - 1) is not None
    assert scope_of("x", learned, NONE, NOW + KNOWN_S) is None
    assert is_over(learned, NOW + KNOWN_S)


def test_the_catalog_s_quota_counts_and_nothing_is_learned_of_that_meter() -> None:
    learned = told(NOTHING, Allowance(120, 60, 30.0, 1000, 500, 30.0), NOW)
    learned = slowed(learned, 100, 1.0, NOW)
    scope = scope_of("x", learned, Quota(requests_per_min=500, interactive_share=0.5), NOW)
    assert scope is not None
    assert (scope.requests, scope.interactive_share) == (None, 0.5)
    assert scope.tokens == Meter.per_minute(1000)
    both = Quota(requests_per_min=500, tokens_per_min=500)
    assert scope_of("x", learned, both, NOW) is None


def test_the_limit_of_input_or_output_alone_is_no_pace_of_both() -> None:
    said = Allowance(50, 49, 1.2, 10000, 9000, 6.0, tokens_of_all=False)
    assert told(NOTHING, said, NOW).tokens is None


def test_others_with_the_same_key_are_noticed_before_anything_is_refused() -> None:
    limit, learned, now, arrival = Bucket(120, 60), NOTHING, NOW, 0.0
    ours = refused = 0
    theirs = NOW
    while now < NOW + 600.0:
        scope = scope_of("x", learned, NONE, now)
        if scope is None or scope.requests is None:
            now += 0.05
        else:
            delay, arrival = admit(arrival, scope.requests, 1, now)
            now += delay
        while theirs < now:
            limit.call(theirs)
            theirs += 1.0  # half of it
        said = limit.call(now)
        if said is None:
            refused += 1
            now += 1.0
            learned = slowed(learned, 60, ours / (now - NOW), now)
            continue
        ours += 1
        learned = told(learned, said, now)
        if runs_short(learned, said):
            learned = slowed(learned, 60, ours / (now - NOW), now)
    assert refused <= 0.02 * ours
    assert ours >= 0.8 * 600.0


def test_a_refusal_slows_to_a_share_of_what_went_through_and_then_it_rises() -> None:
    learned = slowed(NOTHING, 100, 2.0, NOW)
    assert pace_per_s(learned, NOW) == pytest.approx(1.8)
    assert slowed(learned, 100, 2.0, NOW + SETTLE_S / 2) == learned  # the same event
    again = slowed(learned, 100, 2.0, NOW + SETTLE_S)
    assert again.slowed_per_s < 1.7
    paces = [pace_per_s(learned, NOW + 10 * step) or math.inf for step in range(70)]
    assert paces == sorted(paces)
    assert 1.9 < paces[6] < 2.3  # in a minute
    assert paces[30] > 10.0  # in five
    assert pace_per_s(learned, NOW + FORGET_S) is None


def test_of_too_few_calls_nothing_is_learned() -> None:
    assert slowed(NOTHING, 3, 3.0, NOW) == NOTHING


NUMBER = st.none() | st.floats() | st.sampled_from([0.0, -1.0, 1.0, 60.0, 1e300, 5e-324])


@given(
    st.lists(
        st.tuples(st.lists(NUMBER, min_size=6, max_size=6), st.booleans(), st.floats(0, 100)),
        max_size=8,
    )
)
def test_whatever_is_told_there_is_a_pace_that_can_be_kept_or_none(
    answers: list[tuple[Any, bool, float]],
) -> None:
    learned, now = NOTHING, NOW
    for said_of, all_of_them, later in answers:
        now += later
        said = replace(Allowance(*said_of), tokens_of_all=all_of_them)
        learned = told(learned, said, now)
        if runs_short(learned, said):
            learned = slowed(learned, 10, 1.0, now)
        scope = scope_of("x", learned, NONE, now)
        for meter in (scope.requests, scope.tokens) if scope is not None else ():
            if meter is not None:
                assert 0.5 / MOST_PER_S <= meter.interval_s <= 70.0
                assert 1.0 <= meter.burst < math.inf
        heard = decode(encode(learned).encode())
        assert heard is not None
        assert encode(heard) == encode(learned)


LIMITED = Allowance(120, 60, 30.0)


def test_of_what_two_workers_learned_the_newest_counts() -> None:
    one = slowed(told(NOTHING, LIMITED, NOW), 100, 2.0, NOW)
    other = told(NOTHING, Allowance(240, 120, 30.0), NOW + 5)
    for both in (newest(one, other), newest(other, one)):
        assert both.requests == other.requests
        assert both.slowed_at == NOW
    assert newest(one, NOTHING) == newest(NOTHING, one) == one
    assert learned_after(one, NOW) == NOTHING
    assert learned_after(one, NOW - 1) == one


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda some: (
            st.lists(some)
            | st.dictionaries(
                st.sampled_from(
                    ["requests", "slowed", "limit", "window_s", "before_s", "since", "at"]
                ),
                some,
            )
        ),
    ).map(lambda some: json.dumps(some).encode())
)
def test_what_no_worker_wrote_is_nothing_that_could_be_kept_to(text: bytes) -> None:
    found = decode(text)
    if found is not None:
        scope_of("x", found, NONE, NOW)
        assert is_over(found, NOW + KNOWN_S) or (found.requests or found.tokens) or found
