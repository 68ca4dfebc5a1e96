"""The second tier in the page: IndexedDB, through web/router/answers.js; compressed answers, bounded in bytes."""

from __future__ import annotations

from collections.abc import Iterable

from ..host.browser import host, settle
from .answer import Answer


class IndexedDbTier:
    """``bytes``: of compressed answers; beyond that the least recently used go."""

    name = "storage"

    def __init__(self, bytes: int = 16 << 20) -> None:
        self.bytes = bytes

    async def get(self, key: str) -> Answer | None:
        stored = await settle(host().answerGet(key))
        if stored is None:
            return None
        answer = Answer.unpack(stored.to_bytes(), key)
        if answer is None:
            await self.remove([key])
        return answer

    async def put(self, key: str, answer: Answer) -> None:
        from pyodide.ffi import to_js

        await settle(host().answerPut(key, to_js(answer.pack(key)), to_js(list(answer.tags)), self.bytes))

    async def remove(self, keys: Iterable[str]) -> None:
        from pyodide.ffi import to_js

        await settle(host().answerRemove(to_js(list(keys))))

    async def invalidate(self, tag: str | None) -> int:
        """Forget the answers with ``tag``, or all; returns how many."""
        return int(await settle(host().answerInvalidate(tag)))

    async def close(self) -> None:
        pass
