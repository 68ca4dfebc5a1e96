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
from .pages import pages_for

_CHUNK = 32  # pages that cross at once: some megabytes
_DECAY = 0.9  # of what was measured before, a measurement
_AGAIN = 32  # refusals after which it is tried again: what was slow once need not stay so


class Rate:
    """A running mean of seconds a page, the newest weighing most."""

    def __init__(self) -> None:
        self._pages = self._seconds = 0.0

    def add(self, pages: float, seconds: float) -> None:
        self._pages = self._pages * _DECAY + pages
        self._seconds = self._seconds * _DECAY + seconds

    @property
    def value(self) -> float | None:
        """None where nothing was measured."""
        return self._seconds / self._pages if self._pages else None


@dataclass(slots=True)
class _Saved:
    chunks: list[PageData]
    pages: int
    num_computed_tokens: int  # positions that stand in them


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
            self.prefill.add(tokens / self._engine.info.page_tokens, seconds)

    def pays(self) -> bool:
        """Whether a page goes there and back in less time than computing it takes. What was never measured is tried:
        until a page was brought back, that is taken to cost what saving it did."""
        write, read, prefill = self.write.value, self.read.value, self.prefill.value
        if write is None or prefill is None or write + (write if read is None else read) < prefill:
            return True
        self._refused = (self._refused + 1) % _AGAIN
        return self._refused == 0

    async def save(self, request: Request) -> None:
        """Call it before the request gives its pages up for want of memory. Raises `DeviceLost`."""
        worth = self.bytes and request.num_computed_tokens and request.targets is None and not request.cancelled
        saved = await self._read(request) if worth and self.pays() else None
        if saved is not None and not request.cancelled:
            self._saved[request] = saved
            self._metrics.swapped.add(saved.pages, way="saved")
        self._metrics.preemptions.add(way="dropped" if saved is None else "swapped")

    async def load(self, request: Request, pages: list[int], cached: int) -> int:
        """Bring back what was saved of the request into its ``pages`` behind the first ``cached``, which are computed
        already. Gives how many positions stand in pages then. Raises `DeviceLost`."""
        size, bytes_each = self._paged.info.page_tokens, self._paged.info.page_bytes
        saved, done = self._saved.pop(request, None), cached
        if saved is None or saved.num_computed_tokens <= cached * size:
            return cached * size
        began = self.clock()
        for i, data in enumerate(saved.chunks):
            start, end = i * _CHUNK, min((i + 1) * _CHUNK, saved.pages)
            if end > done:
                try:
                    await self._paged.write_pages(pages[done:end], _behind(data, (done - start) * bytes_each))
                except DeviceLost:
                    raise
                except Exception:  # computed again
                    break
                done = end
        if done > cached:
            self.read.add(done - cached, self.clock() - began)
            self._metrics.swapped.add(done - cached, way="loaded")
        return min(saved.num_computed_tokens, done * size)

    def forget(self, request: Request) -> None:
        """It is over."""
        self._saved.pop(request, None)

    async def _read(self, request: Request) -> _Saved | None:
        """As many of its first pages as there is room for; None where that is none, or the engine has not the memory
        to copy them."""
        info = self._paged.info
        size, room = info.page_tokens, (self.bytes - self.held) // info.page_bytes
        count = min(pages_for(request.num_computed_tokens, size), room)
        if count <= 0:
            return None
        began, chunks = self.clock(), list[PageData]()
        try:
            for at in range(0, count, _CHUNK):
                chunks.append(await self._paged.read_pages(request.pages[at : min(at + _CHUNK, count)]))
        except DeviceLost:
            raise
        except Exception:
            return None
        self.write.add(count, self.clock() - began)
        return _Saved(chunks, count, min(request.num_computed_tokens, count * size))


def _behind(data: PageData, start: int) -> PageData:
    if not start:
        return data
    return data[start:] if isinstance(data, bytes) else data.slice(start)  # a copy: what crosses is the whole buffer
