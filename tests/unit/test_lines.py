"""What a line is made of, and that nothing else is read by what it is made for."""

import re
from pathlib import Path
from typing import Any

import pytest

import model_workers
from model_workers.lines import UNREAD, UNREAD_OF_ENDPOINT, connect, identity
from modelyard.catalog import Endpoint, Model

BASE = {"base_url": "http://a.test/v1", "name": "a", "api_key": "one"}


def model(endpoint: dict[str, Any] | None = None, **changed: Any) -> Model:
    endpoints = [{**BASE, **(endpoint or {})}]
    return Model.model_validate(
        {"name": "m", "provider": "openai", "endpoints": endpoints, **changed}
    )


def test_the_names_are_those_of_the_catalog() -> None:
    assert Model.model_fields.keys() >= UNREAD
    assert Endpoint.model_fields.keys() >= UNREAD_OF_ENDPOINT


def test_no_provider_reads_what_may_change_beneath_it() -> None:
    folder = Path(model_workers.__file__).parent
    sources = [*folder.glob("providers/*.py"), *folder.glob("extractive/*.py")]
    assert len(sources) > 10
    of_model = re.compile(rf"(\b|_)model\.({'|'.join(UNREAD)})\b")
    of_endpoint = re.compile(rf"(\b|_)endpoint\.({'|'.join(UNREAD_OF_ENDPOINT)})\b")
    for source in sources:
        text = source.read_text(encoding="utf-8")
        assert not of_model.search(text) and not of_endpoint.search(text), source.name


@pytest.mark.parametrize(
    ("endpoint", "changed"),
    [
        ({"weight": 3}, {}),
        ({"quota": {"concurrency": 3}}, {}),
        ({}, {"price": {"input_usd_per_mtok": 1}, "balance": "sticky", "retry": {"calls": 9}}),
        ({}, {"breaker": {"failures": 9}, "probe": {}, "quality": 0.1, "latency_s": 9}),
    ],
)
def test_a_line_outlives_what_it_is_not_made_of(
    endpoint: dict[str, Any], changed: dict[str, Any]
) -> None:
    (line,) = connect(model())
    after = model(endpoint, **changed)
    assert connect(after, {"a": line}) == [line]
    assert line.endpoint is after.endpoints[0]


@pytest.mark.parametrize(
    ("endpoint", "changed", "known"),
    [
        ({"base_url": "http://b.test/v1"}, {}, False),
        ({"api_key": "two"}, {}, False),
        ({"region": "eu"}, {}, False),
        ({}, {"provider": "azure"}, False),
        ({}, {"model": "other"}, False),
        ({}, {"timeout_s": 7}, True),
        ({}, {"stream": True}, True),
        ({}, {"max_output_tokens": 7}, True),
    ],
)
def test_another_one_takes_its_place_otherwise(
    endpoint: dict[str, Any], changed: dict[str, Any], known: bool
) -> None:
    """And what was found of the endpoint holds as long as it is the same one."""
    before, after = model(), model(endpoint, **changed)
    (line,) = connect(before)
    (other,) = connect(after, {"a": line})
    assert other is not line and other.provider is not line.provider
    same = identity(before, before.endpoints[0]) == identity(after, after.endpoints[0])
    assert same is known


def two(*endpoints: dict[str, Any], **changed: Any) -> Model:
    return Model.model_validate(
        {"name": "m", "provider": "openai", "endpoints": endpoints, **changed}
    )


def test_each_endpoint_is_called_in_the_dialect_and_by_the_name_of_its_own() -> None:
    b = {"base_url": "http://b.test", "name": "b", "provider": "azure", "model": "eu"}
    one, other = connect(two(BASE, b, model="gpt-4o"))
    assert (type(one.provider).__name__, type(other.provider).__name__) == ("OpenAI", "Azure")
    assert (one.made_of[0]["provider"], one.made_of[0]["model"]) == ("openai", "gpt-4o")
    assert (other.made_of[0]["provider"], other.made_of[0]["model"]) == ("azure", "eu")


def test_an_endpoint_that_changes_its_name_leaves_the_others_as_they_are() -> None:
    b = {"base_url": "http://b.test", "name": "b"}
    before, after = two(BASE, b), two(BASE, {**b, "model": "other"})
    lines = connect(before)
    again = connect(after, {line.label: line for line in lines})
    assert again[0] is lines[0] and again[1] is not lines[1]
    same = [
        identity(before, old) == identity(after, new)
        for old, new in zip(before.endpoints, after.endpoints, strict=True)
    ]
    assert same == [True, False]


def test_it_does_not_matter_where_a_provider_and_a_name_stand() -> None:
    (line,) = connect(model(provider="azure", model="eu"))
    moved = model({"provider": "azure", "model": "eu"})
    assert connect(moved, {"a": line}) == [line]


def test_what_could_not_be_made_is_tried_again_and_left_out_beside_others() -> None:
    broken = model({"api_key": "ключ"})
    (line,) = connect(broken)
    assert line.is_broken
    (again,) = connect(broken, {"a": line})
    assert again is not line and again.is_broken
    pair = Model.model_validate(
        {
            "name": "m",
            "provider": "openai",
            "endpoints": [{**BASE, "api_key": "ключ"}, {**BASE, "name": "b"}],
        }
    )
    assert [each.label for each in connect(pair)] == ["b"]


def test_two_keys_at_one_address_are_told_apart() -> None:
    address = {"base_url": "http://a.test/v1"}
    one = Model.model_validate(
        {"name": "m", "provider": "openai", "endpoints": [address, {**address, "api_key": "k"}]}
    )
    assert [line.label for line in connect(one)] == ["a.test/v1", "a.test/v1 (2)"]
