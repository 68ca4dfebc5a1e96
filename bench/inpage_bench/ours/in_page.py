"""inpage in a page: the built site with one more page in it, which web/bench/bench.js drives by the public client."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from inpage.cli import paths, site
from inpage.errors import InvalidRequest

from ..driver import Embedded, Files, LoadFacts, Pages, Subject, Tab, Timeline, Usage
from ..results import Engine
from .settings import SETTINGS, SETTLING_S

_PAGE = "bench/bench.html"
_KERNELS = "kernels chosen: "


class PageDriver:
    """See `inpage_bench.driver.Driver`. ``backend`` is what the page is told to run: a backend or a variant."""

    def __init__(self, subject: Subject, backend: str, kind: str, threads: int) -> None:
        self.engine = Engine(
            name=f"inpage {backend}",
            kind="inpage",
            backend=kind,
            variant=backend,
            threads=threads,
            version=version("inpage"),
            weights=subject.record.weights_label,
            family=f"inpage {backend}",
        )
        self._subject = subject
        self._pin = backend
        self._threads = threads
        self._files: Files | None = None
        self._tab: Tab | None = None

    async def load(self, pages: Pages) -> LoadFacts:
        if self._files is None:
            own = {f"bench/{name}": paths.web() / "bench" / name for name in ("bench.html", "bench.js")}
            self._files = {**site.files([self._subject.artifact], hashes=False), **own}
        self._tab = tab = await pages.open(self._files, _PAGE)
        options = {"base": tab.url, "model": self._subject.record.id, "backend": self._pin, "threads": self._threads}
        options["settings"] = SETTINGS
        loaded = await tab.call("(options) => globalThis.bench.load(options)", options)
        info = loaded["info"]
        self.engine.backend, self.engine.variant = info["backend"], info["variant"]
        self.engine.threads = int(info["threads"])
        self.engine.name = f"inpage {info['variant']}"
        return LoadFacts(float(loaded["ready_ms"]), _phases(loaded["phases"]), tab.fetched())

    async def settle(self) -> None:
        await self._loaded().call("(seconds) => globalThis.bench.settle(seconds)", SETTLING_S)

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        asked = {"prompt": list(prompt), "maxTokens": max_new_tokens}
        return _timeline(await self._loaded().call("(request) => globalThis.bench.generate(request)", asked))

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        asked = {"prompts": [list(prompt) for prompt in prompts], "maxTokens": max_new_tokens, "clients": clients}
        found = await self._loaded().call("(requests) => globalThis.bench.serve(requests)", asked)
        return [_timeline(each) for each in found]

    async def embed(self, texts: Sequence[str], *, together: bool) -> Embedded:
        asked = {"texts": list(texts), "together": together}
        return Embedded(**await self._loaded().call("(request) => globalThis.bench.embed(request)", asked))

    async def usage(self) -> Usage:
        info = await self._loaded().call("() => globalThis.bench.info()")
        held = sum(int(info[name]) for name in ("weight_bytes", "arena_bytes", "kv_bytes"))
        on_gpu = info["backend"] == "webgpu"
        self._note_kernels(info["kernels"])
        return Usage(wasm_bytes=None if on_gpu else held, gpu_bytes=held if on_gpu else None)

    def _note_kernels(self, chosen: str) -> None:
        """Which kernels run: a time says little without them, since the device chooses."""
        others = [note for note in self.engine.notes if not note.startswith(_KERNELS)]
        self.engine.notes = [*others, _KERNELS + chosen] if chosen else others

    async def counters(self) -> dict[str, int]:
        found: dict[str, Any] = await self._loaded().call("() => globalThis.bench.counters()")
        return {name: int(count) for name, count in found.items()}

    def processes(self) -> list[int]:
        return []

    async def close(self) -> None:
        tab, self._tab = self._tab, None
        if tab is not None:
            with contextlib.suppress(Exception):  # a page that is gone already
                await tab.close()

    def _loaded(self) -> Tab:
        if self._tab is None:
            raise InvalidRequest("nothing is loaded", field="driver")
        return self._tab


def _timeline(found: dict[str, Any]) -> Timeline:
    return Timeline(
        ids=[int(token) for token in found["ids"]],
        at_ms=[float(at) for at in found["at_ms"]],
        done_ms=float(found["done_ms"]),
        begun_ms=float(found["begun_ms"]),
        refused=int(found["refused"]),
        error=found["error"],
    )


def _phases(found: dict[str, Any]) -> dict[str, float]:
    """Without "ready", which is the end."""
    return {name: float(ms) for name, ms in found.items() if name != "ready"}
