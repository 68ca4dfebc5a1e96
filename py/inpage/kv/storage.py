"""Where the bytes of KV pages are kept outside of an engine: a folder in CPython, IndexedDB in the page.

Bounded in bytes, least recently used first out. Whatever is read is what was written under that key, whole, or is as
good as absent: each value lies there with the SHA-256 of itself and its key.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ..engines.protocol import PageData
from ..errors import StorageFull
from ..host.browser import IN_PAGE, host, settle
from ..settings import KvSettings

_DIGEST = 32  # bytes


class PageStorage(Protocol):
    """Values of ``size`` bytes each, handed over one behind the other. Keys are names of files."""

    bytes: int

    async def put(self, keys: Sequence[str], data: PageData, size: int) -> None:
        """Raises `StorageFull` where the disk is full or the browser refuses."""

    async def get(self, keys: Sequence[str], size: int) -> tuple[int, PageData]:
        """How many of the first keys are there, without a gap, and their values."""
        ...

    async def names(self, start: str) -> list[str]:
        """The keys that begin so, the most recently used first."""
        ...


def open_storage(settings: KvSettings) -> PageStorage | None:
    """What the settings ask for, on what this place has."""
    if not settings.storage_bytes:
        return None
    if IN_PAGE:
        return BrowserPages(settings.storage_bytes)
    return None if settings.storage_path is None else FolderPages(Path(settings.storage_path), settings.storage_bytes)


class FolderPages:
    """A file a key, written beside and renamed. Several processes may share the folder. ``bytes``: of all values."""

    def __init__(self, folder: Path, bytes: int) -> None:
        self.folder, self.bytes = folder, bytes

    async def put(self, keys: Sequence[str], data: PageData, size: int) -> None:
        try:
            await asyncio.to_thread(self._put, keys, memoryview(data), size)
        except OSError as error:
            raise StorageFull(f"{self.folder} cannot be written: {error.strerror}", field="kv.storage_path") from error

    async def get(self, keys: Sequence[str], size: int) -> tuple[int, PageData]:
        return await asyncio.to_thread(self._get, keys, size)

    async def names(self, start: str) -> list[str]:
        return [path.name for _, _, path in reversed(self._files()) if path.name.startswith(start)]

    def _put(self, keys: Sequence[str], data: memoryview, size: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, key in enumerate(keys):
            value = data[i * size : (i + 1) * size]
            part = self.folder / f".{os.getpid()}.{key}"
            with part.open("wb") as file:
                file.write(_digest(key, value))
                file.write(value)
            part.replace(self.folder / key)
        total, files = 0, self._files()
        for _, length, path in reversed(files):
            total += length
            if total > self.bytes:
                path.unlink(missing_ok=True)

    def _get(self, keys: Sequence[str], size: int) -> tuple[int, PageData]:
        found = []
        for key in keys:
            path = self.folder / key
            try:
                with path.open("rb") as file:
                    content = file.read(_DIGEST + size + 1)  # one more tells that it is another value
            except OSError:
                break
            value = memoryview(content)[_DIGEST:]
            if len(value) != size or _digest(key, value) != content[:_DIGEST]:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                break
            with contextlib.suppress(OSError):
                os.utime(path)
            found.append(value)
        return len(found), b"".join(found)

    def _files(self) -> list[tuple[int, int, Path]]:
        """(last use, bytes, path), the least recently used first."""
        files = []
        with contextlib.suppress(OSError):
            for entry in os.scandir(self.folder):
                with contextlib.suppress(OSError):
                    stat = entry.stat()
                    if entry.is_file() and not entry.name.startswith("."):
                        files.append((stat.st_mtime_ns, stat.st_size - _DIGEST, Path(entry.path)))
        return sorted(files)


def _digest(key: str, value: memoryview) -> bytes:
    digest = hashlib.sha256(value)
    digest.update(key.encode())
    return digest.digest()


class BrowserPages:
    """IndexedDB, through web/router/pages.js. The bytes never pass through Python."""

    def __init__(self, bytes: int) -> None:
        self.bytes = bytes

    async def put(self, keys: Sequence[str], data: PageData, size: int) -> None:
        await settle(host().pagesPut(_list(keys), _words(data), size, self.bytes))

    async def get(self, keys: Sequence[str], size: int) -> tuple[int, PageData]:
        found = await settle(host().pagesGet(_list(keys), size))
        return int(found.count), found.data

    async def names(self, start: str) -> list[str]:
        return [str(name) for name in (await settle(host().pagesNames(start))).to_py()]


def _list(keys: Sequence[str]) -> Any:
    from pyodide.ffi import to_js

    return to_js(list(keys))


def _words(data: PageData) -> Any:
    """What an engine gave is JavaScript's already; what Python made becomes a Uint8Array."""
    from pyodide.ffi import to_js

    return to_js(data) if isinstance(data, bytes) else data
