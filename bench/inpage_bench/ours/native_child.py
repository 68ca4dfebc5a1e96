"""The process of the native engine under test. Each line of the input is a JSON message, each line of the output its
answer, ``{"value": …}`` or ``{"error": {"code", "message", "field"}}``; it ends with its input.

    {"op": "load", "artifact": FOLDER, "backend": NAME, "threads": N, "trust": false}
                                                                          {"ready_ms", "info"}
    {"op": "settle"}                                                      null, when its kernels are chosen
    {"op": "serve", "prompts": [[id…]…], "max_tokens": N, "clients": N}   a Timeline each
    {"op": "embed", "texts": [TEXT…], "together": true}                   an Embedded
    {"op": "counters"}                                                    {name: count}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import asdict
from typing import Any

from inpage.errors import InpageError, QueueFull, Unsupported
from inpage.router import Router

from ..driver import Embedded, Timeline
from .settings import SETTINGS, SETTLING_S


class Child:
    def __init__(self) -> None:
        self._router: Router | None = None
        self._turn = asyncio.Event()  # set, and replaced, whenever an answer ends

    async def answer(self, message: dict[str, Any]) -> Any:
        if message["op"] == "load":
            begun = time.perf_counter()
            self._router = await Router.load(
                message["artifact"],
                backend=message["backend"],
                threads=message["threads"],
                settings=SETTINGS,
                trust=message["trust"],
            )
            return {"ready_ms": (time.perf_counter() - begun) * 1e3, "info": self._router.info}
        if self._router is None:
            raise Unsupported("no model is loaded")
        if message["op"] == "counters":
            return await self._router.counters()
        if message["op"] == "settle":
            return await self._settle(self._router)
        if message["op"] == "embed":
            return await self._embed(self._router, message["texts"], together=message["together"])
        return await self._serve(self._router, message["prompts"], message["max_tokens"], message["clients"])

    async def _settle(self, router: Router) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLING_S):
                while not router.info["kernels_settled"]:
                    await asyncio.sleep(0.25)

    async def _embed(self, router: Router, texts: list[str], *, together: bool) -> Any:
        zero = time.perf_counter()
        found, vector = Embedded([], []), None
        for call in [texts] if together else [[text] for text in texts]:
            made = await router.embed(call, truncate=True, cache=False)
            found.at_ms.append((time.perf_counter() - zero) * 1e3)
            vector = vector or list(made.vectors[0])
        found.vector = vector or []
        return asdict(found)

    async def _serve(self, router: Router, prompts: list[list[int]], max_tokens: int, clients: int) -> list[Any]:
        zero = time.perf_counter()
        timelines: list[Timeline | None] = [None] * len(prompts)
        places = iter(range(len(prompts)))

        async def client() -> None:
            for place in places:
                timelines[place] = await self._ask(router, prompts[place], max_tokens, zero)
                self._turn.set()
                self._turn = asyncio.Event()

        await asyncio.gather(*(client() for _ in range(min(clients, len(prompts)))))
        return [asdict(timeline) for timeline in timelines if timeline is not None]

    async def _ask(self, router: Router, prompt: list[int], max_tokens: int, zero: float) -> Timeline:
        def now() -> float:
            return (time.perf_counter() - zero) * 1e3

        timeline = Timeline([], [], 0.0, begun_ms=now())
        while True:
            try:
                async for delta in router.complete(prompt, max_tokens=max_tokens, temperature=0):
                    timeline.ids += delta.token_ids
                    timeline.at_ms += [now()] * len(delta.token_ids)
            except QueueFull:
                timeline.refused += 1
                await self._turn.wait()
                continue
            except InpageError as error:
                timeline.error = f"{error.code}: {error}"
            timeline.done_ms = now()
            return timeline


async def main() -> None:
    child, loop = Child(), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            said: dict[str, Any] = {"value": await child.answer(json.loads(line))}
        except Exception as error:
            known = error if isinstance(error, InpageError) else InpageError(f"{type(error).__name__}: {error}")
            said = {"error": known.to_wire()}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
