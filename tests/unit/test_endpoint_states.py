"""What `modelyard endpoints` makes of what the workers write."""

from model_workers.endpoints.board import Load, encode, encode_loads
from model_workers.lines import told_apart
from modelyard.catalog import Endpoint, Model
from modelyard.circuit import Circuit, Reason
from modelyard.news import labels
from producer.endpoints import EndpointState, read, states_of

NOW = 1_800_000_000.0
ENDPOINTS = tuple(Endpoint(base_url=f"http://{name}.test/v1", name=name) for name in ("a", "b"))
MODEL = Model(name="small", provider="openai", endpoints=ENDPOINTS)


def fields(**values: str) -> dict[bytes, bytes]:
    return {name.replace("at_", "@").encode(): value.encode() for name, value in values.items()}


def states(fields: dict[bytes, bytes]) -> list[EndpointState]:
    return states_of(MODEL, fields, NOW)


def test_loads_of_workers_that_live_are_added_up() -> None:
    first, second = states(
        fields(
            at_one=encode_loads({"a": Load(3, 0.5, NOW, 10)}, NOW - 1),
            at_two=encode_loads({"a": Load(4, 1.5, NOW, 10)}, NOW - 2),
            at_gone=encode_loads({"a": Load(99, 9.0, NOW, 10)}, NOW - 60),
        )
    )
    assert (first.state, first.in_flight, first.latency_s, first.workers) == ("well", 7, 1.0, 2)
    assert second.workers == 0


def test_one_that_is_left_alone_says_why_since_when_and_until_when() -> None:
    circuit = Circuit(until=NOW + 30, since=NOW - 1, times=2, why=Reason.LIMITED)
    well, state = states(fields(b=encode(circuit)))
    assert (state.state, state.probed_in_s) == ("limited", 30.0)
    assert (state.since, state.until) == (NOW - 1, NOW + 30)
    assert (well.state, well.since, well.until) == ("well", None, None)


def test_what_nobody_probed_for_long_is_no_news() -> None:
    circuit = Circuit(until=NOW - 601, since=NOW - 700, times=1)
    assert {state.state for state in states(fields(a=encode(circuit)))} == {"well"}


def test_what_can_not_be_read_is_left_out() -> None:
    odd = {b"a": b"{", b"@x": b"[]", b"\xff": b"{}", b"b": b'{"why": "moody", "until": 9e9}'}
    assert read(odd) == {"\ufffd": {}, "b": {"why": "moody", "until": 9e9}}
    assert {state.state for state in states(odd)} == {"well"}


def test_an_endpoint_without_its_key_is_off() -> None:
    off = Endpoint(base_url="http://c.test/v1", disabled="KEY")
    [state] = states_of(Model(name="small", provider="openai", endpoints=(off,)), {}, NOW)
    assert state.state == "off"


def test_two_keys_at_one_address_are_told_apart_as_the_workers_do() -> None:
    here = "http://a.test/v1"
    three = (
        Endpoint(base_url=here, disabled="X"),
        Endpoint(base_url=here),
        Endpoint(base_url=here),
    )
    model = Model(name="small", provider="openai", endpoints=three)
    assert labels(model) == [label for label, _ in told_apart(model)]
    denied = Circuit(until=NOW + 30, since=NOW, why=Reason.DENIED)
    said = states_of(model, {b"a.test/v1 (2)": encode(denied).encode()}, NOW)
    assert [state.state for state in said] == ["off", "well", "denied"]
