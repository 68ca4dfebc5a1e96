"""Where KV pages of preempted requests go beyond memory: one file of page-sized slots, in CPython in a folder, in the
page in the origin private file system (web/router/swap_file.js).

The file is scratch space of the process or worker that made it: nothing is read from it after a restart. Each slot's
SHA-256 stays in memory, so what the disk damaged or cut is found out when it is read, whatever it looks like.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..engines.protocol import PageData
from ..errors import StorageFull
from ..host.browser import IN_PAGE, host, settle
from ..settings import KvSettings


class SwapFile(Protocol):
    """Slots of ``size`` bytes, the same in all calls until `reset`; made when the first is written."""

    async def put(self, slots: Sequence[int], data: PageData, size: int) -> None:
        """Raises `StorageFull` where the disk is full, or the folder or the browser refuses."""

    async def get(self, slots: Sequence[int], size: int) -> PageData | None:
        """What was put there, one behind the other; None where one of them is not what was put."""
        ...

    def reset(self) -> None:
        """Forget what is in it: another engine's pages come."""

    async def close(self) -> None:
        """Remove it. Closing twice is harmless, and a closed one is made anew by `put`."""


def open_swap_file(settings: KvSettings) -> SwapFile | None:
    """What the settings ask for, on what this place has."""
    if not settings.swap_file_bytes:
        return None
    if IN_PAGE:
        return OriginFile()
    return None if settings.swap_path is None else FolderFile(Path(settings.swap_path))


class FolderFile:
    """A file without a name, which the system removes with the process that has it open, however that ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file: Any = None  # raw, for reading and writing
        self._digests: dict[int, bytes] = {}
        self._lock = asyncio.Lock()

    async def put(self, slots: Sequence[int], data: PageData, size: int) -> None:
        async with self._lock:
            try:
                await asyncio.to_thread(self._put, slots, memoryview(data), size)
            except OSError as error:
                raise StorageFull(f"{self.folder} cannot be written: {error.strerror}", field="kv.swap_path") from error

    async def get(self, slots: Sequence[int], size: int) -> PageData | None:
        async with self._lock:
            return await asyncio.to_thread(self._get, slots, size)

    def reset(self) -> None:
        self._digests.clear()

    async def close(self) -> None:
        async with self._lock:
            self.reset()
            if self.file is not None:
                self.file.close()
                self.file = None

    def _put(self, slots: Sequence[int], data: memoryview, size: int) -> None:
        if self.file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.file = tempfile.TemporaryFile(buffering=0, prefix="inpage-swap-", dir=self.folder)  # noqa: SIM115
        for i, slot in enumerate(slots):
            page = data[i * size : (i + 1) * size]
            self._digests[slot] = hashlib.sha256(page).digest()
            self.file.seek(slot * size)
            while page:
                page = page[self.file.write(page) :]  # a full disk may first show as a short write

    def _get(self, slots: Sequence[int], size: int) -> bytearray | None:
        found = bytearray(len(slots) * size)
        for i, slot in enumerate(slots):
            page = memoryview(found)[i * size : (i + 1) * size]
            try:
                self.file.seek(slot * size)
                count = self.file.readinto(page)
            except OSError:
                return None
            if count != size or hashlib.sha256(page).digest() != self._digests[slot]:
                return None
        return found


class OriginFile:
    """The bytes never pass through Python."""

    def __init__(self) -> None:
        self._file = host().newSwapFile()

    async def put(self, slots: Sequence[int], data: PageData, size: int) -> None:
        await settle(self._file.put(_numbers(slots), data, size))

    async def get(self, slots: Sequence[int], size: int) -> PageData | None:
        return await settle(self._file.get(_numbers(slots), size))

    def reset(self) -> None:
        self._file.reset()

    async def close(self) -> None:
        await settle(self._file.close())


def _numbers(slots: Sequence[int]) -> Any:
    from pyodide.ffi import to_js

    return to_js(list(slots))
