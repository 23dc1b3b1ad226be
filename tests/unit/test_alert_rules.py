"""What wants a person: endpoints that deny, models without any endpoint, budgets that are spent."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelyard.alerts import WHYS, BudgetNews, EndpointNews, News, alerts, is_down
from modelyard.circuit import Reason
from modelyard.finding import Finding, Level
from modelyard.health import Broker, Scope, Snapshot, judge

NOW = 1_800_000_000.0
ALONE = {"since": NOW - 60, "until": NOW + 540}
BUDGET = BudgetNews("acme", "*", 5.0, 5.0, "stop")

ENDPOINTS = st.lists(
    st.builds(
        EndpointNews,
        st.sampled_from(["small", "large"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", *WHYS]),
        st.just(NOW - 1),
        st.just(NOW + 1),
    ),
    max_size=4,
).map(lambda some: tuple(sorted(some, key=lambda each: each.model)))


def found(*endpoints: EndpointNews) -> list[Finding]:
    return list(alerts(News(endpoints), NOW))


def pairs(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(each.level.value, each.about) for each in findings]


def test_the_words_are_those_of_the_workers() -> None:
    assert set(WHYS) == set(Reason)


def test_an_endpoint_that_denies_is_an_alert_with_its_times() -> None:
    [alert] = found(EndpointNews("small", "a"), EndpointNews("small", "b", "denied", **ALONE))
    assert (alert.level, alert.about) == (Level.ALERT, "small at b")
    assert "said so last at 07:59:00 UTC; asked again at 08:09:00 UTC" in alert.message


def test_one_of_two_that_fails_or_is_limited_is_the_breakers_business() -> None:
    for why in ("failing", "limited"):
        assert not found(EndpointNews("small", "a"), EndpointNews("small", "b", why, **ALONE))


def test_a_model_none_of_whose_endpoints_takes_calls_is_an_alert() -> None:
    a, b = (EndpointNews("small", name, "failing", **ALONE) for name in "ab")
    assert pairs(found(a, b)) == [("alert", "small")]
    denied = replace(b, why="denied")
    assert pairs(found(a, denied)) == [("alert", "small at b"), ("alert", "small")]
    # That passes by itself.
    assert pairs(found(a, replace(b, why="limited"))) == [("warning", "small")]


def test_a_budget_that_refuses_is_an_alert_and_one_that_makes_do_a_warning() -> None:
    spent = [BUDGET, replace(BUDGET, over="downgrade"), replace(BUDGET, spent_usd=4.99)]
    assert [each.level for each in alerts(News((), tuple(spent)), NOW)] == ["alert", "warning"]


@given(ENDPOINTS)
def test_nothing_that_wants_a_person_ever_fails_a_probe(
    endpoints: tuple[EndpointNews, ...],
) -> None:
    snapshot = Snapshot(broker=Broker(address="x"), at=NOW, news=News(endpoints, (BUDGET,)))
    quiet = judge(replace(snapshot, news=News()), NOW)
    report = judge(snapshot, NOW)
    assert report.healthy == quiet.healthy
    assert {each.level for each in report.findings} - {Level.UNHEALTHY} <= {"warning", "alert"}
    # One queue, or one worker, has none of them.
    scope = Scope(queues=("model.small",))
    assert judge(snapshot, NOW, scope).level in {Level.HEALTHY, Level.UNHEALTHY}
    denied = {each.model for each in endpoints if each.why == "denied"}
    down = {
        model
        for model in {each.model for each in endpoints}
        if is_down([each for each in endpoints if each.model == model])
    }
    told = {each.about.split(" at ")[0] for each in alerts(News(endpoints), NOW)}
    assert told == denied | down
