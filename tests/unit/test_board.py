"""What the workers tell each other of endpoints, and what they make of it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from model_workers.endpoints.board import (
    GONE_S,
    STALE_S,
    Load,
    decode,
    decode_loads,
    encode,
    encode_loads,
    read,
)
from modelyard.circuit import Circuit, Reason

NOW = 1_800_000_000.0


def test_a_circuit_is_heard_as_it_was_told() -> None:
    circuit = Circuit(until=NOW + 5, since=NOW, times=3, why=Reason.LIMITED)
    heard = decode(encode(circuit).encode())
    assert heard is not None
    assert (heard.until, heard.since, heard.times, heard.why) == (NOW + 5, NOW, 3, Reason.LIMITED)


def test_loads_are_heard_as_they_were_told() -> None:
    loads = {"a": Load(3, 0.25, NOW - 1, 40), "b": Load()}
    assert decode_loads(encode_loads(loads, NOW).encode()) == (NOW, loads)


def test_own_loads_and_those_of_the_gone_do_not_count() -> None:
    load = {"a": Load(1)}
    fields = {
        b"@me": encode_loads(load, NOW).encode(),
        b"@other": encode_loads(load, NOW - 1).encode(),
        b"@gone": encode_loads(load, NOW - GONE_S - 1).encode(),
    }
    heard, gone = read(fields, "me", NOW)
    assert list(heard.loads) == [load]
    assert gone == ["@gone"]


def test_what_nobody_ever_tried_again_is_forgotten() -> None:
    fresh = Circuit(until=NOW - 1, since=NOW - 9)
    old = Circuit(until=NOW - STALE_S - 1, since=NOW - STALE_S - 9)
    heard, gone = read({b"a": encode(fresh).encode(), b"b": encode(old).encode()}, "me", NOW)
    assert list(heard.circuits) == ["a"]
    assert gone == ["b"]


def test_what_was_opened_by_a_clock_that_was_set_back_is_forgotten() -> None:
    hour = Circuit(until=NOW + 3610, since=NOW + 3600)
    late = Circuit(until=NOW + 11, since=NOW + 1)  # by a round trip that took long
    heard, gone = read({b"a": encode(hour).encode(), b"b": encode(late).encode()}, "me", NOW)
    assert list(heard.circuits) == ["b"]
    assert gone == ["a"]


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.sampled_from(["until", "at", "x"]), some),
    ).map(lambda some: json.dumps(some).encode())
)
def test_what_no_worker_of_this_version_wrote_is_left_out(text: bytes) -> None:
    assert decode(text) is None
    at, loads = decode_loads(text)
    assert (at, loads) == (0.0, {}) or loads == {}
