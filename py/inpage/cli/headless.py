"""The router in a headless browser: what a visitor of the built site runs, driven from the terminal.

A site is put together in memory and served on loopback; Playwright opens a page of it in the Chromium on this machine,
which starts the same client that the chat page uses.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ..engines.registry import wants_gpu
from ..errors import DeviceLost, Unsupported, from_wire
from . import paths, site
from .progress import Progress
from .static import StaticServer

# A machine without a GPU gets a software adapter, as it would not otherwise.
_WEBGPU = "--enable-unsafe-webgpu"
_FLAGS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
_PAGE = b'<!doctype html><html lang="en"><meta charset="utf-8"><title>inpage</title>\n'

# Every call answers with {value} or {error}: an exception that crosses Playwright would lose its code.
_PRELUDE = """
window.guarded = async (work) => {
  try { return { value: await work() }; }
  catch (error) {
    const { code = "error", message = String(error), field = null } = error ?? {};
    return { error: { code, message, field } };
  }
};
"""
_START = """
(options) => guarded(async () => {
  const { InPage } = await import(new URL("client/inpage.js", document.baseURI).href);
  window.inpage = await InPage.start({ ...options, onProgress: (event) => void tell({ progress: event }) });
  return window.inpage.info;
})
"""
_ASK = """
({ kind, prompt, params }) => guarded(async () => {
  for await (const piece of window.inpage[kind](prompt, params)) {
    if (piece.text) void tell({ text: piece.text });
    if (piece.completion) return piece.completion;
  }
})
"""
_START_TRACE = "() => guarded(() => window.inpage.startTrace())"
_STOP_TRACE = "() => guarded(() => window.inpage.stopTrace())"
_SCORE = """
({ ids, window }) => guarded(async () => {
  const { backend, variant, why, threads } = globalThis.inpage.info;
  return { backend, variant, why, threads, ...(await globalThis.inpage.score(ids, window ?? undefined)) };
})
"""


_TUNE = """
() => guarded(async () => {
  const candidates = await window.inpage.measure();
  const { variant, kernels, kernels_settled } = await window.inpage.refresh();
  return { variant, kernels, kernels_settled, candidates, explained: await window.inpage.explain() };
})
"""


def flags(*, webgpu: bool) -> list[str]:
    """What a headless Chromium is started with, here and by the bench. Its sandbox does not start for root."""
    root = hasattr(os, "getuid") and os.getuid() == 0
    return [*_FLAGS, *([_WEBGPU] if webgpu else []), *(["--no-sandbox"] if root else [])]


_REPORT = """
() => guarded(async () => {
  const { InPage } = await import(new URL("client/inpage.js", document.baseURI).href);
  if (window.inpage) await window.inpage.measure();
  return await (window.inpage ?? InPage).report();
})
"""


@asynccontextmanager
async def open_page(
    artifact: Path, backend: str | None, threads: int | None, progress: Progress, level: str = ""
) -> AsyncIterator[_Page]:
    """A loaded model in a page; ``level``: "#" and which of its precisions. Raises `Unsupported` where Playwright or
    Chromium is missing."""
    try:
        from playwright.async_api import Error as PlaywrightError
        from playwright.async_api import async_playwright
    except ImportError:
        raise Unsupported("driving a browser needs playwright: pip install 'inpage[cli]'") from None
    program = paths.chromium()
    files = site.files([artifact], hashes=False)
    model = next(name.split("/")[1] for name in files if name.startswith("models/"))
    webgpu = backend is None or wants_gpu(backend)
    with StaticServer({**files, "terminal.html": _PAGE}) as server:
        server.start()
        try:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=program, args=flags(webgpu=webgpu))
                try:
                    page = _Page(await browser.new_page(), progress)
                    await page.start(server.url, model + level, backend, threads)
                    yield page
                finally:
                    progress.end()
                    await browser.close()
        except PlaywrightError as error:
            raise DeviceLost(f"the browser failed: {str(error).partition(chr(10))[0]}") from error
        finally:
            server.shutdown()


class _Page:
    def __init__(self, page: Any, progress: Progress) -> None:
        self._page = page
        self._progress = progress
        self._write: Callable[[str], None] = _nowhere
        self._gone = asyncio.get_running_loop().create_future()

    async def start(self, url: str, model: str, backend: str | None, threads: int | None) -> None:
        page = self._page
        page.on("crash", self._crashed)
        await page.expose_function("tell", self._told)
        await page.add_init_script(_PRELUDE)
        await page.goto(url + "terminal.html")
        pinned = {"backend": backend, "threads": threads}
        given = {name: value for name, value in pinned.items() if value is not None}  # JavaScript's null is no default
        await self._call(_START, {"base": url, "model": model, **given})
        self._progress.end()

    async def ask(self, kind: str, prompt: Any, params: dict[str, Any], write: Callable[[str], None]) -> dict[str, Any]:
        self._write = write
        answer: dict[str, Any] = await self._call(_ASK, {"kind": kind, "prompt": prompt, "params": params})
        return answer

    async def score(self, ids: str | list[int], window: int | None) -> dict[str, Any]:
        score: dict[str, Any] = await self._call(_SCORE, {"ids": ids, "window": window})
        return score

    async def tune(self) -> dict[str, Any]:
        told: dict[str, Any] = await self._call(_TUNE, {})
        return told

    async def start_trace(self) -> None:
        await self._call(_START_TRACE, {})

    async def stop_trace(self) -> str:
        return str(await self._call(_STOP_TRACE, {}))

    async def report(self) -> str:
        """The text that a visitor would copy, every variant measured."""
        return str(await self._call(_REPORT, {}))

    async def _call(self, script: str, argument: dict[str, Any]) -> Any:
        """Run a script of the page; its error, or the end of the page itself, is raised here."""
        running = asyncio.ensure_future(self._page.evaluate(script, argument))
        await asyncio.wait({running, self._gone}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
            raise DeviceLost("the browser's page crashed, most likely out of memory")
        result = running.result()
        if "error" in result:
            raise from_wire(result["error"])
        return result.get("value")

    def _crashed(self, _: object) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def _told(self, message: dict[str, Any]) -> None:
        if "progress" in message:
            self._progress(message["progress"])
        else:
            self._write(message["text"])


def _nowhere(_: str) -> None:
    """Nothing was asked yet."""
