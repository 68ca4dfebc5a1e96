"""The native engine behind the same router, in a process of its own, so that its memory and CPU time are its alone. The
process speaks JSON lines: native_child.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from inpage.errors import DeviceLost, InvalidRequest, from_wire

from ..driver import Embedded, LoadFacts, Pages, Subject, Timeline, Usage
from ..results import Engine

_LONGEST_LINE = 1 << 26


class NativeDriver:
    """See `inpage_bench.driver.Driver`."""

    def __init__(self, subject: Subject, backend: str, threads: int, *, trust: bool = False) -> None:
        self.engine = Engine(
            name=f"inpage {backend}",
            kind="inpage",
            backend="native",
            variant=backend,
            threads=threads,
            version=version("inpage"),
            weights=subject.record.weights_label,
            family=f"inpage {backend}",
            in_page=False,
        )
        self._subject = subject
        self._pin = backend
        self._threads, self._trust = threads, trust
        self._child: asyncio.subprocess.Process | None = None

    async def load(self, pages: Pages) -> LoadFacts:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "inpage_bench.ours.native_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=_LONGEST_LINE,
        )
        asked = {"artifact": str(self._subject.artifact), "backend": self._pin, "threads": self._threads}
        loaded = await self._ask({"op": "load", **asked, "trust": self._trust})
        self.engine.variant, self.engine.threads = loaded["info"]["variant"], int(loaded["info"]["threads"])
        self.engine.name = f"inpage {self.engine.variant}"
        return LoadFacts(float(loaded["ready_ms"]))

    async def settle(self) -> None:
        await self._ask({"op": "settle"})

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        return (await self.serve([prompt], max_new_tokens, 1))[0]

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        asked = {"prompts": [list(prompt) for prompt in prompts], "max_tokens": max_new_tokens, "clients": clients}
        return [Timeline(**each) for each in await self._ask({"op": "serve", **asked})]

    async def embed(self, texts: Sequence[str], *, together: bool) -> Embedded:
        return Embedded(**await self._ask({"op": "embed", "texts": list(texts), "together": together}))

    async def usage(self) -> Usage:
        return Usage()

    async def counters(self) -> dict[str, int]:
        return dict(await self._ask({"op": "counters"}))

    def processes(self) -> list[int]:
        return [] if self._child is None else [self._child.pid]

    async def close(self) -> None:
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        assert child.stdin is not None
        child.stdin.close()  # it ends when there is nothing more to read
        try:
            async with asyncio.timeout(5):
                await child.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _ask(self, message: dict[str, Any]) -> Any:
        child = self._child
        if child is None:
            raise InvalidRequest("nothing is loaded", field="driver")
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps(message).encode() + b"\n")
        await child.stdin.drain()
        line = await child.stdout.readline()
        if not line:
            raise DeviceLost(f"the native engine's process ended with code {await child.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise from_wire(answer["error"])
        return answer["value"]
