"""Memory of the native engine: reservations that the system backs as they are written, and mapped weights.

Mapped shards are the system's own cached file pages, read-only: engines of one artifact, in this process and in
others, share one copy, nothing is read twice, and the last to close gives the memory back. The files must stay as
they are meanwhile; the compiler replaces an artifact's folder as a whole and never writes into one.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import sys
import threading
from pathlib import Path
from typing import ClassVar

from ..errors import ArtifactInvalid, OutOfMemory
from ..format.limits import ALIGN
from ..format.plan_types import Plan
from ..format.schema import Manifest, Shard
from .protocol import Progress

_NORESERVE = 0x4000 if sys.platform == "linux" else 0  # mmap.MAP_NORESERVE before Python 3.13
_POPULATE = 0x8000 if sys.platform == "linux" else 0
_FIXED = 0x10  # Linux and macOS; Python has no name for it
_LOCKED_AT_ONCE = 1 << 24  # bytes: how finely a part that was refused is known


def reserve(size: int, what: str) -> mmap.mmap:
    """Private memory that costs nothing until it is written. Raises `OutOfMemory`."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
    try:
        return mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=flags)
    except (OSError, OverflowError) as e:
        raise OutOfMemory(f"{size} bytes for {what} cannot be had: {e}") from e


def prefer_huge_pages(memory: mmap.mmap) -> None:
    """Where the system has them to give: fewer entries of page tables are looked up. Nothing is said where it has
    none."""
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is not None:
        with contextlib.suppress(OSError):
            memory.madvise(advice)


def base(memory: mmap.mmap) -> int:
    """Its address."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def available_bytes() -> int:
    """What can still be had without swapping, where the system says so; else all there is."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return physical_bytes()


def physical_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def lay_out(plan: Plan) -> tuple[dict[int, int], int]:
    """Offsets of inputs, output and arena buffers in the working memory, by buffer id, and its size."""
    offsets: dict[int, int] = {}
    end = plan.arenas[0]
    for i, b in enumerate(plan.buffers):
        if b.kind == "arena":
            offsets[i] = b.offset
        elif b.kind in ("input", "output"):
            offsets[i] = -(-end // ALIGN) * ALIGN
            end = offsets[i] + b.bytes
    return offsets, end


class MappedWeights:
    """An artifact's whole weight space at consecutive addresses; made by `open`, once for all who use it."""

    _shared: ClassVar[dict[tuple[str, str], MappedWeights]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, key: tuple[str, str], memory: mmap.mmap) -> None:
        self._key, self._memory = key, memory
        self.users = 1
        self.bytes = len(memory)
        self.base = base(memory)
        self._locked = 0

    @classmethod
    def open(cls, folder: Path, manifest: Manifest, report: Progress) -> MappedWeights:
        """Map and verify, or share what another engine has mapped. Takes time: call it in a thread.
        Raises `ArtifactInvalid` naming the shard, `OutOfMemory`."""
        key = str(folder.resolve()), manifest.revision
        with cls._lock:
            known = cls._shared.get(key)
            if known is None:
                known = cls._shared[key] = cls(key, _map(folder, manifest, report))
            else:
                known.users += 1
            return known

    def lock(self) -> int:
        """Keep them in memory until they are closed, from the first on and as far as the system allows: how many bytes
        it locked. Takes time: call it in a thread."""
        with self._lock:
            while self._locked < self.bytes:
                size = min(_LOCKED_AT_ONCE, self.bytes - self._locked)
                if not lock_memory(self.base + self._locked, size):
                    break
                self._locked += size
            return self._locked

    def close(self) -> None:
        """One user less; without any the memory is given back."""
        with self._lock:
            self.users -= 1
            if self.users == 0:
                del self._shared[self._key]
                self._memory.close()


def _map(folder: Path, manifest: Manifest, report: Progress) -> mmap.mmap:
    total = manifest.weights.bytes
    memory = reserve(total, "weights")
    try:
        with memoryview(memory) as view:
            for i, shard in enumerate(manifest.weights.shards):
                with view[shard.offset : shard.offset + shard.bytes] as place:
                    _place(folder, shard, place, base(memory) + shard.offset, f"weights.shards[{i}]")
                loaded = shard.offset + shard.bytes
                report({"phase": "weights", "loaded": loaded, "total": total, "fromCache": False, "shard": i})
    except BaseException:
        memory.close()
        raise
    prefer_huge_pages(memory)
    return memory


def _place(folder: Path, shard: Shard, place: memoryview, address: int, field: str) -> None:
    """Map the shard's file over its place and verify it; one that does not begin at a page's border is read there."""
    try:
        with (folder / shard.file).open("rb") as f:
            size = os.fstat(f.fileno()).st_size
            if size != shard.bytes:
                raise ArtifactInvalid(f"{shard.file} has {size} bytes, not {shard.bytes}", field=f"{field}.bytes")
            if address % mmap.PAGESIZE == 0:
                _map_fixed(address, size, f.fileno())
            else:
                f.readinto(place)  # type: ignore[attr-defined,unused-ignore]
    except OSError as e:
        raise ArtifactInvalid(f"{shard.file} cannot be read: {e.strerror}", field=f"{field}.file") from e
    if hashlib.sha256(place).hexdigest() != shard.sha256:
        raise ArtifactInvalid(f"{shard.file} does not have the hash in the manifest", field=f"{field}.sha256")


def _map_fixed(address: int, size: int, file: int) -> None:
    """In place of what is reserved there; unmapped together with it. Raises `OSError`."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    number = ctypes.c_int
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, number, number, number, ctypes.c_long)
    flags = mmap.MAP_SHARED | _FIXED | _POPULATE
    if function(address, size, mmap.PROT_READ, flags, file, 0) != address:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def lock_memory(address: int, size: int) -> bool:
    """Whether the system keeps these bytes in memory from now on. ``address``: a page's."""
    function = ctypes.CDLL(None).mlock
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return bool(function(address, size) == 0)
