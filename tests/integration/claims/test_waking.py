"""Waking up: there is a token for whoever sleeps, and no message stays behind."""

from dataclasses import dataclass
from random import Random
from typing import Final

from claims_machine import FaultyRedis
from claims_queues import QUEUE, claim_from, in_queue, put_all
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelyard.claims import Back, Claims
from modelyard.names import WAKE_KEY_PREFIX


def test_there_is_one_token_at_most_for_whoever_sleeps(client: FaultyRedis, worker: Claims) -> None:
    for message in (b"a", b"b", b"c"):
        put_all(client, message)
    wake = WAKE_KEY_PREFIX + QUEUE
    assert client.llen(wake) == 1
    client.delete(wake)
    (claimed,) = claim_from(worker, room=1)
    assert client.llen(wake) == 1, "two are left"
    client.delete(wake)
    claim_from(worker, room=2)
    assert client.llen(wake) == 0, "none is left"
    claim_from(worker)
    assert client.llen(wake) == 0, "nothing was taken"
    worker.settle([Back(claimed.claim, QUEUE, b"a")])
    assert client.llen(wake) == 1


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A worker that waits for a token of its queues and then claims once, with little room."""

    queues: tuple[str, ...]
    room: int


SLEEPERS: Final = st.builds(
    Sleeper, st.sampled_from([("a",), ("b",), ("a", "b"), ("b", "a")]), st.integers(1, 2)
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    puts=st.lists(st.sampled_from("ab"), max_size=6),
    sleepers=st.lists(SLEEPERS, min_size=1, max_size=3),
    random=st.randoms(),
)
def test_no_message_is_left_while_a_worker_sleeps_that_wants_it(
    client: FaultyRedis, puts: list[str], sleepers: list[Sleeper], random: Random
) -> None:
    client.flushall()
    worker = Claims(client)
    coming = list(puts)
    awake: list[Sleeper] = []
    while True:
        tokens = [queue for queue in "ab" if client.exists(WAKE_KEY_PREFIX + queue)]
        woken = [(each, queue) for each in sleepers for queue in tokens if queue in each.queues]
        moves = ["put"] * bool(coming) + ["wake"] * bool(woken) + ["claim"] * bool(awake)
        if not moves:
            break
        match random.choice(moves):
            case "put":
                put_all(client, b"x", queue=coming.pop())
            case "wake":
                sleeper, queue = random.choice(woken)
                client.delete(WAKE_KEY_PREFIX + queue)
                awake.append(sleeper)
            case _:
                sleeper = awake.pop(random.randrange(len(awake)))
                claim_from(worker, *sleeper.queues, room=sleeper.room)
    wanted = {queue for sleeper in sleepers for queue in sleeper.queues}
    assert {queue: in_queue(client, queue) for queue in wanted} == {queue: [] for queue in wanted}
