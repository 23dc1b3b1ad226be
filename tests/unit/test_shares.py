"""How a worker divides its room among its queues."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from modelyard.shares import Shares

rooms = st.lists(st.integers(1, 50), min_size=20, max_size=60)


def taken(shares: Shares, queued: dict[str, int], room: int) -> Counter[str]:
    """Take from queues of these lengths as the claiming script does."""
    wants = shares.wants(list(queued), room)
    counts: Counter[str] = Counter()
    for want in wants:
        counts[want.queue] = min(want.share, queued[want.queue])
    left = room - counts.total()
    for want in wants:
        more = min(left, queued[want.queue] - counts[want.queue])
        counts[want.queue] += more
        left -= more
    shares.took(wants, counts)
    for queue, count in counts.items():
        queued[queue] -= count
    return counts


@given(rooms, st.floats(0.05, 0.95))
def test_full_queues_get_their_shares_whatever_room_there_is(
    rooms: list[int], batch: float
) -> None:
    shares = Shares({"urgent": 1 - batch, "batch": batch})
    queued = {"urgent": 10_000, "batch": 10_000}
    total: Counter[str] = Counter()
    for room in rooms:
        total += taken(shares, queued, room)

    assert total.total() == sum(rooms)
    stride = 1 / batch + 1 / (1 - batch)  # at most one turn of each is owed at a time
    assert abs(total["batch"] - batch * sum(rooms)) <= 1 + batch * stride


@given(rooms)
def test_a_queue_that_is_alone_gets_everything(rooms: list[int]) -> None:
    shares = Shares({"urgent": 0.8, "batch": 0.2})
    queued = {"urgent": 0, "batch": 10_000}
    assert all(taken(shares, queued, room)["batch"] == room for room in rooms)


@given(rooms)
def test_turns_are_not_saved_up(rooms: list[int]) -> None:
    shares = Shares({"urgent": 0.8, "batch": 0.2})
    queued = {"urgent": 0, "batch": 10_000}
    for room in rooms:
        taken(shares, queued, room)

    queued["urgent"] = 10_000
    counts = taken(shares, queued, 100)

    assert 75 <= counts["urgent"] <= 85


@given(st.lists(st.sampled_from("abc"), unique=True, min_size=1), st.integers(0, 200))
def test_all_room_is_given_away(queues: list[str], room: int) -> None:
    wants = Shares({}).wants(queues, room)

    assert sum(want.share for want in wants) == room
    assert {want.queue for want in wants} == set(queues)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.05, 5), min_size=1),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=6),
    st.integers(0, 400),
)
def test_the_shares_are_those_of_turns_taken_one_by_one(
    weights: dict[str, float], before: list[tuple[int, int]], room: int
) -> None:
    shares = Shares(weights)
    for queued, earlier in before:
        taken(shares, dict.fromkeys(weights, queued), earlier)
    passes = {queue: shares._passes.get(queue, 0.0) for queue in weights}
    expected = dict.fromkeys(weights, 0)
    for _ in range(room):
        queue = min(weights, key=lambda each: (passes[each], each))
        expected[queue] += 1
        passes[queue] += 1 / weights[queue]

    found = {want.queue: want.share for want in shares.wants(list(weights), room)}

    assert all(abs(found[queue] - expected[queue]) <= 1 for queue in weights)
