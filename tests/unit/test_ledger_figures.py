"""What the ledger says in figures, and times as one writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_entries import arm, entry, failed

from producer.ledger_figures import figures, quantile
from producer.moments import moment, span
from producer.output import UsageError

NOW = 1_795_000_000.0


def test_requests_are_counted_by_what_they_have_in_common() -> None:
    said = figures(
        [
            entry(id="1", intent="code", arms=(arm("try", treated=True),)),
            entry(id="2", intent="code", model="large", cost_usd=0.03, latency_s=1.0),
            failed("small", id="3", route="cheap"),
        ]
    )

    assert said["all"]["requests"] == 3
    assert said["all"]["answered"] == pytest.approx(2 / 3)
    assert said["all"]["cost_usd"] == pytest.approx(0.04 / 3)
    assert [(row["route"], row["requests"]) for row in said["route"]] == [
        ("default", 2),
        ("cheap", 1),
    ]
    assert [(row["intent"], row["requests"]) for row in said["intent"]] == [
        ("code", 2),
        ("other", 1),
    ]
    assert {row["model"]: row["p95_s"] for row in said["model"]} == {"small": 0.3, "large": 1.0}
    assert [row["arm"] for row in said["arm"]] == ["try/treatment"]


def test_of_several_feedbacks_on_one_request_the_last_counts() -> None:
    said = figures(
        [
            entry(id="1"),
            entry(id="1", kind="feedback", score=0.0),
            entry(id="1", kind="feedback", score=1.0),
            entry(id="2", kind="feedback", score=0.5),
        ]
    )
    assert (said["all"]["score"], said["all"]["scores"]) == (0.75, 2)
    assert said["all"]["requests"] == 1


def test_a_grade_of_what_nobody_was_given_is_a_figure_of_its_model_only() -> None:
    tried = (arm("try", treated=True),)
    draft = {"kind": "feedback", "model": "draft", "given": False, "score": 0.0}
    said = figures(
        [
            entry(arms=tried),
            entry(kind="feedback", arms=tried, score=1.0),
            entry(**draft, arms=tried),
            entry(**draft, id="2", route="other", arms=tried),
        ]
    )

    assert (said["all"]["score"], said["all"]["scores"]) == (1.0, 1)
    for by in ("route", "intent", "arm"):
        (row,) = said[by]
        assert (row["score"], row["scores"]) == (1.0, 1)
    assert {row["model"]: row["score"] for row in said["model"]} == {"small": 1.0, "draft": 0.0}


def test_parts_of_requests_are_figures_of_their_models_only() -> None:
    said = figures([entry(), entry(kind="shadow", model="huge"), entry(kind="member", model="big")])
    assert said["all"]["requests"] == said["route"][0]["requests"] == 1
    assert {row["model"] for row in said["model"]} == {"small", "huge", "big"}


def test_of_nothing_there_are_no_figures() -> None:
    said = figures([])
    assert said["all"]["requests"] == 0
    assert said["all"]["p50_s"] is None


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_quantile_is_a_value_that_enough_of_them_do_not_exceed(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30m", NOW - 1_800),
        ("12h", NOW - 43_200),
        ("1d", NOW - 86_400),
        ("2026-11-23T09:00:00Z", 1_795_424_400.0),
        ("2026-11-23T10:00:00+01:00", 1_795_424_400.0),
        ("2026-11-23 09:00", 1_795_424_400.0),
    ],
)
def test_times_are_written_as_ago_or_as_a_date(written: str, seconds: float) -> None:
    assert moment(written, NOW) == seconds


@pytest.mark.parametrize("written", ["yesterday", "", "1w", "2026-13-01"])
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        moment(written, NOW)


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    assert span("2h", "1h", NOW) == (NOW - 7_200, NOW - 3_600)
    assert span(None, None, NOW) == (None, None)
    with pytest.raises(UsageError, match="nothing is since"):
        span("1h", "2h", NOW)
