"""JavaScript heaps of a page and its workers, by the browser's debugging protocol.

Playwright shows the page's session only; workers, and workers of workers, are reached by messages that are passed on
inside messages. A worker that is busy or waits in WebAssembly (a compute thread) does not answer: it has no objects
worth counting."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from typing import Any

_PATIENCE_S = 0.5


async def heap_bytes(context: Any, page: Any) -> int | None:
    """Used heap, all together; None where the browser does not tell."""
    try:
        session = await context.new_cdp_session(page)
    except Exception:
        return None
    try:
        return await _Heaps(session).sum()
    except Exception:
        return None
    finally:
        with contextlib.suppress(Exception):
            await session.detach()


class _Heaps:
    def __init__(self, session: Any) -> None:
        self._session = session
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._workers: list[tuple[str, ...]] = []  # paths of session ids, outermost first

    async def sum(self) -> int:
        session = self._session
        session.on("Target.attachedToTarget", lambda event: self._attached((), event))
        session.on("Target.receivedMessageFromTarget", lambda event: self._received((), event))
        attach = {"autoAttach": True, "waitForDebuggerOnStart": False, "flatten": False}
        await session.send("Target.setAutoAttach", attach)
        used = int((await session.send("Runtime.getHeapUsage"))["usedSize"])
        seen = 0
        while seen < len(self._workers):  # each may bring workers of its own
            new, seen = self._workers[seen:], len(self._workers)
            heaps = await asyncio.gather(*(self._ask(path, "Runtime.getHeapUsage") for path in new))
            alive = [path for path, heap in zip(new, heaps, strict=True) if heap is not None]
            used += sum(int(heap["usedSize"]) for heap in heaps if heap is not None)
            await asyncio.gather(*(self._ask(path, "Target.setAutoAttach", attach) for path in alive))
        await session.send("Target.setAutoAttach", {**attach, "autoAttach": False})
        return used

    async def _ask(self, path: tuple[str, ...], method: str, params: Any = None) -> dict[str, Any] | None:
        """Send to a worker; None where it does not answer in time."""
        number = next(self._ids)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params or {}}
        for session in reversed(path[1:]):
            wrapped = {"sessionId": session, "message": json.dumps(message)}
            message = {"id": next(self._ids), "method": "Target.sendMessageToTarget", "params": wrapped}
        await self._session.send("Target.sendMessageToTarget", {"sessionId": path[0], "message": json.dumps(message)})
        try:
            async with asyncio.timeout(_PATIENCE_S):
                got: dict[str, Any] = await answer
                return got
        except TimeoutError:
            return None

    def _attached(self, path: tuple[str, ...], event: dict[str, Any]) -> None:
        if event["targetInfo"]["type"] == "worker":
            self._workers.append((*path, event["sessionId"]))

    def _received(self, path: tuple[str, ...], event: dict[str, Any]) -> None:
        path = (*path, event["sessionId"])
        message = json.loads(event["message"])
        if message.get("method") == "Target.attachedToTarget":
            self._attached(path, message["params"])
        elif message.get("method") == "Target.receivedMessageFromTarget":
            self._received(path, message["params"])
        elif (answer := self._answers.get(message.get("id"))) is not None and not answer.done():
            answer.set_result(message.get("result", {}))
