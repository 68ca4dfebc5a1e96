"""KV pages of requests that wait for memory, kept outside of the engine while copying them there and back measures
cheaper than reading their tokens again.

They lie in plain memory, in the page JavaScript's: they never pass through Python, and need no digest, because they
belong to one engine's `KvManager` and are gone with it. What cannot be kept or brought back is computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..engines.protocol import PageData, PagedEngine
from ..errors import DeviceLost
from ..observe.scheduler_metrics import SchedulerMetrics
from ..requests.request import Request
from .blocks import Blocks, Tables

_CHUNK = 32  # pages that cross at once: some megabytes
_DECAY = 0.9  # of what was measured before, a measurement
_AGAIN = 32  # refusals after which it is tried again: what was slow once need not stay so


class Rate:
    """A running mean of seconds a page or a token, the newest weighing most."""

    def __init__(self) -> None:
        self._count = self._seconds = 0.0

    def add(self, count: float, seconds: float) -> None:
        self._count = self._count * _DECAY + count
        self._seconds = self._seconds * _DECAY + seconds

    @property
    def value(self) -> float | None:
        """None where nothing was measured."""
        return self._seconds / self._count if self._count else None


@dataclass(slots=True)
class _Saved:
    """``blocks``: whose pages are in the chunks, as (part, block), the earlier blocks first."""

    chunks: list[PageData]
    blocks: list[tuple[int, int]]
    pages: int
    num_computed_tokens: int  # positions after which the sequence goes on


class Swap:
    """``bytes``: what all saved pages may hold; 0: none are, and an engine without pages (None) has none. ``clock``:
    seconds."""

    def __init__(
        self,
        engine: PagedEngine | None,
        bytes: int = 0,
        metrics: SchedulerMetrics | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.bytes, self.clock = bytes, clock
        self.write, self.read, self.prefill = Rate(), Rate(), Rate()
        self._engine, self._metrics = engine, metrics or SchedulerMetrics()
        self._saved: dict[Request, _Saved] = {}
        self._refused = 0

    @property
    def _paged(self) -> PagedEngine:
        assert self._engine is not None
        return self._engine

    @property
    def held(self) -> int:
        """Bytes of saved pages."""
        return sum(saved.pages for saved in self._saved.values()) * self._paged.info.page_bytes if self._saved else 0

    def note_prefill(self, tokens: int, seconds: float) -> None:
        """A step read so many tokens of prompts."""
        if tokens and self._engine is not None:
            self.prefill.add(tokens, seconds)

    def pays(self, pages: int, tokens: int) -> bool:
        """Whether so many pages go there and back in less time than computing the tokens that they are for takes. What
        was never measured is tried: until a page was brought back, that is taken to cost what saving it did."""
        write, read, prefill = self.write.value, self.read.value, self.prefill.value
        if write is None or prefill is None:
            return True
        if pages * (write + (write if read is None else read)) < tokens * prefill:
            return True
        self._refused = (self._refused + 1) % _AGAIN
        return self._refused == 0

    async def save(self, request: Request, tables: Tables | None) -> None:
        """Call it before the request gives its pages up for want of memory. ``tables``: None where it has no pages.
        Raises `DeviceLost`."""
        worth = self.bytes and request.num_computed_tokens and request.targets is None and not request.cancelled
        saved = await self._read(request, tables) if worth and tables is not None else None
        if saved is not None and not request.cancelled:
            self._saved[request] = saved
            self._metrics.swapped.add(saved.pages, way="saved")
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
        if saved is None or saved.num_computed_tokens <= cached:
            return cached
        first = cached // tables.blocks.tokens
        pages = [page for part, block in saved.blocks if block >= first for page in tables.get(part, block)]
        skipped, began = saved.pages - len(pages), self.clock()
        for i, data in enumerate(saved.chunks):
            start = max(skipped, i * _CHUNK)
            end = min((i + 1) * _CHUNK, saved.pages)
            if end > start:
                part = _behind(data, (start - i * _CHUNK) * self._paged.info.page_bytes)
                try:
                    await self._paged.write_pages(pages[start - skipped : end - skipped], part)
                except DeviceLost:
                    raise
                except Exception:  # computed again
                    return cached
        self.read.add(len(pages), self.clock() - began)
        self._metrics.swapped.add(len(pages), way="loaded")
        return saved.num_computed_tokens

    def forget(self, request: Request) -> None:
        """It is over."""
        self._saved.pop(request, None)

    async def _read(self, request: Request, tables: Tables) -> _Saved | None:
        """As many of its first blocks as there is room for, or all that later tokens see; None where that is none, or
        where it does not pay, or the engine has not the memory to copy them."""
        blocks, info = tables.blocks, self._paged.info
        room, tokens = (self.bytes - self.held) // info.page_bytes, request.num_computed_tokens
        chosen = _needed(blocks, tokens)
        pages = [page for one in chosen for page in tables.get(*one)]
        if len(pages) > room and not any(tables.gone):
            tokens = room // blocks.pages * blocks.tokens
            chosen = _needed(blocks, tokens)
            pages = [page for one in chosen for page in tables.get(*one)]
        if not 0 < len(pages) <= room or not self.pays(len(pages), tokens):
            return None
        began, chunks = self.clock(), list[PageData]()
        try:
            for at in range(0, len(pages), _CHUNK):
                chunks.append(await self._paged.read_pages(pages[at : at + _CHUNK]))
        except DeviceLost:
            raise
        except Exception:
            return None
        self.write.add(len(pages), self.clock() - began)
        return _Saved(chunks, chosen, len(pages), tokens)


def _needed(blocks: Blocks, tokens: int) -> list[tuple[int, int]]:
    """What of a sequence of so many tokens later ones see, as (part, block), the earlier blocks first."""
    firsts = [part.needed(tokens // blocks.tokens) for part in blocks.parts]
    return [(p, block) for block in range(blocks.of(tokens)) for p, first in enumerate(firsts) if block >= first]


def _behind(data: PageData, start: int) -> PageData:
    if not start:
        return data
    return data[start:] if isinstance(data, bytes) else data.slice(start)  # a copy: what crosses is the whole buffer
