"""Large files over HTTP: in ranges, several at a time, resumed where an earlier run ended, trusted only when whole.

What has come lies in ``FILE.part``, and ``FILE.part.json`` says which ranges of which file those are; a range counts
when all of it is on disk. Only when size and hash are right gets it its name. Where a server knows no ranges the file
comes in one piece, from its beginning."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from inpage.errors import NetworkError, SourceInvalid, StorageFull
from inpage.format import bounded

from .http_files import Client, Gone, Piece, TryAgain, shown

Progress = Callable[[int, int], None]
RANGE = 32 << 20
AT_ONCE = 4
TRIES = 6  # in a row without a range's worth of progress
_BLOCK = 1 << 20
_RECORD_BYTES = 1 << 20
_MOST = 1 << 42


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as its server describes it: what is not known is None. ``git``: its id as a blob of git, where ``sha256``
    is not known."""

    url: str
    size: int | None = None
    sha256: str | None = None
    git: str | None = None


@dataclass(slots=True)
class Download:
    """``wait``: called with seconds before something is tried again. ``progress``: bytes there are, and of how many."""

    client: Client
    progress: Progress = lambda done, total: None
    wait: Callable[[float], None] = time.sleep
    range_bytes: int = field(default_factory=lambda: RANGE)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def fetch(self, remote: Remote, target: Path) -> Path:
        """``target`` as it is where it is there already. Raises `NetworkError`, `SourceInvalid` for what is not what it
        should be or cannot be had, `StorageFull`."""
        try:
            return self._fetch(remote, target)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"{target.parent} has no room for {target.name}", field="source") from error
            raise SourceInvalid(f"{target.name} cannot be written: {error.strerror}", field="source") from error

    def _fetch(self, remote: Remote, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        with _alone(part):
            if target.is_file() and (remote.size is None or target.stat().st_size == remote.size):
                return target
            for last in (False, True):
                try:
                    self._whole(remote, part)
                    break
                except Gone as error:  # begun anew once
                    _forget(part)
                    if last:
                        raise NetworkError(f"{error}: it changes while it is downloaded", field="source") from None
            _check(remote, part, target.name)
            part.replace(target)
            _forget(part)
        return target

    def _whole(self, remote: Remote, part: Path) -> None:
        if remote.size == 0:
            part.write_bytes(b"")
            return
        first = self._again(lambda: self.client.get(remote.url, (0, 1)), remote.url)
        first.close()
        size = first.total
        if size is None and not first.ranged:
            size = remote.size
        if size is not None and (size > _MOST or (remote.size is not None and size != remote.size)):
            raise Gone(f"{shown(remote.url)} has {size} bytes, not {remote.size}")
        kept = part.stat().st_blocks * 512 if part.exists() else 0  # it has holes
        if size is not None and size - kept > shutil.disk_usage(part.parent).free:
            raise StorageFull(f"{part.parent} has no room for the {size} bytes of {part.name}", field="source")
        if not first.ranged or size is None:
            self._in_one_piece(remote.url, part, size)
            return
        state = _State.read(part, remote, size, first.etag, self.range_bytes)
        missing = [i for i in range(-(-size // self.range_bytes)) if i not in state.done]
        self._stop.clear()
        failed: list[BaseException] = []
        done = [size - sum(state.length(i) for i in missing)]
        self.progress(done[0], size)

        def came(count: int) -> None:
            with self._lock:
                done[0] += count
                self.progress(done[0], size)

        with part.open("r+b" if part.exists() else "w+b") as file, ThreadPoolExecutor(AT_ONCE) as pool:
            file.truncate(size)

            def one(index: int) -> None:
                try:
                    self._range(remote.url, file.fileno(), state, index, came)
                    with self._lock:
                        os.fsync(file.fileno())
                        state.add(index)
                except BaseException as error:
                    with self._lock:
                        failed.append(error)
                    self._stop.set()  # the others need not go on

            try:
                list(pool.map(one, missing))
            except BaseException:  # such as Ctrl-C: the pool waits for what is under way
                self._stop.set()
                raise
        if failed:
            raise failed[0]

    def _range(self, url: str, file: int, state: _State, index: int, came: Callable[[int], None]) -> None:
        at, end = state.span(index)

        def some() -> None:
            nonlocal at
            self._check_stop()
            piece = self.client.get(url, (at, end))
            try:
                if not piece.ranged or (piece.start, piece.total, piece.etag) != (at, state.size, state.etag):
                    raise Gone(shown(url))
                while at < end:
                    self._check_stop()
                    block = piece.read(min(_BLOCK, end - at))
                    if not block:
                        raise TryAgain("the line was cut")
                    at += _written(file, block, at)
                    came(len(block))
            finally:
                piece.close()

        self._again(some, url, lambda: at)

    def _in_one_piece(self, url: str, part: Path, size: int | None) -> None:
        def all_of_it() -> None:
            piece = self.client.get(url)
            try:
                with part.open("wb") as file:
                    at = 0
                    while block := piece.read(_BLOCK):
                        at += file.write(block)
                        if at > (_MOST if size is None else size):
                            raise Gone(shown(url))
                        self.progress(at, size or at)
                if piece.total is not None and at < piece.total:
                    raise TryAgain("the line was cut")
            finally:
                piece.close()

        self._again(all_of_it, url)

    def _again(self, work: Callable[[], Piece | None], url: str, place: Callable[[], int] = lambda: 0) -> Piece:
        """Until it comes through: tries are counted anew when a good part of a range came."""
        failed, since = 0, place()
        while True:
            try:
                return work()  # type: ignore[return-value]  # of pieces, where the caller takes one
            except TryAgain as error:
                if place() - since >= _BLOCK:
                    failed, since = 0, place()
                failed += 1
                if failed >= TRIES:
                    raise NetworkError(f"{shown(url)}: {error} ({failed} tries)", field="source") from None
                self._check_stop()
                self.wait(error.after if error.after is not None else min(0.5 * 2**failed, 30.0))

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise NetworkError("another range of the file failed", field="source")


def _written(file: int, block: bytes, at: int) -> int:
    left = memoryview(block)
    while left:
        left = left[(count := os.pwrite(file, left, at)) :]
        at += count
    return len(block)


@dataclass(slots=True)
class _State:
    """Which ranges are on disk."""

    record: Path
    url: str
    size: int
    etag: str | None
    step: int
    done: set[int]

    @classmethod
    def read(cls, part: Path, remote: Remote, size: int, etag: str | None, step: int) -> _State:
        """What an earlier run left, where it is of the very same file; else nothing."""
        state = cls(_record(part), shown(remote.url), size, etag, step, set())
        try:
            found = bounded.read(state.record.read_bytes(), _RECORD_BYTES)
            whole = part.stat().st_size == size
        except (OSError, ValueError):
            found, whole = None, False
        done = found.get("done") if isinstance(found, dict) else None
        if whole and etag is not None and isinstance(done, list) and found == state.json(done):
            state.done = {i for i in done if type(i) is int and 0 <= i < -(-size // step)}
        else:
            _forget(part)
        return state

    def json(self, done: list[int]) -> dict[str, object]:
        return {"url": self.url, "size": self.size, "etag": self.etag, "range": self.step, "done": done}

    def span(self, index: int) -> tuple[int, int]:
        return index * self.step, min((index + 1) * self.step, self.size)

    def length(self, index: int) -> int:
        start, end = self.span(index)
        return end - start

    def add(self, index: int) -> None:
        self.done.add(index)
        written = self.record.with_name(f"{self.record.name}.new")
        written.write_text(json.dumps(self.json(sorted(self.done))))
        written.replace(self.record)


def _record(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _check(remote: Remote, part: Path, name: str) -> None:
    size = part.stat().st_size
    with part.open("rb") as file:
        if remote.sha256 is not None:
            found, wanted = hashlib.file_digest(file, "sha256").hexdigest(), remote.sha256.lower()
        elif remote.git is not None:
            blob = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
            while block := file.read(_BLOCK):
                blob.update(block)
            found, wanted = blob.hexdigest(), remote.git.lower()
        else:
            found = wanted = ""
    if found != wanted or (remote.size is not None and size != remote.size):
        _forget(part)
        what = f"hash {found}, expected {wanted}" if found != wanted else f"{size} bytes, expected {remote.size}"
        raise SourceInvalid(f"{name} came damaged: it has {what}; fetch it again", field="sha256")


@contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Two processes that want the same file: the second waits for what the first one makes."""
    lock = part.with_name(f".{part.name}.lock")
    with lock.open("w") as file:
        with suppress(ImportError):  # where there is no such lock both download, and the last one counts
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield
