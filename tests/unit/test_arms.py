"""Who is in which arm of an experiment, and what that changes about a request."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.messages import Request
from modelyard.plan import Arm
from modelyard.routes import Experiment
from router_worker.experiments.arms import NONE, Variants, assign, key, place, relevant, variants

STARTS = datetime(2026, 11, 23, 9, tzinfo=UTC)
T0 = STARTS.timestamp()
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
keys = st.text(max_size=30)


def experiment(name: str = "try-large", **fields: Any) -> Experiment:
    """An experiment that calls `large` where `small` would be called, for everybody."""
    if "route" not in fields:
        fields = {"of": "small", "to": "large", **fields}
    if "ramp" not in fields:
        fields.setdefault("percent", 100)
    return Experiment.model_validate({"name": name, **fields})


def found(*experiments: Experiment, user: str = "ada", back: frozenset[str] = frozenset()) -> Any:
    request = Request.of("hello", metadata={"user": user})
    return variants(experiments, request, "r1", T0, back)


def arms(variants: Variants) -> dict[str, str]:
    return {arm.experiment: arm.arm for arm in variants.arms}


@given(name=names, key=keys, percent=st.floats(0, 100))
def test_whoever_is_in_an_arm_stays_there(name: str, key: str, percent: float) -> None:
    tried = experiment(name, percent=percent)
    assert assign(tried, key, T0) == assign(tried, key, T0 + 1e6)


@given(
    name=names,
    key=keys,
    shares=st.lists(st.floats(0, 100), min_size=1, max_size=6).map(sorted),
    looks=st.lists(st.floats(-10, 100), min_size=2, max_size=20).map(sorted),
)
def test_a_ramp_that_grows_moves_nobody_back(
    name: str, key: str, shares: list[float], looks: list[float]
) -> None:
    ramp = [{"after_s": 10.0 * stage, "percent": share} for stage, share in enumerate(shares)]
    grows = experiment(name, ramp=ramp, starts=STARTS)

    treated = [assign(grows, key, T0 + after).arm == "treatment" for after in looks]

    assert treated == sorted(treated)


@given(name=names, key=keys)
def test_nobody_is_treated_at_0_percent_and_everybody_at_100(name: str, key: str) -> None:
    assert assign(experiment(name, percent=0), key, T0).arm == "control"
    assert assign(experiment(name, percent=100), key, T0).arm == "treatment"
    stands = place(name, key)
    assert 0.0 <= stands < 100.0
    assert assign(experiment(name, percent=stands), key, T0).arm == "control"


@pytest.mark.parametrize("percent", [1, 10, 50, 90])
def test_the_share_is_what_was_asked_for(percent: float) -> None:
    tried, count = experiment(percent=percent), 20_000
    treated = sum(assign(tried, f"user-{n}", T0).arm == "treatment" for n in range(count))
    deviation = (count * percent / 100 * (1 - percent / 100)) ** 0.5
    assert abs(treated - count * percent / 100) < 4 * deviation


def test_one_experiment_s_arm_says_nothing_about_another_s() -> None:
    one, two = experiment("one", percent=50), experiment("two", percent=50)
    both = sum(
        assign(one, f"user-{n}", T0).arm == assign(two, f"user-{n}", T0).arm for n in range(20_000)
    )
    assert abs(both - 10_000) < 4 * 20_000**0.5 / 2


@pytest.mark.parametrize("by", ["user", "session", "tenant"])
def test_requests_go_by_whose_they_are_and_else_each_by_its_id(by: str) -> None:
    theirs = Request.of("hello", metadata={by: "ada"})

    assert key(theirs, "r1", by).text == key(theirs, "r2", by).text == "ada"
    assert key(theirs, "r1", by).own
    nobodys = key(Request.of("hello"), "r1", by)
    assert (nobodys.text, nobodys.own) == ("r1", False)
    assert key(theirs, "r1", "request").text == "r1"


def test_it_is_said_where_a_request_is_nobodys() -> None:
    nobodys = variants([experiment()], Request.of("hello"), "r1", T0)

    told = "experiment 'try-large': no metadata.user, so its id decides"
    assert nobodys.notes == {"try-large": told}
    assert found(experiment()).notes == {}


def test_the_treatment_calls_one_model_in_place_of_another() -> None:
    treated = found(experiment())

    assert treated.replace == {"small": "large"}
    assert arms(treated) == {"try-large": "treatment"}


def test_the_control_changes_nothing_and_is_counted() -> None:
    control = found(experiment(percent=0.001))

    assert (control.replace, control.shadow, control.route) == ({}, {}, None)
    assert arms(control) == {"try-large": "control"}


@pytest.mark.parametrize(
    "fields",
    [
        {"percent": 0},
        {"starts": datetime(2026, 11, 24, tzinfo=UTC)},
        {"ramp": [{"after_s": 60, "percent": 10}], "starts": STARTS},
    ],
)
def test_an_experiment_without_a_share_is_not_there(fields: dict[str, Any]) -> None:
    assert found(experiment(**fields)) == NONE


def test_an_experiment_that_was_taken_back_is_not_there() -> None:
    assert found(experiment(), back=frozenset({"try-large"})) == NONE
    assert found(experiment(), back=frozenset({"another"})) != NONE


def test_an_experiment_about_a_model_that_is_no_candidate_is_not_counted() -> None:
    tried = found(experiment("one"), experiment("two", of="tiny"), experiment("by", kind="shadow"))

    left = relevant(tried, ["tiny", "medium"])

    assert (left.replace, left.shadow, arms(left)) == ({"tiny": "large"}, {}, {"two": "treatment"})
    assert relevant(tried, ["medium"]).arms == ()
    assert relevant(NONE, ["medium"]) == NONE


def test_of_two_experiments_about_one_model_the_first_has_the_request() -> None:
    first, second = experiment("first", percent=50), experiment("second", to="huge", percent=50)
    seen = [found(first, second, user=f"user-{n}") for n in range(200)]

    for each in seen:
        if arms(each)["first"] == "treatment":
            assert each.replace == {"small": "large"}
            assert "second" not in arms(each)
    rest = [arms(each)["second"] for each in seen if arms(each)["first"] == "control"]
    assert {"control", "treatment"} == set(rest)


def test_a_shadow_is_called_as_well_where_its_model_is_called() -> None:
    shadow = experiment("shadow", kind="shadow", to="huge")

    assert found(shadow).shadow == {"small": "huge"}
    assert found(shadow).replace == {}
    # Where `small` is replaced there is nothing to compare the shadow with.
    assert found(shadow, experiment("canary")).shadow == {}
    assert arms(found(shadow, experiment("canary"))) == {"canary": "treatment"}


def test_another_route_decides_in_place_of_the_own_and_its_experiments() -> None:
    by_route = experiment("policy", route="new")

    tried = found(experiment("model"), by_route)

    assert (tried.route, tried.replace) == ("new", {})
    assert arms(tried) == {"policy": "treatment"}
    assert relevant(tried, ["anything"]).arms == tried.arms


def test_the_control_of_a_route_experiment_is_in_the_others_too() -> None:
    tried = found(experiment("model"), experiment("policy", route="new", percent=0.001))

    assert (tried.route, tried.replace) == (None, {"small": "large"})
    assert arms(tried) == {"policy": "control", "model": "treatment"}


def test_arms_are_the_plan_s() -> None:
    assert assign(experiment(), "ada", T0) == Arm(experiment="try-large", arm="treatment")
