"""What `modelyard endpoints` makes of what the workers write."""

from model_workers.endpoints.board import Load, encode, encode_loads
from model_workers.endpoints.circuit import Circuit, Reason
from modelyard.catalog import Endpoint, Model
from producer.endpoints import read, state_of

NOW = 1_800_000_000.0
ENDPOINTS = tuple(Endpoint(base_url=f"http://{name}.test/v1", name=name) for name in ("a", "b"))
MODEL = Model(name="small", provider="openai", endpoints=ENDPOINTS)


def fields(**values: str) -> dict[bytes, bytes]:
    return {name.replace("at_", "@").encode(): value.encode() for name, value in values.items()}


def test_loads_of_workers_that_live_are_added_up() -> None:
    said = read(
        fields(
            at_one=encode_loads({"a": Load(3, 0.5, NOW, 10)}, NOW - 1),
            at_two=encode_loads({"a": Load(4, 1.5, NOW, 10)}, NOW - 2),
            at_gone=encode_loads({"a": Load(99, 9.0, NOW, 10)}, NOW - 60),
        )
    )
    state = state_of(MODEL, ENDPOINTS[0], said, NOW)
    assert (state.state, state.in_flight, state.latency_s, state.workers) == ("well", 7, 1.0, 2)
    assert state_of(MODEL, ENDPOINTS[1], said, NOW).workers == 0


def test_one_that_is_left_alone_says_why_and_until_when() -> None:
    circuit = Circuit(until=NOW + 30, since=NOW - 1, times=2, why=Reason.LIMITED)
    state = state_of(MODEL, ENDPOINTS[1], read(fields(b=encode(circuit))), NOW)
    assert (state.state, state.probed_in_s) == ("limited", 30.0)


def test_what_can_not_be_read_is_left_out() -> None:
    said = read({b"a": b"{", b"@x": b"[]", b"\xff": b"{}"})
    assert state_of(MODEL, ENDPOINTS[0], said, NOW).state == "well"


def test_an_endpoint_without_its_key_is_off() -> None:
    endpoint = Endpoint(base_url="http://c.test/v1", disabled="KEY")
    assert state_of(MODEL, endpoint, {}, NOW).state == "off"
