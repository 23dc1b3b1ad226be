"""What a worker process has of the broker's: its claims, which of them run, what it has to ack."""

import threading
from collections.abc import Iterable


class Ledger:
    """Claims by what is to become of them. Safe to use from several threads.

    A claim is *held* from when it is made until it is settled, and *runs* while its task does. When
    its connection is lost, what runs goes on and what does not is *parted with*: it must not start
    here any more. A claim that is to be acknowledged is held for as long as Redis is away.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._runs: set[str] = set()
        self._acks: list[str] = []

    def claimed(self, claims: Iterable[str]) -> None:
        """These are ours now."""
        with self._lock:
            self._held.update(claims)

    def holds(self, claim: str) -> bool:
        """Return whether it is ours and not settled."""
        return claim in self._held

    def start(self, claim: str) -> bool:
        """Its task starts: keep it whatever becomes of its connection; False if it is not ours."""
        with self._lock:
            if claim not in self._held:
                return False
            self._runs.add(claim)
            return True

    def stop(self, claim: str) -> None:
        """Its task does not run here any more, and the claim is not settled."""
        with self._lock:
            self._runs.discard(claim)

    def settled(self, claims: Iterable[str]) -> None:
        """These are settled, or somebody else's."""
        with self._lock:
            for claim in claims:
                self._held.discard(claim)
                self._runs.discard(claim)

    def part_with(self, claims: Iterable[str]) -> list[str]:
        """The connection of `claims` closes: return those that are ours and do not run."""
        with self._lock:
            parted = [claim for claim in claims if claim in self._held and claim not in self._runs]
            self._held.difference_update(parted)
            return parted

    @property
    def count(self) -> int:
        """How many claims are held."""
        return len(self._held)

    def to_renew(self, owner: str) -> list[str]:
        """Return the claims of `owner` whose leases must not run out."""
        with self._lock:
            every = [*self._held, *self._acks]
        return [claim for claim in every if claim.startswith(owner)]

    def ack(self, claim: str) -> bool:
        """Acknowledge it with the next ones. False if there is nothing to acknowledge."""
        with self._lock:
            if claim not in self._held:
                return False
            self._held.discard(claim)
            self._runs.discard(claim)
            self._acks.append(claim)
            return True

    @property
    def owes(self) -> bool:
        """Whether anything is to be acknowledged."""
        return bool(self._acks)

    def take_acks(self) -> list[str]:
        """Return what is to be acknowledged; give back what could not be."""
        with self._lock:
            acks, self._acks = self._acks, []
            return acks

    def give_back_acks(self, acks: Iterable[str]) -> None:
        """Acknowledge these later."""
        with self._lock:
            self._acks.extend(acks)
