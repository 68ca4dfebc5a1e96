"""The KV pages of requests on one engine: taken as they grow, shared where they begin alike, given back when they end
or when no later token sees them.

Where no page is left the tree's idle ones go first; what to do when those are gone too is the scheduler's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..engines.protocol import PagedEngine
from ..errors import OutOfMemory
from ..requests.request import Request
from .blocks import Blocks, Tables
from .pages import PagePool
from .prefix import Branch, Key, PrefixTree
from .swap import Swap

_GROWTH = 8  # pages reserved at a time: growing costs a message, a page that nobody fills costs its bytes


@dataclass(slots=True)
class _Held:
    """What a request has here. ``branch``: None where it shares nothing."""

    tables: Tables
    branch: Branch | None


class KvManager:
    """``prefix_bytes``: how much memory pages that no request uses any more may hold for those to come; 0 for none.
    ``memory_bytes``: what all pages together may hold, where that is less than the engine could. ``swap``: where pages
    go of who waits for memory; None for nowhere. ``lent``: how many exports and imports have pages now; ``on_return``
    is called when one has given them back."""

    def __init__(
        self, engine: PagedEngine, *, prefix_bytes: int, memory_bytes: int | None = None, swap: Swap | None = None
    ) -> None:
        info = engine.info
        self.engine = engine
        self.swap = swap or Swap(engine)
        self.blocks = Blocks(info.page_tokens, info.groups)
        self.lent = 0
        self.on_return: Callable[[], None] = lambda: None
        self._growing = asyncio.Lock()
        self._held: dict[Request, _Held] = {}
        most = info.max_pages if memory_bytes is None else min(info.max_pages, memory_bytes // info.page_bytes)
        self.pool = PagePool(most)
        self.prefix = PrefixTree(self.pool, self.blocks, prefix_bytes // info.page_bytes)

    def keep_bytes(self, prefix_bytes: int) -> None:
        """Change how much memory idle pages may hold; what is beyond is given back now."""
        self.prefix.budget = prefix_bytes // self.engine.info.page_bytes
        self.prefix.trim()

    @property
    def capacity(self) -> int:
        """Tokens that one request alone could have."""
        info = self.engine.info
        return self.blocks.room(self.pool.limit, info.max_rows, info.context)

    def lend(self, tokens: Sequence[int]) -> list[list[list[int]]]:
        """To an export or import, what the tree's `hold` gives. It may take more, and gives all of them to `take_back`:
        until then they are neither idle nor any request's."""
        held = self.prefix.hold(tokens)
        self.lent += 1
        return held

    def take_back(self, pages: Iterable[int]) -> None:
        self.pool.give(pages)
        self.prefix.trim()
        self.lent -= 1
        self.on_return()

    async def obtain(self, count: int) -> list[int] | None:
        """Free pages, growing the engine's pool where it is too short and can grow, then at the tree's expense."""
        pool = self.pool
        async with self._growing:
            missing = count - pool.free
            room = pool.limit - pool.reserved
            if 0 < missing <= room + self.prefix.idle and room:
                await self._grow(min(missing, room))
        if pool.free < count <= pool.free + self.prefix.idle:
            self.prefix.evict(count - pool.free)
        return pool.take(count)

    async def admit(self, request: Request) -> bool:
        """Pages for what the request has to feed and for its next token, the kept ones that it begins with included;
        without the latter it would have to give them up at once. Of layers with a window, as many as a step needs. What
        was saved of it is brought back. False, and none taken, where there are not enough. The request has none before
        all is done: it may be cancelled meanwhile."""
        tables, branch, cached = Tables(self.blocks), self.prefix.branch(), 0
        if request.targets is None:
            cached = self.prefix.descend(branch, self._keys(request, 0, request.length - 1), tables)
        cached *= self.blocks.tokens
        start = max(cached, self.swap.saved_tokens(request))
        num_computed_tokens, fits = -1, False
        try:
            fits = await self._fill(tables, start, min(request.length + 1, request.end))
            if fits:
                num_computed_tokens = await self.swap.load(request, tables, cached)
        finally:
            if num_computed_tokens < start:
                self.prefix.leave(branch)
                self.pool.give(tables.pages())
        if num_computed_tokens < start:
            return fits and await self.admit(request)  # what was saved is lost: from what the tree has
        self._held[request] = _Held(tables, branch if request.targets is None else None)
        request.tables = tables.lists
        request.pages = request.tables[0]
        self._go_on_after(request, cached)
        request.num_computed_tokens = num_computed_tokens
        self._slide(request)
        return True

    def covers(self, request: Request, steps: int) -> bool:
        """Whether it has pages for the next ``steps`` positions."""
        tables, end = self._held[request].tables, self.blocks.of(min(request.num_computed_tokens + steps, request.end))
        return all(tables.count(p) >= end for p in range(len(self.blocks.parts)))

    async def cover(self, request: Request, steps: int) -> bool:
        """Pages for the next ``steps`` positions; of answers, which take bursts, at least for one. False where there
        are none."""
        if self.blocks.windowed:
            self.keep(request)
        if self.covers(request, steps):
            return True
        tables, start = self._held[request].tables, request.num_computed_tokens
        if await self._fill(tables, start, min(start + steps, request.end)):
            return True
        if request.to_prefill:
            return False
        return self.covers(request, 1) or await self._fill(tables, start, start + 1)  # a burst ends where its pages do

    def skip(self, request: Request) -> None:
        """Leave out of a prefill what another request has computed since this one was admitted."""
        held, start = self._held[request], request.num_computed_tokens
        if held.branch is None or start % self.blocks.tokens:
            return
        self.keep(request)  # pages that were swapped in are not in the tree yet
        keys = self._keys(request, held.branch.depth, request.length - 1)
        if self.prefix.descend(held.branch, keys, held.tables):
            self._go_on_after(request, held.branch.depth * self.blocks.tokens)
            self._slide(request)

    def next_block(self, request: Request) -> tuple[int, tuple[int, ...]] | None:
        """What the next block to feed will hold: equal for two requests only where that block will be. None where less
        than a block is left, or where every position matters."""
        size, start, branch = self.blocks.tokens, request.num_computed_tokens, self._held[request].branch
        if branch is None or start != branch.depth * size or request.length <= start + size:
            return None
        return id(branch.node), tuple(request.slice(start, start + size))

    def keep(self, request: Request) -> None:
        """Let others share the full blocks that the request has fed by now, and give up what no later token sees."""
        held = self._held[request]
        if held.branch is not None:
            keys = self._keys(request, held.branch.depth, request.num_computed_tokens)
            self.prefix.append(held.branch, keys, held.tables)
        self._slide(request)

    async def suspend(self, request: Request) -> None:
        """Call it before `release` where that is for want of memory: its pages are saved, if that pays."""
        self.keep(request)
        await self.swap.save(request, self._held[request].tables)

    def release(self, request: Request) -> None:
        """The request gives its pages up; the full blocks stay for others as far as the budget allows."""
        if request in self._held:
            self.keep(request)
            held = self._held.pop(request)
            if held.branch is not None:
                self.prefix.leave(held.branch)
            self.pool.give(held.tables.pages())
            request.pages, request.tables = [], []
            self.prefix.trim()
        request.num_computed_tokens = 0

    def _keys(self, request: Request, first: int, end: int) -> Iterator[Key]:
        """Of its full blocks from the ``first``-th on, as far as its first ``end`` tokens fill them."""
        size = self.blocks.tokens
        for start in range(first * size, end - size + 1, size):
            yield tuple(request.slice(start, start + size))

    def _go_on_after(self, request: Request, tokens: int) -> None:
        """The first ``tokens`` of the request's were computed by others."""
        request.num_computed_tokens = tokens
        request.cached = max(request.cached, min(tokens, len(request.prompt)))

    async def _fill(self, tables: Tables, start: int, end: int) -> bool:
        """Pages for the tokens from ``start`` to ``end`` and for what they see, of each part as many at most as a step
        needs; none where there are not enough."""
        blocks, missing, rows = self.blocks, list[int](), self.engine.info.max_rows
        for p, part in enumerate(blocks.parts):
            first = part.needed(start // blocks.tokens)
            self.pool.give(tables.drop(p, first))
            missing.append(max(0, int(min(blocks.of(end), first + blocks.most(part, rows))) - tables.count(p)))
        fresh = await self.obtain(sum(n * part.pages for n, part in zip(missing, blocks.parts, strict=True)))
        if fresh is None:
            return False
        for p, (n, part) in enumerate(zip(missing, blocks.parts, strict=True)):
            tables.extend(p, fresh[: n * part.pages])
            del fresh[: n * part.pages]
        return True

    def _slide(self, request: Request) -> None:
        """Give up the pages that no later token sees, nor the first one after the last full block: there the next
        prompt begins."""
        if self.blocks.windowed:
            tables, done = self._held[request].tables, request.num_computed_tokens // self.blocks.tokens
            gone = [page for p, part in enumerate(self.blocks.parts) for page in tables.drop(p, part.needed(done))]
            if gone:
                self.pool.give(gone)
                self.prefix.trim()

    async def _grow(self, missing: int) -> None:
        """By some more than ``missing`` pages if they can be had, else by what the device still has."""
        pool = self.pool
        wanted = pool.reserved + missing
        extra = min(max(missing, _GROWTH), pool.limit - pool.reserved)
        while extra and pool.reserved < wanted:
            extra = min(extra, pool.limit - pool.reserved)
            try:
                await self.engine.reserve_pages(pool.reserved + extra)
            except OutOfMemory:
                extra = missing if extra > missing else extra // 2
            else:
                pool.grow_to(pool.reserved + extra)
        if pool.reserved < wanted:
            pool.limit = pool.reserved  # the device is full: live with what there is
