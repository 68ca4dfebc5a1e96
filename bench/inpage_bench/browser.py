"""The browser of a visit: a Chromium of its own with a fresh profile on disk, as a new visitor has it, or a context of
a browser elsewhere (`--connect`). Pages are served from here, and what is sent to them is counted."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inpage.cli import headless as terminal
from inpage.cli import paths
from inpage.cli.csp import no_policy
from inpage.cli.static import StaticServer
from inpage.errors import DeviceLost, Unsupported, from_wire

from .driver import Files, Tab
from .heap import heap_bytes

# An exception that crosses Playwright would lose its code: every call answers with {value} or {error}.
_GUARDED = """
async (argument) => {
  try { return { value: await (SCRIPT)(argument) }; }
  catch (error) {
    const { code = "error", message = String(error), field = null } = error ?? {};
    return { error: { code, message: String(message), field } };
  }
}
"""
_ADAPTER = """
async () => {
  const adapter = await globalThis.navigator.gpu?.requestAdapter();
  if (!adapter) return null;
  const { vendor, architecture, description } = adapter.info;
  const software = Boolean(adapter.info.isFallbackAdapter) || /swiftshader|llvmpipe|lavapipe|software/i.test(
    `${vendor} ${architecture} ${description}`);
  return { vendor, architecture, description, software };
}
"""
_TAB_S = 1.5  # a new tab's own start: a process, a page that it shows first


@dataclass(frozen=True, slots=True)
class Where:
    """Which browser: ``program`` on this machine (None: the usual ones), or ``connect``, the WebSocket of a Playwright
    server elsewhere."""

    program: str | None = None
    connect: str | None = None


@dataclass(slots=True)
class Seen:
    """What the browser said of itself."""

    version: str = ""
    flags: list[str] = field(default_factory=list)
    adapter: dict[str, Any] | None = None
    isolated: bool = True


class Browsers:
    """Starts a browser for each visit. Use it as an async context manager."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self._playwright: Any = None
        self._manager: Any = None

    async def __aenter__(self) -> Browsers:
        try:
            from playwright.async_api import async_playwright
        except ImportError:
            raise Unsupported("driving a browser needs playwright: pip install 'inpage[cli]'") from None
        self._manager = async_playwright()
        self._playwright = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._manager.__aexit__(*error)

    def flags(self, *, webgpu: bool) -> list[str]:
        return terminal.flags(webgpu=webgpu)

    @asynccontextmanager
    async def visit(self, *, webgpu: bool = False) -> AsyncIterator[Visit]:
        """A browser with a fresh profile. ``webgpu``: also on a software adapter, which Chromium hides by default."""
        from playwright.async_api import Error as PlaywrightError

        flags = self.flags(webgpu=webgpu)
        profile = Path(tempfile.mkdtemp(prefix="inpage-bench-"))
        chromium = self._playwright.chromium
        browser: Any = None
        try:
            if self.where.connect:
                browser = await chromium.connect(self.where.connect, expose_network="<loopback>")
                context, flags = await browser.new_context(), []
            else:
                program = self.where.program or paths.chromium()
                context = await chromium.launch_persistent_context(
                    str(profile), executable_path=program, args=flags, headless=True
                )
            with _CountingServer({}, policy=no_policy) as server:
                server.start()
                try:
                    yield Visit(context, server, flags, None if self.where.connect else profile)
                finally:
                    await context.close()
                    server.shutdown()
        except PlaywrightError as error:
            raise DeviceLost(f"the browser failed: {str(error).partition(chr(10))[0]}") from error
        finally:
            if browser is not None:
                await browser.close()
            shutil.rmtree(profile, ignore_errors=True)

    async def look(self, *, webgpu: bool) -> Seen:
        """Open the browser once, to see what it is."""
        async with self.visit(webgpu=webgpu) as visit:
            tab = await visit.open({"index.html": b"<!doctype html><title>look</title>"}, "index.html")
            agent = str(await tab.call("() => navigator.userAgent"))
            version = next((word for word in agent.split() if word.startswith(("Chrome/", "HeadlessChrome/"))), agent)
            return Seen(
                version=await visit.version() or version.replace("HeadlessChrome/", "Chromium "),
                flags=visit.flags,
                adapter=await tab.call(_ADAPTER),
                isolated=bool(await tab.call("() => globalThis.crossOriginIsolated")),
            )


class Visit:
    """See `inpage_bench.driver.Pages`."""

    def __init__(self, context: Any, server: _CountingServer, flags: Sequence[str], profile: Path | None) -> None:
        self._context = context
        self._server = server
        self.flags = list(flags)
        self.profile = profile  # identifies the browser's processes; None where it runs elsewhere
        self._blank: Any = None

    async def rest(self) -> None:
        """A tab for the next `open`, with time for what the browser itself does for a new one."""
        self._blank = await self._context.new_page()
        await asyncio.sleep(_TAB_S)

    async def open(self, files: Files, path: str) -> Tab:
        self._server.files = files
        page, self._blank = self._blank or await self._context.new_page(), None
        for old in self._context.pages:  # the blank one that a browser starts with
            if old is not page and old.url == "about:blank":
                await old.close()
        tab = _Tab(page, self._server)
        await page.goto(self._server.url + path)
        return tab

    async def heap(self) -> int | None:
        """Bytes of JavaScript objects in the newest page and all its workers."""
        pages = self._context.pages
        return await heap_bytes(self._context, pages[-1]) if pages else None

    async def version(self) -> str:
        """ "Chromium 156.0.7000.1", or "" where it does not say."""
        browser = self._context.browser
        return f"Chromium {browser.version}" if browser is not None else ""


class _Tab:
    def __init__(self, page: Any, server: _CountingServer) -> None:
        self.page = page
        self.url = server.url
        self._server = server
        self._before = server.sent
        self._gone = asyncio.get_running_loop().create_future()
        page.on("crash", self._crashed)

    async def call(self, script: str, argument: Any = None) -> Any:
        running = asyncio.ensure_future(self.page.evaluate(_GUARDED.replace("SCRIPT", script), argument))
        try:
            await asyncio.wait({running, self._gone}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                raise DeviceLost("the browser's page crashed, most likely out of memory")
        finally:
            if not running.done():
                running.cancel()
        result = running.result()
        if "error" in result:
            raise from_wire(result["error"])
        return result.get("value")

    def _crashed(self, _: object) -> None:
        if not self._gone.done():
            self._gone.set_result(None)

    def fetched(self) -> int:
        return self._server.sent - self._before

    async def close(self) -> None:
        await self.page.close()


class _CountingServer(StaticServer):
    """Counts what it sends, headers included."""

    sent = 0

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        return _CountingSocket(connection, self), address


class _CountingSocket(socket.socket):
    def __init__(self, connection: socket.socket, server: _CountingServer) -> None:
        super().__init__(connection.family, connection.type, connection.proto, fileno=connection.detach())
        self._server = server

    def sendall(self, data: Any, flags: int = 0) -> None:
        super().sendall(data, flags)
        with self._server._lock:
            self._server.sent += memoryview(data).nbytes
