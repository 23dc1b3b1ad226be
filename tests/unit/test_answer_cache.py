"""What answers are kept under, which are, and who makes one while others wait."""

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from model_workers.answer_cache import embeddings
from model_workers.answer_cache.entry import (
    LARGEST_CHARS,
    Entry,
    Kept,
    as_hit,
    decode,
    encode,
    entry_of,
    is_kept,
)
from model_workers.answer_cache.flight import AnswerCache
from model_workers.answer_cache.prompts import ENTRIES, Floats, Group
from model_workers.answer_cache.store import Store
from modelyard.catalog import Catalog, Model
from modelyard.messages import Call, Draft, Part, Request, Usage
from modelyard.plan import Accept, Decision, Plan, Step, Strategy
from modelyard.plan import AnswerCache as CachePlan
from modelyard.routes import Route
from router_worker.policy import decide

SMALL = Model(name="small", provider="extractive", model="lead")
DRAFT = Draft(model="small", text="Paris.", usage=Usage(input_tokens=9), cost_usd=0.5)
CACHE = CachePlan(ttl_s=60)


def request(text: str = "Capital of France?", **fields: Any) -> Request:
    return Request.of(text, **fields)


def call(asked: Request | None = None, **plan: Any) -> Call:
    given = {"steps": (Step(model="small"),), "cache": CACHE, **plan}
    decision = Decision(
        route="default", intent="x", why="", input_tokens=1, decided_at=0.0, plan=Plan(**given)
    )
    return Call(request=asked or request(), decision=decision)


def cascade(accept: Accept, step: int = 0) -> Call:
    steps = (Step(model="small"), Step(model="large"))
    made = call(steps=steps, strategy=Strategy.CASCADE, accept=accept)
    return made.model_copy(update={"step": step})


def key(asked: Request | None = None, model: Model = SMALL, **plan: Any) -> str:
    made = call(asked, **plan)
    entry = entry_of(made, made.request, model)
    assert entry is not None
    return entry.key


def knows(model: str) -> bool:
    return True


def test_the_same_request_has_the_same_key() -> None:
    one = request(params={"temperature": 0, "top_p": 1}, metadata={"user": "ada"})
    two = request(params={"top_p": 1, "temperature": 0}, lane="batch", deadline=5.0)
    assert key(one) == key(two)


@pytest.mark.parametrize(
    "other",
    [
        request("Capital of France? "),
        request(params={"temperature": 0}),
        request(metadata={"tenant": "acme"}),
        request(metadata={"tenant": ""}),
    ],
)
def test_what_an_answer_depends_on_is_in_its_key(other: Request) -> None:
    assert key(other) != key()


def test_another_model_or_another_demand_is_another_key() -> None:
    models = [
        SMALL.model_copy(update=changed)
        for changed in ({"name": "small@2"}, {"model": "centroid-mmr"}, {"provider": "python"})
    ]
    keys = [key(model=model) for model in (SMALL, *models)]
    keys.append(key(cache=CachePlan(ttl_s=61)))
    for accept in (Accept(expression="len(text) > 3"), Accept(judge="judge")):
        made = cascade(accept)
        entry = entry_of(made, made.request, SMALL)
        assert entry is not None
        keys.append(entry.key)
    assert len(set(keys)) == len(keys)


def test_what_is_done_to_an_answer_is_in_its_key() -> None:
    assert key(after=({"trim": True},)) != key()


@pytest.mark.parametrize(
    "made",
    [
        call(cache=None),
        call(cache=CachePlan(ttl_s=0)),
        call(request(no_store=True)),
        call().model_copy(update={"part": Part.SHADOW}),
        call().model_copy(update={"part": Part.COMBINE}),
    ],
)
def test_no_place_for_what_is_not_kept(made: Call) -> None:
    assert entry_of(made, made.request, SMALL) is None


def test_what_is_read_in_pieces_is_kept_apart_and_never_for_what_is_similar() -> None:
    cache = CachePlan(ttl_s=60, similar=0.95, embeddings="cached_embeddings:letters")
    whole = call(cache=cache)
    found = {
        part: entry_of(whole.model_copy(update={"part": part}), whole.request, SMALL)
        for part in (Part.ANSWER, Part.MAP, Part.REDUCE)
    }
    assert len({entry.key for entry in found.values() if entry is not None}) == 3
    assert [entry.likeness is None for entry in found.values() if entry] == [False, True, True]


def test_a_sound_answer_is_kept() -> None:
    assert is_kept(call(), DRAFT, knows, 0.0)


@pytest.mark.parametrize(
    "changed",
    [
        {"finish_reason": "length"},
        {"finish_reason": "content_filter"},
        {"verdict": "too short"},
        {"unfit": True},
        {"model": "large"},
        {"text": "x" * (LARGEST_CHARS + 1)},
    ],
)
def test_answers_that_are_not_kept(changed: Mapping[str, Any]) -> None:
    assert not is_kept(call(), DRAFT.model_copy(update=changed), knows, 0.0)


def test_an_answer_that_stands_for_lack_of_time_was_not_accepted() -> None:
    made = cascade(Accept(judge="judge"))
    late = made.model_copy(update={"request": request(deadline=10.0)})
    assert is_kept(late, DRAFT, knows, 9.0)
    assert not is_kept(late, DRAFT, knows, 10.0)
    assert not is_kept(made, DRAFT, lambda model: model == "small", 0.0)


def test_the_last_models_answer_is_kept_if_it_would_be_accepted() -> None:
    last = cascade(Accept(expression='contains(text, "Paris")'), step=1)
    draft = DRAFT.model_copy(update={"model": "large"})
    assert is_kept(last, draft, knows, 0.0)
    assert not is_kept(last, draft.model_copy(update={"text": "Rome."}), knows, 0.0)


def test_a_hit_costs_nothing_and_says_what_it_saved() -> None:
    kept = decode(encode("first", DRAFT.model_copy(update={"score": 0.9})))
    assert kept is not None
    hit = as_hit(kept, 0.97361)
    assert (hit.text, hit.usage, hit.cost_usd, hit.score) == ("Paris.", Usage(), 0.0, None)
    assert hit.cached is not None
    assert hit.cached.encode() == {
        "of": "first",
        "usage": {"input_tokens": 9},
        "saved_usd": 0.5,
        "similarity": 0.9736,
    }


@pytest.mark.parametrize("text", [b"", b"lease:1", b"[]", b'{"of": 1}', b"\xff"])
def test_what_is_no_answer_is_none(text: bytes) -> None:
    assert decode(text) is None


# -- what is similar

SIMILAR = CachePlan(ttl_s=60, similar=0.9, embeddings="some.module:function")


def group_of(*contents: str, tenant: str = "a", **last: Any) -> str | None:
    roles = ["user", "assistant"] * len(contents)
    messages: list[dict[str, Any]] = [
        {"role": role, "content": content} for role, content in zip(roles, contents, strict=False)
    ]
    messages[-1] |= last
    asked = Request.model_validate({"messages": messages, "metadata": {"tenant": tenant}})
    made = call(asked, cache=SIMILAR)
    entry = entry_of(made, asked, SMALL)
    assert entry is not None
    return entry.likeness.group if entry.likeness is not None else None


def test_only_the_words_of_the_last_message_may_differ() -> None:
    group = group_of("Hi", "Hello", "Where is order 7?")
    assert group == group_of("Hi", "Hello", "Tell me where order 7 is")
    assert group != group_of("Hi", "Hello", "Where is order 8?")
    assert group != group_of("Hey", "Hello", "Where is order 7?")
    assert group != group_of("Hi", "Hello", "Where is order 7?", tenant="b")


def test_an_image_is_like_no_other() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    text = {"type": "text", "text": "What is this?"}
    assert group_of("Hi", "Hello", "", content=[text, image]) is None


def unit(*numbers: float) -> Floats:
    vector = np.array(numbers, np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_the_most_similar_comes_first_and_the_rest_not_at_all() -> None:
    group = Group()
    for name, vector in (("far", unit(0, 1)), ("near", unit(1, 0.2)), ("same", unit(1, 0))):
        group.add(name, vector)
    found = group.like(unit(1, 0), 0.9)
    assert [name for name, _ in found] == ["same", "near"]
    assert found[0][1] == pytest.approx(1.0)
    assert group.like(unit(1, 0), 1.0) == found[:1]


def test_a_group_keeps_the_newest_and_each_once() -> None:
    group = Group()
    for number in range(ENTRIES + 5):
        group.add(str(number), unit(1, number))
    group.add(str(ENTRIES), unit(1, 0))
    assert len(group.keys) == len(set(group.keys)) == ENTRIES
    assert "4" not in group.keys
    assert "5" in group.keys
    assert group.like(unit(1, 0), 0.9999)[0][0] == str(ENTRIES)


def test_vectors_of_another_length_are_left_out() -> None:
    group = Group()
    group.add("a", unit(1, 0))
    group.add("b", unit(1, 0, 0))
    assert group.keys == ["a"]
    assert group.like(unit(1, 0, 0), 0.1) == []


# -- who makes it


class Shelf(Store):
    """A store in memory that several processes share: `others` is what they all see."""

    def __init__(self, others: dict[str, Kept | str]) -> None:
        super().__init__(lambda: pytest.fail("no Redis here"), lease_s=1.0)
        self.there = others
        self.looks = 0
        self.away = False
        self.vectors: list[tuple[str, Floats]] = []

    async def take(self, key: str, id: str) -> Kept | str | None:
        self.looks += 1
        await asyncio.sleep(0)
        return None if self.away else self.there.setdefault(key, id)

    async def find(self, key: str) -> Kept | None:
        found = self.there.get(key)
        return found if isinstance(found, Kept) else None

    async def renew(self, leases: Mapping[str, str]) -> None:
        pass

    async def let_go(self, key: str, id: str) -> None:
        if self.there.get(key) == id:
            del self.there[key]

    async def put(self, entry: Entry, id: str, draft: Draft, vector: Floats | None = None) -> None:
        if not self.away:
            self.there[entry.key] = Kept(of=id, draft=draft)
            if vector is not None:
                self.vectors.append((entry.key, vector))

    async def read(self, name: str, group: Group) -> None:
        for key, vector in self.vectors:
            group.add(key, vector)


class Asking:
    """Requests for one answer, in a process. `made` are those that made it."""

    def __init__(self, shelf: Shelf) -> None:
        self.cache = AnswerCache(shelf)
        self.go = asyncio.Event()
        self.made: list[str] = []
        self.works = True

    async def ask(self, id: str, deadline: float | None = None) -> Draft | None:
        async with self.cache.turn(Entry("k", 60), id, deadline) as turn:
            if turn.hit is not None:
                return turn.hit
            self.made.append(id)
            await self.go.wait()
            if self.works:
                turn.keep(DRAFT)
            return None

    def start(self, *ids: str) -> "list[asyncio.Task[Draft | None]]":
        return [asyncio.create_task(self.ask(id), name=id) for id in ids]


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.001)


async def test_many_at_once_make_one_call_and_one_look() -> None:
    shelf = Shelf({})
    asking = Asking(shelf)
    tasks = asking.start(*(f"r{number}" for number in range(100)))
    await until(lambda: asking.made)
    asking.go.set()
    hits = [hit for hit in await asyncio.gather(*tasks) if hit is not None]
    assert (asking.made, len(hits), shelf.looks) == (["r0"], 99, 1)
    assert {hit.cached.of for hit in hits if hit.cached} == {"r0"}
    assert asking.cache._flights == {}


async def test_one_in_each_process_looks_for_what_another_process_makes() -> None:
    there: dict[str, Kept | str] = {}
    here, elsewhere = Asking(Shelf(there)), Asking(Shelf(there))
    first = here.start("first")
    await until(lambda: here.made)
    others = elsewhere.start(*(f"r{number}" for number in range(50)))
    await until(lambda: elsewhere.cache._flights and elsewhere.cache._flights["k"].members == 50)
    here.go.set()
    await asyncio.gather(*first, *others)
    assert elsewhere.made == []


async def test_where_the_first_fails_another_takes_its_place() -> None:
    asking = Asking(Shelf({}))
    tasks = asking.start("r0", "r1", "r2")
    await until(lambda: asking.made)
    tasks[0].cancel()
    await until(lambda: len(asking.made) == 2)
    asking.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert asking.made == ["r0", "r1"]
    assert isinstance(results[2], Draft)


async def test_after_two_in_vain_nobody_waits_any_more() -> None:
    asking = Asking(Shelf({}))
    asking.works = False
    asking.go.set()
    tasks = asking.start(*(f"r{number}" for number in range(10)))
    assert await asyncio.gather(*tasks) == [None] * 10
    assert sorted(asking.made) == sorted(f"r{number}" for number in range(10))


async def test_a_cancelled_waiter_disturbs_nobody() -> None:
    asking = Asking(Shelf({}))
    tasks = asking.start("r0", "r1", "r2")
    await until(lambda: asking.cache._flights and asking.cache._flights["k"].members == 3)
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    asking.go.set()
    assert await tasks[0] is None
    assert isinstance(await tasks[2], Draft)
    assert asking.made == ["r0"]


async def test_who_waits_stops_at_the_deadline() -> None:
    now = [0.0]
    shelf = Shelf({"k": "somebody"})
    asking = Asking(shelf)
    asking.cache._clock = lambda: now[0]
    asking.go.set()
    task = asyncio.create_task(asking.ask("r0", deadline=5.0))
    await until(lambda: shelf.looks >= 2)
    assert asking.made == []
    now[0] = 5.0
    assert await task is None
    assert asking.made == ["r0"]
    assert shelf.there == {"k": Kept(of="r0", draft=DRAFT)}


async def test_without_redis_a_process_still_calls_once() -> None:
    shelf = Shelf({})
    shelf.away = True
    asking = Asking(shelf)
    tasks = asking.start("r0", "r1", "r2")
    await until(lambda: asking.made)
    asking.go.set()
    results = await asyncio.gather(*tasks)
    assert asking.made == ["r0"]
    assert [result is None for result in results] == [True, False, False]


async def test_a_request_that_comes_again_takes_its_own_lease() -> None:
    asking = Asking(Shelf({"k": "r0"}))
    asking.go.set()
    assert await asking.ask("r0") is None
    assert asking.made == ["r0"]


async def test_an_answer_on_its_way_to_a_judge_is_waited_for() -> None:
    shelf = Shelf({})
    asking = Asking(shelf)
    async with asking.cache.turn(Entry("k", 60), "r0") as turn:
        turn.move_on()
    assert shelf.there == {"k": "r0"}
    waiting = asking.start("r1")
    await until(lambda: shelf.looks >= 3)
    async with asking.cache.turn(Entry("k", 60), "r0", resumes=True) as turn:
        assert turn.hit is None
        turn.keep(DRAFT)
    hit = await waiting[0]
    assert hit is not None
    assert hit.cached is not None
    assert hit.cached.of == "r0"
    assert asking.made == []


async def test_similar_words_are_a_hit_and_the_lease_is_given_back() -> None:
    shelf = Shelf({})
    cache = AnswerCache(shelf)
    plan = CachePlan(ttl_s=60, similar=0.9, embeddings="cached_embeddings:letters")

    async def ask(text: str) -> Draft | None:
        made = call(request(text), cache=plan)
        async with cache.turn(entry_of(made, made.request, SMALL), text) as turn:
            if turn.hit is None:
                turn.keep(DRAFT)
            return turn.hit

    assert await ask("the capital of France") is None
    assert await ask("zzz") is None
    hit = await ask("capital of the France")
    assert hit is not None
    assert hit.cached is not None
    assert hit.cached.of == "the capital of France"
    assert hit.cached.similarity is not None
    assert hit.cached.similarity >= 0.9
    await until(lambda: not any(isinstance(each, str) for each in shelf.there.values()))
    assert len(shelf.there) == 2


async def test_embeddings_that_fail_leave_what_is_the_same() -> None:
    shelf = Shelf({})
    cache = AnswerCache(shelf)
    plan = CachePlan(ttl_s=60, similar=0.9, embeddings="no_such_module:function")
    made = call(request(), cache=plan)
    for _ in range(2):
        async with cache.turn(entry_of(made, made.request, SMALL), "r0") as turn:
            if turn.hit is None:
                turn.keep(DRAFT)
    assert turn.hit is not None
    assert shelf.vectors == []


# -- the catalog


def catalog(**route: Any) -> Catalog:
    default = {"otherwise": ["small"], **route}
    return Catalog.model_validate(
        {"models": [{"name": "small", "provider": "extractive"}], "routes": {"default": default}}
    )


def test_a_targets_own_word_counts_and_zero_is_off() -> None:
    rule = {"when": {"keywords": ["now"]}, "intent": "now", "models": ["small"]}
    made = catalog(answer_cache={"ttl_s": 60}, rules=[{**rule, "answer_cache": {"ttl_s": 0}}])
    assert decide(request("hello"), made, 0.0).plan.cache == CACHE
    assert decide(request("now"), made, 0.0).plan.cache is None
    assert decide(request("now", models=["small"]), made, 0.0).plan.cache == CACHE
    assert decide(request("hello"), catalog(), 0.0).plan.cache is None


def test_similar_takes_the_routes_embeddings() -> None:
    made = catalog(answer_cache={"ttl_s": 60, "similar": 0.9}, embeddings="folder")
    plan = decide(request("hello"), made, 0.0).plan
    assert plan.cache == CachePlan(ttl_s=60, similar=0.9, embeddings="folder")


def test_similar_without_embeddings_is_refused() -> None:
    with pytest.raises(ValidationError, match="similar needs embeddings"):
        Route.model_validate({"otherwise": ["small"], "answer_cache": {"ttl_s": 1, "similar": 0.9}})


def test_embeddings_that_nobody_asks_for_are_refused() -> None:
    with pytest.raises(ValidationError, match="need a classifier"):
        Route.model_validate(
            {"otherwise": ["small"], "embeddings": "x", "answer_cache": {"ttl_s": 1}}
        )


def test_a_check_says_which_embeddings_are_not_there(tmp_path: Path) -> None:
    made = catalog(answer_cache={"ttl_s": 60, "similar": 0.9}, embeddings="nowhere")
    (told,) = embeddings.problems(made, tmp_path)
    assert told.startswith("route 'default': answer_cache: embeddings nowhere: there is no folder")
    assert told.endswith("only the same requests are found")


def test_a_check_says_if_a_folders_package_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model2vec", None)
    (tmp_path / "vectors").mkdir()
    made = catalog(answer_cache={"ttl_s": 60, "similar": 0.9}, embeddings="vectors")
    (told,) = embeddings.problems(made, tmp_path)
    assert "pip install modelyard[embeddings]" in told
