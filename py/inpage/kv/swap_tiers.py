"""Where swapped pages lie: in memory, or in slots of a file. Each tier measures for itself what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..engines.protocol import PageData
from .swap_file import SwapFile

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


class Tier(ABC):
    """``bytes``: what its pages of ``page_bytes`` may hold. ``write`` and ``read``: of a page from the engine to here
    and back."""

    name: str

    def __init__(self, bytes: int, page_bytes: int) -> None:
        self.bytes, self.page_bytes = bytes, page_bytes
        self.write, self.read = Rate(), Rate()
        self._pages = 0
        self._refused = 0

    @property
    def held(self) -> int:
        """Bytes of the pages in it."""
        return self._pages * self.page_bytes

    @property
    def room(self) -> int:
        """Pages that it still takes."""
        return (self.bytes - self.held) // self.page_bytes

    def full(self) -> None:
        """It takes less than was thought: live with what there is."""
        self.bytes = self.held

    def pays(self, pages: int, tokens: int, prefill: Rate) -> bool:
        """Whether so many pages go there and back in less time than computing the tokens that they are for takes. What
        was never measured is tried: until a page was brought back, that is taken to cost what saving it did."""
        write, read, token = self.write.value, self.read.value, prefill.value
        if write is None or token is None:
            return True
        if pages * (write + (write if read is None else read)) < tokens * token:
            return True
        self._refused = (self._refused + 1) % _AGAIN
        return self._refused == 0

    async def put(self, data: PageData, pages: int) -> Any:
        """Gives by what `get` and `free` know them. The caller has looked at `room`."""
        self._pages += pages
        try:
            return await self._put(data, pages)
        except BaseException:
            self._pages -= pages
            raise

    @abstractmethod
    async def get(self, chunk: Any, start: int) -> PageData | None:
        """The pages from the ``start``-th on; None where they are not what was put."""

    def free(self, chunk: Any, pages: int) -> None:
        self._pages -= pages

    @abstractmethod
    async def _put(self, data: PageData, pages: int) -> Any: ...


class MemoryTier(Tier):
    name = "memory"

    async def _put(self, data: PageData, pages: int) -> PageData:
        return data

    async def get(self, chunk: PageData, start: int) -> PageData:
        if not start:
            return chunk
        at = start * self.page_bytes
        return chunk[at:] if isinstance(chunk, bytes) else chunk.slice(at)  # a copy: what crosses is the whole buffer


class FileTier(Tier):
    name = "file"

    def __init__(self, file: SwapFile, bytes: int, page_bytes: int) -> None:
        super().__init__(bytes, page_bytes)
        self._file = file
        self._free: list[int] = []
        self._slots = 0  # that the file has
        file.reset()

    async def _put(self, data: PageData, pages: int) -> list[int]:
        slots = [self._free.pop() for _ in range(min(pages, len(self._free)))]
        fresh = range(self._slots, self._slots + pages - len(slots))
        self._slots += len(fresh)
        slots += fresh
        try:
            await self._file.put(slots, data, self.page_bytes)
        except BaseException:
            self._free += slots
            raise
        return slots

    async def get(self, chunk: list[int], start: int) -> PageData | None:
        return await self._file.get(chunk[start:], self.page_bytes)

    def free(self, chunk: list[int], pages: int) -> None:
        super().free(chunk, pages)
        self._free += chunk
