"""Prompts that are ready before anybody asks: read while nobody waits, stored, and brought back after a reload.

Only full blocks of KV pages are kept, so the end of a prompt (up to a block) is read again with each request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import Cancelled, InpageError, Unsupported, only_faults
from ..format.schema import Manifest
from ..host.capability import Device
from ..kv import KvManager
from ..kv.saved import SavedPages, pages_digest
from ..kv.storage import PageStorage
from ..requests.request import Request
from ..scheduling.scheduler import Scheduler

Prompt: TypeAlias = str | Sequence[Mapping[str, str]] | Iterable[int]
_LOWEST = -(1 << 30)  # priority: whoever comes meanwhile goes first
_CLIENT = "inpage:prefetch"


@dataclass(slots=True)
class _Wanted:
    ids: list[int]
    read: asyncio.Future[int]


class Prefixes:
    """``encode``: the ids that a prompt begins with. ``storage``: where prefixes are exported to; None for nowhere."""

    def __init__(
        self,
        scheduler: Scheduler,
        manifest: Manifest,
        device: Device,
        encode: Callable[[Prompt], Awaitable[list[int]]],
        storage: PageStorage | None = None,
    ) -> None:
        self._scheduler, self._manifest, self._device = scheduler, manifest, device
        self.encode = encode
        self.storage = storage
        self._wanted: deque[_Wanted] = deque()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._request: Request | None = None  # that reads the first of the wanted now
        self._submitting = False
        self._task: asyncio.Task[None] | None = None
        self._ahead: asyncio.Task[dict[str, int]] | None = None

    # -- reading ahead -----------------------------------------------------------------------------------------

    async def read(self, ids: Sequence[int]) -> int:
        """Read a prompt while no request runs or waits; gives how many of its tokens are kept then. Whoever asks
        something meanwhile interrupts it after a step; it goes on from there. Raises what the engine fails with. An
        engine without KV pages keeps none."""
        if not self._scheduler.info.paged:
            return 0
        wanted = _Wanted(list(ids), asyncio.get_running_loop().create_future())
        self._wanted.append(wanted)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())
        try:
            return await wanted.read
        finally:
            if wanted in self._wanted:
                self._wanted.remove(wanted)

    def busy(self) -> None:
        """A request came."""
        if self._submitting:
            return
        self._quiet.clear()
        if self._request is not None:
            self._scheduler.cancel(self._request)

    def idle(self) -> None:
        """No request runs or waits."""
        self._quiet.set()

    def begin(self) -> None:
        """Warm up beside everything else. Where that fails, whoever asks waits a little longer."""
        self._ahead = asyncio.get_running_loop().create_task(self.warm_up())
        self._ahead.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def close(self) -> None:
        for task in (self._ahead, self._task):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        for wanted in self._wanted:
            if not wanted.read.done():
                wanted.read.set_exception(Cancelled("the model was unloaded"))

    async def _work(self) -> None:
        while self._wanted:
            await self._quiet.wait()
            if not self._wanted:
                return
            wanted = self._wanted[0]
            try:
                whole = self._kept(wanted.ids) >= self._full(wanted.ids) or await self._read(wanted.ids)
            except BaseException as error:  # the waiting caller gets it; the next prefix may succeed
                only_faults(error)
                whole = True
                if not wanted.read.done():
                    wanted.read.set_exception(error)
            if whole and wanted in self._wanted:
                self._wanted.remove(wanted)
            if whole and not wanted.read.done():
                wanted.read.set_result(self._kept(wanted.ids))

    async def _read(self, ids: list[int]) -> bool:
        """False where somebody came in between."""
        request = Request(ids, 1, client=_CLIENT, priority=_LOWEST)
        self._submitting = True
        try:
            self._scheduler.submit(request)
        finally:
            self._submitting = False
        self._request = request
        try:
            while True:
                event = await request.events.get()
                if isinstance(event, BaseException):
                    raise event
                if event.finish is not None:
                    return event.finish != "cancelled"
        finally:
            self._request = None
            self._scheduler.cancel(request)  # where this task was cancelled

    def _kept(self, ids: Sequence[int]) -> int:
        return self._scheduler.kv.prefix.peek(ids)

    def _full(self, ids: Sequence[int]) -> int:
        """Tokens of these that fill blocks."""
        return len(ids) - len(ids) % self._scheduler.kv.prefix.blocks.tokens

    # -- storage -----------------------------------------------------------------------------------------------

    async def save(self, ids: Sequence[int]) -> int:
        """Store what is kept of a prompt, reading it first where that is not all; gives how many tokens. Raises
        `Unsupported` where there is no storage, `StorageFull`, `InvalidRequest`."""
        saved = self._saved()
        if self._kept(ids) < self._full(ids):
            await self.read(ids)
        return await saved.save(self._pages(), ids)

    async def load(self, ids: Sequence[int]) -> int:
        """Bring a stored prompt back; gives how many of its tokens are kept now, 0 where nothing was stored."""
        return await self._saved().load(self._pages(), ids)

    async def warm_up(self) -> dict[str, int]:
        """Make the settings' system prompts and what is stored ready. Tokens that were "imported", "read"."""
        if not self._scheduler.info.paged:
            return {"imported": 0, "read": 0}
        texts = self._scheduler.settings.kv.system_prompts
        prompts = [await self.encode([{"role": "system", "content": text}]) for text in texts]
        imported = read = 0
        listed: list[list[int]] = []
        if self.storage is not None:
            listed = await self._saved().listed()
        for ids in [*prompts, *(ids for ids in listed if ids not in prompts)]:
            before = self._kept(ids)
            if self.storage is not None:
                imported += max(0, await self.load(ids) - before)
        for ids in prompts:
            before = self._kept(ids)
            if before < self._full(ids):
                read += max(0, await self.read(ids) - before)
                if self.storage is not None:
                    with contextlib.suppress(InpageError):  # ready they are, even where nothing can be stored
                        await self.save(ids)
        return {"imported": imported, "read": read}

    def _pages(self) -> KvManager:
        kv = self._scheduler.kv
        if isinstance(kv, KvManager):
            return kv
        raise Unsupported("the engine that runs here has no KV pages that could be stored", field="prompt")

    def _saved(self) -> SavedPages:
        """By the engine that runs now: another's pages are not its own."""
        if self.storage is None:
            raise Unsupported(
                "prefixes are not stored: set kv.storage_bytes and, in CPython, kv.storage_path",
                field="kv.storage_path",
            )
        return SavedPages(self.storage, pages_digest(self._manifest, self._scheduler.info.variant, self._device))
