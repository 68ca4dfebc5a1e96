"""KV pages of an engine whose layers form several groups, or have a sliding window: a block table for each group.

Pages that fell out of a group's window are given back while the sequence goes on. So what a sequence computed is not
all there when it ends, and nothing is shared, kept or swapped: who is preempted is computed again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..engines.protocol import PagedEngine
from ..requests.request import Request
from .manager import KvManager
from .pages import pages_for
from .swap import Swap

GONE = 0  # the entry of a page that fell out of the window


@dataclass(slots=True)
class _Table:
    pages: list[int] = field(default_factory=list)
    gone: int = 0  # so many of the first


class GroupedKv(KvManager):
    """As `KvManager`, by ``engine.info.groups``."""

    def __init__(self, engine: PagedEngine, *, memory_bytes: int | None = None, swap: Swap | None = None) -> None:
        super().__init__(engine, prefix_bytes=0, memory_bytes=memory_bytes, swap=swap)
        self.groups = engine.info.groups
        self._tables: dict[Request, list[_Table]] = {}

    @property
    def capacity(self) -> int:
        """Tokens that one request alone could have: all of them are in pages until its prompt is read."""
        tokens = int(self.pool.limit / sum(1 / group.page_tokens for group in self.groups))
        while sum(pages_for(tokens, group.page_tokens) for group in self.groups) > self.pool.limit:
            tokens -= 1
        return tokens

    async def admit(self, request: Request) -> bool:
        tables = [_Table() for _ in self.groups]
        if not await self._fill(tables, min(request.length + 1, request.end)):
            return False
        self._tables[request] = tables
        request.tables = [table.pages for table in tables]
        request.pages = request.tables[0]
        return True

    async def cover(self, request: Request, steps: int) -> bool:
        self._slide(request)
        tables, start = self._tables[request], request.num_computed_tokens
        if await self._fill(tables, min(start + steps, request.end)):
            return True
        return await self._fill(tables, start + 1)  # a burst ends where its pages do

    def keep_bytes(self, prefix_bytes: int) -> None:
        """Nothing is kept."""

    def skip(self, request: Request) -> None:
        """Nothing is shared."""

    def next_page(self, request: Request) -> tuple[int, tuple[int, ...]] | None:
        return None

    def keep(self, request: Request) -> None:
        """A step is over."""
        self._slide(request)

    def release(self, request: Request) -> None:
        for table in self._tables.pop(request, ()):
            self.pool.give(table.pages[table.gone :])
        request.pages, request.tables = [], []
        request.num_computed_tokens = 0

    async def _fill(self, tables: list[_Table], tokens: int) -> bool:
        """Pages for so many tokens in every group, or none."""
        need = [
            max(0, pages_for(tokens, g.page_tokens) - len(t.pages)) for t, g in zip(tables, self.groups, strict=True)
        ]
        fresh = await self.obtain(sum(need))
        if fresh is None:
            return False
        for table, count in zip(tables, need, strict=True):
            table.pages += fresh[:count]
            del fresh[:count]
        return True

    def _slide(self, request: Request) -> None:
        """Give back the pages that no later token sees."""
        for table, group in zip(self._tables[request], self.groups, strict=True):
            if group.window is None:
                continue
            unseen = max(0, request.num_computed_tokens - group.window + 1) // group.page_tokens
            gone = range(table.gone, min(unseen, len(table.pages)))
            self.pool.give([table.pages[i] for i in gone])
            for i in gone:
                table.pages[i] = GONE
            table.gone += len(gone)
