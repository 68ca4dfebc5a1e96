"""An engine, real or the strict double, that dies when it is told to. What it wraps answers until then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from inpage.engines.protocol import (
    EngineInfo,
    Grammar,
    OnTokens,
    PageData,
    PagedEngine,
    RunOutput,
    SequenceInput,
    StepOutput,
)
from inpage.errors import DeviceLost, InpageError

T = TypeVar("T")
# kind ("step", "run", "reserve", "read", "write"), feeds → what it dies of, or None
Fate = Callable[[str, Sequence[SequenceInput]], InpageError | None]


class Mortal:
    """``late``: it dies after the call was computed, as a worker does whose answer never arrives."""

    def __init__(self, engine: PagedEngine, fate: Fate, *, variant: str | None = None, late: bool = False) -> None:
        self._engine = engine
        self._fate = fate
        self._late = late
        self._dead: InpageError | None = None
        self.variant = variant
        self.unloaded = False

    @property
    def info(self) -> EngineInfo:
        info = self._engine.info
        if self.variant is None:
            return info
        values: dict[str, Any] = {name: getattr(info, name) for name in EngineInfo.__dataclass_fields__}
        return EngineInfo(**values | {"variant": self.variant, "backend": self.variant.partition("-")[0]})

    async def reserve_pages(self, pages: int) -> None:
        await self._call("reserve", [], lambda: self._engine.reserve_pages(pages))

    async def read_pages(self, pages: Sequence[int]) -> PageData:
        return await self._call("read", [], lambda: self._engine.read_pages(pages))

    async def write_pages(self, pages: Sequence[int], data: PageData) -> None:
        await self._call("write", [], lambda: self._engine.write_pages(pages, data))

    async def prepare(self, grammar: Grammar) -> None:
        await self._call("prepare", [], lambda: self._engine.prepare(grammar))

    async def step(self, feeds: Sequence[SequenceInput]) -> list[StepOutput]:
        return await self._call("step", feeds, lambda: self._engine.step(feeds))

    async def run(
        self, feeds: Sequence[SequenceInput], max_steps: int, on_tokens: OnTokens | None = None
    ) -> list[RunOutput]:
        return await self._call("run", feeds, lambda: self._engine.run(feeds, max_steps, on_tokens))

    async def interrupt(self) -> None:
        await self._engine.interrupt()

    @property
    def busy_s(self) -> float:
        return self._engine.busy_s

    async def unload(self) -> None:
        self.unloaded = True
        await self._engine.unload()

    async def _call(self, kind: str, feeds: Sequence[SequenceInput], work: Callable[[], Awaitable[T]]) -> T:
        if self._dead is None:
            self._dead = self._fate(kind, feeds)
            if self._dead is None:
                return await work()
            if self._late:
                await work()
            raise self._dead
        raise DeviceLost(f"dead already: {self._dead}")
