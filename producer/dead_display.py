"""What the commands for dead letters print. A list of them has no prompt in it, one of them has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from modelyard.dead_entries import Entry, models_of, route_of
from modelyard.dead_letters import UNREADABLE, Fate, near_limit
from modelyard.messages import DeadLetter
from modelyard.replay import replays
from modelyard.wording import calls_in, counted
from producer.dead_options import short_duration
from producer.display import err, out, plain, print_json, show_decision
from producer.narrow import Column, show_rows

IDS_KEPT: Final = 100
"""How many ids are kept of those that were refused for one reason."""
IDS_SHOWN: Final = 3


@dataclass
class Tally:
    """How a replay went. `refused` has for each explanation how many letters, and some ids."""

    dry_run: bool
    queues: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    gone: int = 0
    again: int = 0
    seen: set[str] = field(default_factory=set)
    missing: list[str] = field(default_factory=list)
    stopped: bool = False

    def add(self, fate: Fate) -> None:
        """Count what became of one letter."""
        if fate.what == "replayed":
            self.queues[fate.queue] = self.queues.get(fate.queue, 0) + 1
        elif fate.what == "refused":
            count, ids = self.refused.get(fate.why, (0, []))
            self.refused[fate.why] = count + 1, [*ids, fate.id] if count < IDS_KEPT else ids
        elif fate.what == "gone":
            self.gone += 1
        else:
            self.again += 1

    @property
    def replayed(self) -> int:
        """How many letters were replayed, or would be."""
        return sum(self.queues.values())

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        return {
            "dry_run": self.dry_run,
            "complete": not self.stopped,
            "replayed": self.replayed,
            "queues": self.queues,
            "refused": [
                {"why": why, "count": count, "ids": ids}
                for why, (count, ids) in self.refused.items()
            ],
            "gone": self.gone,
            "died_again": self.again,
            "missing": self.missing,
        }


def show_tally(tally: Tally, as_json: bool) -> None:
    """Print how a replay went: what was done on standard output, the rest on standard error."""
    if as_json:
        print_json(tally.as_json())
        return
    would = "would be " if tally.dry_run else ""
    onto = ", ".join(f"{count:,} onto {queue}" for queue, count in tally.queues.items())
    plain(f"{tally.replayed:,} {would}replayed{': ' + onto if onto else ''}")
    for why, (count, ids) in tally.refused.items():
        some = ", ".join([*ids[:IDS_SHOWN], *(["..."] if count > IDS_SHOWN else [])])
        said(f"{count:,} {would}refused: {why} [{some}]")
    if tally.gone:
        said(f"{tally.gone:,} were replayed or dropped by somebody else, or died anew")
    if tally.again:
        said(f"{tally.again:,} have died again since they were replayed just now")
    show_missing(tally.missing)
    if tally.stopped:
        said("stopped before the end: the same command goes on")


def show_missing(ids: Sequence[str]) -> None:
    """Say which ids were asked for in vain."""
    if ids:
        some = ", ".join([*ids[:IDS_SHOWN], *(["..."] if len(ids) > IDS_SHOWN else [])])
        said(f"{len(ids):,} not there (replayed or dropped before?): {some}")


def show_list(
    entries: Sequence[Entry],
    by_reason: Mapping[str, int],
    *,
    most: int,
    more: bool,
    now: float,
    as_json: bool,
) -> None:
    """Print letters without their prompts, and how full their store of `most` is (0: no bound)."""
    count = sum(by_reason.values())
    if as_json:
        print_json(
            {
                "count": count,
                "limit": most,
                "near_limit": near_limit(count, most),
                "by_reason": by_reason,
                "letters": [in_short(entry) for entry in entries],
                "more": more,
            }
        )
        return
    reasons = ", ".join(f"{each:,} {reason}" for reason, each in by_reason.items())
    room = f" of at most {most:,}" if most else ""
    plain(f"{count:,}{room} dead letters{': ' + reasons if reasons else ''}")
    if entries:
        # An id that is cut or on two lines can't be copied.
        columns = [Column("id"), Column("reason"), Column("age", right=True)]
        columns += [Column("route"), Column("model"), Column("calls", right=True)]
        show_rows(out, columns, [row(entry, now) for entry in entries])
    if more:
        plain("There are more: --limit, --json, or modelyard dead export.")
    if near_limit(count, most):
        err.print(
            f"The store is nearly full ({count:,} of {most:,}): at its limit nothing more is "
            "submitted. Replay, export or drop some, or raise MODELYARD_DEAD_LETTER_LIMIT.",
            style="bold red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def row(entry: Entry, now: float) -> tuple[str, ...]:
    """Return what the table has of a letter."""
    letter = entry.letter
    age = short_duration(now - entry.died_at) if entry.died_at else "?"
    if letter is None:
        return visible(entry.id), UNREADABLE, age, "", "", ""
    model = (models_of(letter) or ("",))[-1]
    calls = f"{calls_in(letter.attempts):,}"
    return visible(entry.id), letter.reason, age, visible(route_of(letter)), visible(model), calls


def in_short(entry: Entry) -> dict[str, Any]:
    """Return a letter as plain JSON values, without its prompt and what providers said."""
    letter = entry.letter
    if letter is None:
        return {"id": entry.id, "reason": UNREADABLE, "died_at": entry.died_at, "why": UNREADABLE}
    given = letter.request.get("metadata")
    metadata = given if isinstance(given, Mapping) else {}
    return {
        "id": entry.id,
        "reason": letter.reason.value,
        "died_at": entry.died_at,
        "why": why(letter),
        "route": route_of(letter),
        "models": list(models_of(letter)),
        "attempts": len(letter.attempts),
        "replays": replays(metadata),
        "metadata": metadata,
    }


def why(letter: DeadLetter) -> str:
    """Return in our own words what a request died of: a provider's may quote the prompt."""
    if letter.attempts:
        last = letter.attempts[-1]
        words = [last.model, last.kind or "", str(last.status or "")]
        calls = calls_in(letter.attempts)
        made = f"{counted(calls, 'attempt')}, " if calls else ""
        return f"{made}last: {' '.join(filter(None, words))}"
    # What a bug of ours says may have a value in it; its kind is enough here.
    return letter.message.partition(":")[0] if letter.traceback else letter.message


def show_entry(entry: Entry, now: float, as_json: bool) -> None:
    """Print all that is known of one letter, its prompt too."""
    letter = entry.letter
    if as_json:
        print_json(letter.model_dump(mode="json") if letter else unreadable(entry))
        return
    if letter is None:
        said(entry.problem)
        plain(visible(entry.raw.decode(errors="replace")))
        return
    died = datetime.fromtimestamp(letter.died_at, UTC).isoformat(sep=" ", timespec="seconds")
    request = letter.request
    named("id", letter.id)
    named("reason", letter.reason)
    named("died", f"{died}, {short_duration(now - letter.died_at)} ago")
    named("why", letter.message)
    for key in ("route", "lane", "models", "params", "metadata"):
        if request.get(key):
            named(key, as_text(request[key]))
    for key in ("submitted_at", "deadline"):
        if isinstance(request.get(key), int | float):
            named(key.removesuffix("_at"), moment(request[key]))
    if letter.decision is not None:
        show_decision(letter.decision)
    for attempt in letter.attempts:
        status = f" {attempt.status}" if attempt.status else ""
        named(
            "attempt",
            f"{attempt.model} at {attempt.endpoint}, {attempt.duration_ms:,.0f} ms, "
            f"{attempt.kind or 'answered'}{status}: {attempt.message}",
        )
    if letter.traceback:
        plain("\n" + visible(letter.traceback))
    for said_before in messages(request):
        plain("\n" + visible(said_before))


def messages(request: Mapping[str, Any]) -> list[str]:
    """Return the texts of a request, or all of what is none."""
    turns = request.get("messages")
    if isinstance(request.get("text"), str):
        return [f"user: {request['text']}"]
    if isinstance(turns, list) and all(isinstance(turn, Mapping) for turn in turns):
        return [f"{turn.get('role', '?')}: {turn.get('content', '')}" for turn in turns]
    return [as_text(request)]


def unreadable(entry: Entry) -> dict[str, Any]:
    """Return what is stored and no dead letter of this version, as plain JSON values."""
    return {
        "id": entry.id,
        "died_at": entry.died_at,
        "problem": entry.problem,
        "unreadable": entry.raw.decode(errors="replace"),
    }


def as_text(value: Any) -> str:
    """Return a value of the request in a line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={as_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    return str(value)


def moment(at: float) -> str:
    """Return a time in UTC; one that no calendar has as the number it is."""
    try:
        return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return str(at)


def named(name: str, value: str) -> None:
    """Print one line with its name before it."""
    plain(f"{name:<7} {visible(value)}")


def said(line: str) -> None:
    """Print a line on standard error."""
    err.print(visible(line), markup=False, highlight=False, soft_wrap=True)


def visible(text: str) -> str:
    """Return text without what a terminal would obey: anybody may have written it."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
