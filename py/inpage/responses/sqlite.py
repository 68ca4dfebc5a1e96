"""The second tier in CPython: one SQLite file, compressed answers, bounded in bytes."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .answer import Answer

_SCHEMA = """
create table if not exists answers (key text primary key, value blob not null, used real not null) without rowid;
create index if not exists answers_used on answers (used);
create table if not exists tags (tag text, key text, primary key (tag, key)) without rowid;
create index if not exists tags_key on tags (key);
"""
_COLUMNS = {"answers": "key, value, used", "tags": "tag, key"}
# What says nothing of the file itself.
_NOT_DAMAGED = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_MISUSE,
}  # fmt: skip


def _damaged(error: Exception) -> bool:
    """Whether it is the file's fault: a ValueError is text that is none, or a number that is none."""
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(error, sqlite3.ProgrammingError):  # closed
        return False
    return code is None or (code & 0xFF) not in _NOT_DAMAGED


class SqliteTier:
    """``bytes``: of compressed answers; beyond that the least recently used go. Several processes may share the file.
    A file that is damaged is started anew: it holds nothing that cannot be computed again."""

    name = "storage"

    def __init__(self, path: Path, bytes: int = 16 << 20) -> None:
        self.path, self.bytes = path, bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open()
        except (sqlite3.DatabaseError, ValueError) as error:
            if not _damaged(error):
                raise
            self._remove()
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=5)
        try:
            db.executescript(f"pragma journal_mode=wal; pragma synchronous=normal; {_SCHEMA}")
            for table, columns in _COLUMNS.items():  # somebody else's table may have the name
                db.execute(f"select {columns} from {table} limit 0")
        except BaseException:
            db.close()
            raise
        return db

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """A transaction. Where the file turns out to be damaged it is started anew, and the error raised."""
        try:
            with self._db:
                yield self._db
        except (sqlite3.DatabaseError, ValueError) as error:
            if _damaged(error):
                self._db.close()
                self._remove()
                self._db = self._open()
            raise

    def __len__(self) -> int:
        with self._using() as db:
            return int(db.execute("select count(*) from answers").fetchone()[0])

    async def get(self, key: str) -> Answer | None:
        with self._using() as db:
            row = db.execute("select value from answers where key = ?", (key,)).fetchone()
            if row is None:
                return None
            db.execute("update answers set used = ? where key = ?", (time.time(), key))
        answer = Answer.unpack(row[0], key) if isinstance(row[0], bytes) else None
        if answer is None:
            await self.remove([key])
        return answer

    async def put(self, key: str, answer: Answer) -> None:
        with self._using():
            self._delete([key])
            self._db.execute("insert into answers values (?, ?, ?)", (key, answer.pack(key), time.time()))
            self._db.executemany("insert or ignore into tags values (?, ?)", [(tag, key) for tag in answer.tags])
            self._trim()

    async def remove(self, keys: Iterable[str]) -> None:
        with self._using():
            self._delete(keys)

    async def invalidate(self, tag: str | None) -> int:
        """Forget the answers with ``tag``, or all; returns how many."""
        with self._using():
            if tag is None:
                rows = self._db.execute("select key from answers").fetchall()
            else:
                rows = self._db.execute("select key from tags where tag = ?", (tag,)).fetchall()
            self._delete(row[0] for row in rows)
        return len(rows)

    async def close(self) -> None:
        self._db.close()

    def _delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._db.execute("delete from answers where key = ?", (key,))
            self._db.execute("delete from tags where key = ?", (key,))

    def _trim(self) -> None:
        total = self._db.execute("select coalesce(sum(length(value)), 0) from answers").fetchone()[0]
        if total <= self.bytes:
            return
        doomed = []
        for key, size in self._db.execute("select key, length(value) from answers order by used"):
            doomed.append(key)
            total -= size
            if total <= self.bytes * 3 // 4:  # some room, so that this is rare
                break
        self._delete(doomed)
