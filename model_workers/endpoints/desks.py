"""The desks of all models that this worker calls, as the newest catalog has them.

A catalog that is read anew changes them in place, under calls: what an endpoint is known by decides
whether what was found of it still holds, and what its provider reads decides whether its
connections do. Those that do not are closed after the last call that goes through them.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterator

from model_workers.endpoints.desk import Desk, Post, endpoint_scopes, model_scopes
from model_workers.lines import Line, connect, identity
from modelyard.catalog import Catalog, Model


class Desks:
    """Lives on one event loop.

    `current` gives the catalog in force; without it that is the last one that a call came with.
    """

    def __init__(self, current: Callable[[], Catalog] | None = None) -> None:
        self._current = current
        self._catalog: Catalog | None = None
        self._older: list[weakref.ref[Catalog]] = []
        self._by_name: dict[str, Desk] = {}
        self._retired: set[Line] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Desk]:
        return iter(tuple(self._by_name.values()))

    def get(self, name: str) -> Desk | None:
        """Return the desk of a model, if there is one."""
        return self._by_name.get(name)

    def newest(self, catalog: Catalog, now: float) -> Catalog:
        """Return the catalog that is in force: this one, unless another one came after it.

        A call that was begun by an older one goes on by it, but not here.
        """
        if self._current is not None:
            # Of two that are both unknown here, a call that waited may bring the older one last.
            catalog = self._current()
        if self._catalog is None:
            self._catalog = catalog
        elif catalog is not self._catalog:
            older = [each for each in self._older if each() is not None]
            if all(each() is not catalog for each in older):
                older.append(weakref.ref(self._catalog))
                self._catalog = catalog
                self._change(catalog, now)
            self._older = older
        return self._catalog

    def of(self, catalog: Catalog, model: Model, now: float) -> Desk:
        """Return the desk of a model. `now` is in seconds since the epoch."""
        catalog = self.newest(catalog, now)
        desk = self._by_name.get(model.name)
        if desk is None:
            known = called(catalog, model.name)
            desk = Desk(known or model, [], gone=known is None)
            self._by_name[model.name] = desk
            self._furnish(desk, catalog, now)
        return desk

    def _change(self, catalog: Catalog, now: float) -> None:
        for desk in self:
            model = called(catalog, desk.model.name)
            desk.gone = model is None
            if model is None:
                self._let_go(desk)
            else:
                desk.model = model
                self._furnish(desk, catalog, now)

    def _furnish(self, desk: Desk, catalog: Catalog, now: float) -> None:
        """Give a desk the endpoints that its model has."""
        before = {post.line.label: post for post in desk.posts}
        lines = connect(desk.model, {label: post.line for label, post in before.items()})
        posts = []
        for line in lines:
            known_by = identity(desk.model, line.endpoint)
            post = before.pop(line.label, None)
            if post is None or post.identity != known_by:
                old, post = post, Post(line, known_by)
                if old is not None:
                    self._retire(old)
                    # What is known of the one that had this name is no news of this one.
                    post.closed_at = post.since = now
                    post.told, post.learned_told = old.told, old.learned_told
            elif post.line is not line:
                self._retire_line(post.line)
                post.line = line
            post.scopes = endpoint_scopes(catalog, desk.model, line)
            posts.append(post)
        for post in before.values():
            self._retire(post)
        desk.posts = posts
        desk.scopes = model_scopes(desk.model)

    # -- letting go

    @contextlib.contextmanager
    def using(self, desk: Desk, line: Line) -> Iterator[None]:
        """Keep a line from being closed until the block ends."""
        line.calls += 1
        try:
            yield
        finally:
            self.release(desk, line)

    def release(self, desk: Desk, line: Line) -> None:
        """Note that a call has ended, and close what it was the last one of."""
        line.calls -= 1
        if line.calls:
            return
        if line.retired:
            self._close(line)
        if desk.gone:
            self._let_go(desk)

    def _let_go(self, desk: Desk) -> None:
        if any(post.line.calls for post in desk.posts):
            return
        if self._by_name.get(desk.model.name) is desk:
            del self._by_name[desk.model.name]
        if desk.probing is not None:
            desk.probing.cancel()
        for post in desk.posts:
            self._retire(post)

    def _retire(self, post: Post) -> None:
        post.retired = True
        self._retire_line(post.line)

    def _retire_line(self, line: Line) -> None:
        line.retired = True
        self._retired.add(line)
        if not line.calls:
            self._close(line)

    def _close(self, line: Line) -> None:
        self._retired.discard(line)
        if line.closed:
            return
        closing = asyncio.get_running_loop().create_task(line.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def aclose(self) -> None:
        """Close every connection, those of calls that are under way, too."""
        lines = {post.line for desk in self for post in desk.posts} | self._retired
        closing = set(self._closing)
        self._by_name.clear()
        self._retired.clear()
        self._older.clear()
        self._catalog = None
        for line in lines:
            line.retired = True
            await line.aclose()
        if closing:
            await asyncio.wait(closing)


def called(catalog: Catalog, name: str) -> Model | None:
    """Return the model of this name, or None if there is none that can be called."""
    for model in catalog.models:
        if model.name == name:
            return None if model.disabled else model
    return None
