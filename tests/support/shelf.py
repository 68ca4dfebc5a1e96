"""Models for tests of the registry: small routers on the strict double, and somebody who watches who holds what."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from inpage.engines.protocol import Progress
from inpage.kv import Blocks
from inpage.models import Grant, Level, Models
from inpage.models.entry import Entry
from inpage.router import Router
from inpage.router.handover import Handover
from inpage.settings import settings_from
from inpage.text.tokenizer import Tokenizer

from .small import small_router


class ManualClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.time + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        self.time += seconds
        for due, future in self._sleepers:
            if due <= self.time and not future.done():
                future.set_result(None)
        self._sleepers = [(due, future) for due, future in self._sleepers if not future.done()]


class Shelf:
    """A registry of doubles. ``sizes``: megabytes of each model's levels, the best first. It asserts the rules at each
    load and unload: places and bytes within bounds, nothing loaded twice, nothing taken from who uses it."""

    def __init__(self, tokenizer: Tokenizer, sizes: dict[str, tuple[int, ...]], **settings: float | None) -> None:
        tree = {"models": {"least_context": 1, **settings}, "scheduler": {"timeout": None}}
        self.clock = ManualClock()
        self.models = Models(settings_from(tree), clock=self.clock)
        self.loads: Counter[str] = Counter()
        self.grants: dict[str, Grant | None] = {}  # of what is loaded or loads
        self.users: Counter[str] = Counter()
        self.pinned: set[str] = set()
        self.asked: set[str] = set()  # to be unloaded, whatever it is
        self.closing = False
        self.lowering = 0  # changes of the budget on their way
        self.refuse: Exception | None = None
        self.refusals = 10**9  # that many loads
        self.hold: asyncio.Event | None = None
        for name, levels in sizes.items():
            self.models.add_source(name, _Double(self, name, levels, tokenizer))

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[Router]:
        async with self.models.use(name) as router:
            self.users[name] += 1
            try:
                yield router
            finally:
                self.users[name] -= 1

    async def budget(self, target_memory: int | None) -> None:
        self.lowering += 1
        try:
            await self.models.set_target_memory(target_memory)
        finally:
            self.lowering -= 1

    def check(self, *, loading: bool = False) -> None:
        settings = self.models.settings.models
        assert len(self.grants) <= settings.max_loaded
        if settings.target_memory is not None and (loading or not self.lowering):
            assert sum(grant.total for grant in self.grants.values() if grant) <= settings.target_memory

    async def settle(self) -> None:
        """Let everything that can go on go on."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def close(self) -> None:
        self.closing = True
        await self.models.close()
        assert not self.grants


class _Double:
    def __init__(self, shelf: Shelf, name: str, sizes: tuple[int, ...], tokenizer: Tokenizer) -> None:
        self._shelf, self._name, self._sizes, self._tokenizer = shelf, name, sizes, tokenizer

    @property
    def _entry(self) -> Entry:
        return self._shelf.models._entries[self._name]

    async def embeds(self) -> bool:
        return False

    async def levels(self) -> list[Level]:
        await asyncio.sleep(0)
        return [
            Level(i, f"{self._name}-{i}", size * 10**6, 64, Blocks(4), 256, 4) for i, size in enumerate(self._sizes)
        ]

    async def open(self, grant: Grant | None, on_progress: Progress) -> Router:
        shelf, name = self._shelf, self._name
        assert name not in shelf.grants, "loaded twice"
        shelf.loads[name] += 1
        shelf.grants[name] = grant
        shelf.check(loading=True)
        try:
            on_progress({"phase": "manifest"})
            await asyncio.sleep(0)
            if shelf.hold is not None:
                await shelf.hold.wait()
            if shelf.refuse is not None and shelf.refusals:
                shelf.refusals -= 1
                raise shelf.refuse
        except BaseException:
            del shelf.grants[name]
            raise
        router = small_router(self._tokenizer)
        unload = router.unload

        async def watched() -> None:
            assert shelf.closing or not shelf.users[name], "unloaded while it answers"
            assert shelf.closing or name in shelf.asked or name not in shelf.pinned, "unloaded although pinned"
            await asyncio.sleep(0)
            await unload()
            del shelf.grants[name]

        hand_over = router.hand_over

        async def handed_over(handover: Handover) -> None:
            assert shelf.closing or shelf.users[name] or name in shelf.pinned or self._entry.uses, "moved while idle"
            await asyncio.sleep(0)
            await hand_over(handover)
            del shelf.grants[name]

        router.unload = watched  # type: ignore[method-assign]
        router.hand_over = handed_over  # type: ignore[method-assign]
        return router
