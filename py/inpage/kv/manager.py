"""The KV pages of requests on one engine: taken as they grow, shared where they begin alike, given back when they end.

Where no page is left the tree's idle ones go first; what to do when those are gone too is the scheduler's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ..engines.protocol import PagedEngine
from ..errors import OutOfMemory
from ..requests.request import Request
from .pages import PagePool, pages_for
from .prefix import Branch, Key, PrefixTree
from .swap import Swap

_GROWTH = 8  # pages reserved at a time: growing costs a message, a page that nobody fills costs its bytes


class KvManager:
    """``prefix_bytes``: how much memory pages that no request uses any more may hold for those to come; 0 for none.
    ``memory_bytes``: what all pages together may hold, where that is less than the engine could. ``swap``: where pages
    go of who waits for memory; None for nowhere."""

    def __init__(
        self, engine: PagedEngine, *, prefix_bytes: int, memory_bytes: int | None = None, swap: Swap | None = None
    ) -> None:
        info = engine.info
        self.engine = engine
        self.swap = swap or Swap(engine)
        self.page_tokens = info.page_tokens
        self._growing = asyncio.Lock()
        self._branches: dict[Request, Branch] = {}  # of those that have pages and share them
        most = info.max_pages if memory_bytes is None else min(info.max_pages, memory_bytes // info.page_bytes)
        self.pool = PagePool(most)
        self.prefix = PrefixTree(self.pool, info.page_tokens, prefix_bytes // info.page_bytes)

    def keep_bytes(self, prefix_bytes: int) -> None:
        """Change how much memory idle pages may hold; what is beyond is given back now."""
        self.prefix.budget = prefix_bytes // self.engine.info.page_bytes
        self.prefix.trim()

    @property
    def capacity(self) -> int:
        """Tokens that one request alone could have."""
        return self.pool.limit * self.page_tokens

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
        without the latter it would have to give them up at once. What was saved of it is brought back. False, and none
        taken, where there are not enough. The request has none before all is done: it may be cancelled meanwhile."""
        branch, pages = self.prefix.branch(), list[int]()
        if request.targets is None:
            pages = self.prefix.descend(branch, self._keys(request, 0, request.length - 1))
        cached = len(pages)
        need = pages_for(min(request.length + 1, request.end), self.page_tokens) - cached
        admitted = False
        try:
            fresh = await self.obtain(need)
            if fresh is not None:
                pages += fresh
                num_computed_tokens = await self.swap.load(request, pages, cached)
                admitted = True
        finally:
            if not admitted:
                self.prefix.leave(branch)
                self.pool.give(pages)
        if admitted:
            request.pages = pages
            if request.targets is None:
                self._branches[request] = branch
            self._go_on_after(request, cached)
            request.num_computed_tokens = num_computed_tokens
        return admitted

    async def cover(self, request: Request, steps: int) -> bool:
        """Pages for the next ``steps`` positions, or at least for one. False where there is none."""
        have = len(request.pages)
        need = pages_for(min(request.num_computed_tokens + steps, request.end), self.page_tokens) - have
        if need <= 0:
            return True
        pages = await self.obtain(need)
        if pages is None:
            if request.num_computed_tokens < have * self.page_tokens:
                return True  # a burst ends where its pages do
            pages = await self.obtain(1)
        request.pages += pages or ()
        return pages is not None

    def skip(self, request: Request) -> None:
        """Leave out of a prefill what another request has computed since this one was admitted."""
        branch, start, size = self._branches.get(request), request.num_computed_tokens, self.page_tokens
        if branch is None or start % size:
            return
        self.keep(request)  # pages that were swapped in are not in the tree yet
        first = branch.depth
        kept = self.prefix.descend(branch, self._keys(request, first, request.length - 1))
        if kept:
            self.pool.give(request.pages[first : first + len(kept)])
            request.pages[first : first + len(kept)] = kept
            self._go_on_after(request, branch.depth)

    def next_page(self, request: Request) -> tuple[int, tuple[int, ...]] | None:
        """What the next page to feed will hold: equal for two requests only where that page will be. None where less
        than a page is left, or where every position matters."""
        size, start = self.page_tokens, request.num_computed_tokens
        if request.targets is not None or start % size or request.length <= start + size:
            return None
        before = request.pages[start // size - 1] if start else -1
        return before, tuple(request.slice(start, start + size))

    def keep(self, request: Request) -> None:
        """Let others share the full pages that the request has fed by now."""
        branch = self._branches.get(request)
        if branch is not None:
            self.prefix.append(branch, self._keys(request, branch.depth, request.num_computed_tokens), request.pages)

    def release(self, request: Request) -> None:
        """The request gives its pages up; the full ones stay for others as far as the budget allows."""
        if request.pages:
            self.keep(request)
            branch = self._branches.pop(request, None)
            if branch is not None:
                self.prefix.leave(branch)
            self.pool.give(request.pages)
            request.pages = []
            self.prefix.trim()
        request.num_computed_tokens = 0

    def _keys(self, request: Request, first: int, end: int) -> Iterator[Key]:
        """Of its full pages from the ``first``-th on, as far as its first ``end`` tokens fill them."""
        size = self.page_tokens
        for start in range(first * size, end - size + 1, size):
            yield tuple(request.slice(start, start + size))

    def _go_on_after(self, request: Request, pages: int) -> None:
        """The first ``pages`` of the request's were computed by others."""
        request.num_computed_tokens = pages * self.page_tokens
        request.cached = max(request.cached, min(request.num_computed_tokens, len(request.prompt)))

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
