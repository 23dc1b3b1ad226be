"""How often an endpoint whose limit nobody wrote into the catalog has to say 429.

`python -m benchmarks.unknown_limit [--seconds N] [--rate N]`: calls come at a steady rate above
what a token bucket lets through, for two worker processes; once the endpoint tells of its limit in
the headers of its answers, once it tells nothing, and its 429 neither says when to come back.
"""

import argparse
import contextlib
import math
import random
import time
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.one_model import one_model
from benchmarks.pace import arrivals, paced
from benchmarks.spread import place
from modelyard.testing import FakeProvider, Reply
from producer.commands import model_command

PER_MINUTE: Final = 120
WORKERS: Final = 2
LATENCY_S: Final = 0.2
RATE_PER_S: Final = 3.0
SECONDS: Final = 150.0
TIMEOUT_S: Final = 900.0


class Bucket:
    """Lets `per_minute` calls through, `capacity` of them at once, and says 429 to all others.

    `tells`: each answer has the headers `x-ratelimit-*-requests`, and a 429 has Retry-After.
    """

    def __init__(self, per_minute: float, capacity: float, *, tells: bool) -> None:
        self.per_s = per_minute / 60.0
        self.capacity = capacity
        self.tells = tells
        self.said: list[tuple[float, int]] = []
        self._level = capacity
        self._at = time.monotonic()

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        now = time.monotonic()
        self._level = min(self.capacity, self._level + (now - self._at) * self.per_s)
        self._at = now
        taken = self._level >= 1.0
        self._level -= taken
        status = 200 if taken else 429
        self.said.append((now, status))
        headers = {}
        if self.tells:
            headers = {
                "x-ratelimit-limit-requests": f"{self.capacity:.0f}",
                "x-ratelimit-remaining-requests": f"{math.floor(self._level)}",
                "x-ratelimit-reset-requests": f"{(self.capacity - self._level) / self.per_s:.3f}s",
            }
            if not taken:
                headers["retry-after"] = str(math.ceil((1.0 - self._level) / self.per_s))
        return Reply(status=status, headers=headers, delay_s=LATENCY_S if taken else 0.0)


def run(
    *, tells: bool, capacity: float = PER_MINUTE, seconds: float = SECONDS, rate: float = RATE_PER_S
) -> dict[str, Any]:
    """Return what the endpoint said while calls came, and until all of them were answered."""
    bucket = Bucket(PER_MINUTE, capacity, tells=tells)
    with contextlib.ExitStack() as stack:
        fake = stack.enter_context(FakeProvider(default=bucket))
        commands = {
            f"pool-{number}": model_command("unknown", process=number)
            for number in range(1, WORKERS + 1)
        }
        catalog = one_model("unknown", fake.base_url, concurrency=20)
        yard = stack.enter_context(place(catalog, {}, commands))
        began = time.monotonic()
        handles = []
        due = arrivals(rate, seconds, random.Random(1))
        for _ in paced(due, clock=time.monotonic):
            handles.append(yard.client.submit("Where does this wagon go?"))
        offered_s = time.monotonic() - began
        answers = [handle.result(TIMEOUT_S) for handle in handles]
        took_s = time.monotonic() - began
    while_offered = [status for at, status in bucket.said if at <= began + offered_s]
    every = [status for _, status in bucket.said]
    return {
        "tells": tells,
        "capacity": capacity,
        "offered": len(handles),
        "offered_s": round(offered_s, 1),
        "answered": len(answers),
        "seconds": round(took_s, 1),
        "while_offered": counts(while_offered),
        "to_the_end": counts(every),
        "answered_per_min": round(60.0 * every.count(200) / took_s, 1),
        "most_attempts": max(len(answer.attempts) for answer in answers),
        "429s_by_half_minute": by_half_minute(bucket, began),
    }


def counts(said: list[int]) -> dict[str, Any]:
    """Return how many calls there were, and which share of them was refused."""
    refused = said.count(429)
    return {"calls": len(said), "429s": refused, "share": round(refused / max(1, len(said)), 4)}


def by_half_minute(bucket: Bucket, began: float) -> list[int]:
    """Return how many 429s there were in each half minute."""
    refused = [int((at - began) / 30.0) for at, status in bucket.said if status == 429]
    return [refused.count(number) for number in range(max(refused, default=-1) + 1)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rate", type=float, default=RATE_PER_S)
    parser.add_argument("--capacity", type=float, default=PER_MINUTE)
    parser.add_argument("--only", choices=["telling", "silent"])
    options = parser.parse_args()
    for tells in (True, False):
        if options.only in (None, "telling" if tells else "silent"):
            print(
                run(
                    tells=tells,
                    capacity=options.capacity,
                    seconds=options.seconds,
                    rate=options.rate,
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
