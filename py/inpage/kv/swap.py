"""KV pages of requests that wait for memory, kept outside of the engine while copying them there and back measures
cheaper than reading their tokens again: in memory as long as there is room, then in a file (`swap_file`).

In the page both are JavaScript's: they never pass through Python. They belong to one engine's `KvManager` and are gone
with it. What cannot be kept, brought back or trusted is computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..engines.protocol import PagedEngine
from ..errors import DeviceLost, StorageFull
from ..observe.scheduler_metrics import SchedulerMetrics
from ..requests.request import Request
from .blocks import Blocks, Tables
from .swap_tiers import FileTier, MemoryTier, Rate, Tier

_CHUNK = 32  # pages that cross at once: some megabytes


@dataclass(slots=True)
class _Saved:
    """``blocks``: whose pages are in the chunks, as (part, block), the earlier blocks first. ``chunks``: as the tier
    gave them, each of so many pages."""

    tier: Tier
    chunks: list[tuple[Any, int]]
    blocks: list[tuple[int, int]]
    pages: int
    num_computed_tokens: int  # positions after which the sequence goes on


@dataclass(slots=True)
class _Chosen:
    blocks: list[tuple[int, int]]
    pages: list[int]
    tokens: int


class Swap:
    """``tiers``: the first that has room and pays is taken; without any, as for an engine without pages (None), nothing
    is saved. ``clock``: seconds."""

    def __init__(
        self,
        engine: PagedEngine | None,
        tiers: Sequence[Tier] = (),
        metrics: SchedulerMetrics | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.tiers, self.clock = tiers, clock
        self.prefill = Rate()
        self._engine, self._metrics = engine, metrics or SchedulerMetrics()
        self._saved: dict[Request, _Saved] = {}

    @property
    def _paged(self) -> PagedEngine:
        assert self._engine is not None
        return self._engine

    @property
    def held(self) -> int:
        """Bytes of pages saved in memory."""
        return sum(tier.held for tier in self.tiers if isinstance(tier, MemoryTier))

    @property
    def stored(self) -> int:
        """Bytes of pages saved in the file."""
        return sum(tier.held for tier in self.tiers if isinstance(tier, FileTier))

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """A step read so many tokens of prompts."""
        if tokens and self._engine is not None:
            self.prefill.add(tokens, seconds)

    async def save(self, request: Request, tables: Tables | None) -> None:
        """Call it before the request gives its pages up for want of memory. ``tables``: None where it has no pages.
        Raises `DeviceLost`."""
        worth = self.tiers and request.num_computed_tokens and request.targets is None and not request.cancelled
        saved = await self._save(request, tables) if worth and tables is not None else None
        if saved is not None and request.cancelled:
            _free(saved)
        elif saved is not None:
            self._saved[request] = saved
            self._metrics.swapped.add(saved.pages, way="saved", tier=saved.tier.name)
        self._metrics.preemptions.add(way="dropped" if saved is None else "swapped")

    def saved_tokens(self, request: Request) -> int:
        """After how many tokens the request goes on from what was saved of it."""
        saved = self._saved.get(request)
        return 0 if saved is None else saved.num_computed_tokens

    async def load(self, request: Request, tables: Tables, cached: int) -> int:
        """Bring back what was saved of the request into its pages behind the first ``cached`` tokens, which are
        computed already: ``tables`` has the pages of whoever goes on after `saved_tokens`. Gives after how many tokens
        it goes on now: ``cached``, where it could not be brought back. Raises `DeviceLost`."""
        saved = self._saved.pop(request, None)
        if saved is None:
            return cached
        try:
            if saved.num_computed_tokens <= cached:
                return cached
            return await self._load(saved, tables, cached)
        finally:
            _free(saved)

    def forget(self, request: Request) -> None:
        """It is over."""
        saved = self._saved.pop(request, None)
        if saved is not None:
            _free(saved)

    async def _save(self, request: Request, tables: Tables) -> _Saved | None:
        """To the first tier that takes all that later tokens see, else to the one that takes most; None where none
        does, or where it does not pay, or there is no memory to copy them."""
        best: tuple[Tier, _Chosen] | None = None
        for tier in self.tiers:
            chosen = self._choose(request, tables, tier.room)
            if chosen is None or (best is not None and chosen.tokens <= best[1].tokens):
                continue
            if tier.pays(len(chosen.pages), chosen.tokens, self.prefill):
                best = tier, chosen
                if chosen.tokens == request.num_computed_tokens:
                    break
        return None if best is None else await self._copy(*best)

    def _choose(self, request: Request, tables: Tables, room: int) -> _Chosen | None:
        """As many of its first blocks as ``room`` pages hold, or all that later tokens see."""
        blocks, tokens = tables.blocks, request.num_computed_tokens
        chosen = _needed(blocks, tokens)
        pages = [page for one in chosen for page in tables.get(*one)]
        if len(pages) > room and not any(tables.gone):
            tokens = room // blocks.pages * blocks.tokens
            chosen = _needed(blocks, tokens)
            pages = [page for one in chosen for page in tables.get(*one)]
        return _Chosen(chosen, pages, tokens) if 0 < len(pages) <= room else None

    async def _copy(self, tier: Tier, chosen: _Chosen) -> _Saved | None:
        began, pages = self.clock(), chosen.pages
        saved = _Saved(tier, [], chosen.blocks, len(pages), chosen.tokens)
        try:
            for at in range(0, len(pages), _CHUNK):
                some = pages[at : at + _CHUNK]
                saved.chunks.append((await tier.put(await self._paged.read_pages(some), len(some)), len(some)))
        except BaseException as error:
            _free(saved)
            if isinstance(error, DeviceLost) or not isinstance(error, Exception):
                raise
            if isinstance(error, StorageFull):
                tier.full()
            return None
        tier.write.add(len(pages), self.clock() - began)
        return saved

    async def _load(self, saved: _Saved, tables: Tables, cached: int) -> int:
        first = cached // tables.blocks.tokens
        pages = [page for part, block in saved.blocks if block >= first for page in tables.get(part, block)]
        skipped, at, began = saved.pages - len(pages), 0, self.clock()
        for chunk, count in saved.chunks:
            start, end = max(skipped, at), at + count
            if end > start:
                try:
                    data = await saved.tier.get(chunk, start - at)
                    if data is not None:
                        await self._paged.write_pages(pages[start - skipped : end - skipped], data)
                except DeviceLost:
                    raise
                except Exception:
                    data = None
                if data is None:  # computed again
                    self._metrics.swapped.add(saved.pages, way="lost", tier=saved.tier.name)
                    return cached
            at = end
        saved.tier.read.add(len(pages), self.clock() - began)
        self._metrics.swapped.add(len(pages), way="loaded", tier=saved.tier.name)
        return saved.num_computed_tokens


def _free(saved: _Saved) -> None:
    for chunk, count in saved.chunks:
        saved.tier.free(chunk, count)
    saved.chunks = []


def _needed(blocks: Blocks, tokens: int) -> list[tuple[int, int]]:
    """What of a sequence of so many tokens later ones see, as (part, block), the earlier blocks first."""
    firsts = [part.needed(tokens // blocks.tokens) for part in blocks.parts]
    return [(p, block) for block in range(blocks.of(tokens)) for p, first in enumerate(firsts) if block >= first]
