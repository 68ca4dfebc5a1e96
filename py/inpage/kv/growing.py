"""The page pool of one engine, which grows as pages are wanted and settles for what the device has."""

from __future__ import annotations

from ..engines.protocol import Engine
from ..errors import OutOfMemory
from .pages import PagePool

_GROWTH = 32  # pages reserved at a time, so that growing is rare


class GrowingPool(PagePool):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.info.max_pages)
        self._engine = engine

    async def obtain(self, count: int) -> list[int] | None:
        """Pages from the free list, growing the engine's pool where it is too short and can grow; else None."""
        missing = count - self.free
        room = self.limit - self.reserved
        if 0 < missing <= room:
            extra = min(max(missing, _GROWTH), room)
            while extra and self.free < count:
                try:
                    await self._engine.reserve_pages(self.reserved + extra)
                except OutOfMemory:
                    extra = missing if extra > missing else extra // 2
                else:
                    self.grow_to(self.reserved + extra)
            if self.free < count:
                self.limit = self.reserved  # the device is full: live with what there is
        return self.take(count)
