"""The second tier in CPython: one SQLite file, compressed answers, bounded in bytes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from .answer import Answer

_SCHEMA = """
create table if not exists answers (key text primary key, value blob not null, used real not null) without rowid;
create index if not exists answers_used on answers (used);
create table if not exists tags (tag text, key text, primary key (tag, key)) without rowid;
create index if not exists tags_key on tags (key);
"""


class SqliteTier:
    """``bytes``: of compressed answers; beyond that the least recently used go. Several processes may share the file.
    A file that is damaged is started anew: it holds nothing that cannot be computed again."""

    name = "storage"

    def __init__(self, path: Path, bytes: int = 16 << 20) -> None:
        self.path, self.bytes = path, bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._open()
        except sqlite3.DatabaseError:
            path.unlink()
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=5)
        try:
            db.executescript(f"pragma journal_mode=wal; pragma synchronous=normal; {_SCHEMA}")
        except sqlite3.DatabaseError:
            db.close()
            raise
        return db

    def __len__(self) -> int:
        return int(self._db.execute("select count(*) from answers").fetchone()[0])

    async def get(self, key: str) -> Answer | None:
        with self._db:
            row = self._db.execute("select value from answers where key = ?", (key,)).fetchone()
            if row is None:
                return None
            self._db.execute("update answers set used = ? where key = ?", (time.time(), key))
        answer = Answer.unpack(row[0])
        if answer is None:
            await self.remove([key])
        return answer

    async def put(self, key: str, answer: Answer) -> None:
        with self._db:
            self._delete([key])
            self._db.execute("insert into answers values (?, ?, ?)", (key, answer.pack(), time.time()))
            self._db.executemany("insert or ignore into tags values (?, ?)", [(tag, key) for tag in answer.tags])
            self._trim()

    async def remove(self, keys: Iterable[str]) -> None:
        with self._db:
            self._delete(keys)

    async def invalidate(self, tag: str | None) -> int:
        """Forget the answers with ``tag``, or all; returns how many."""
        with self._db:
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
