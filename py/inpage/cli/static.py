"""A static web server for a built site: isolation headers, a content security policy, ranges, compression and
revalidation.

On the standard library alone. Any static host can serve a site; this one is for the machine one works on, and adds what
threads in the page need: ``Cross-Origin-Opener-Policy`` and ``Cross-Origin-Embedder-Policy``. Every request gets an
answer, malformed ones too, and no client can hold more than its share: connections, bytes of a head and seconds are
bounded.
"""

from __future__ import annotations

import contextlib
import gzip
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .csp import policy_of
from .http_request import Hosts, parse_range
from .serving import TYPES, Connection, hidden

__all__ = ["TYPES", "Files", "Folder", "Limits", "StaticServer", "parse_range"]

Files = Mapping[str, "Path | bytes"]

_CACHE_BYTES = 128 << 20  # of compressed files


@dataclass(frozen=True, slots=True)
class Limits:
    """``connections``: at once, each on a thread. Seconds: ``idle`` until a request begins, ``head`` until its head is
    whole, ``send`` for each piece of an answer, ``linger`` for what a refused client is still sending."""

    connections: int = 64
    idle: float = 60
    head: float = 10
    send: float = 60
    linger: float = 2


class Folder:
    """A folder's files by URL path; nothing outside it, links included, and nothing hidden."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def get(self, path: str) -> Path | bytes | None:
        try:
            found = (self._root / path).resolve()
            inside = found.is_relative_to(self._root) and found.is_file()
        except (OSError, ValueError, RuntimeError):  # a name that is too long, links that go in circles
            return None
        return found if inside and not hidden(found.relative_to(self._root).parts) else None


class StaticServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Serves ``files`` (URL path without a leading slash → file or content) until `shutdown`. ``port`` 0 takes a free
    one; `url` says which. ``isolated`` adds the headers that give pages SharedArrayBuffer; ``policy`` gives the content
    security policy of a path, "" for none."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self,
        files: Files | Folder,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        isolated: bool = True,
        log: bool = False,
        policy: Callable[[str], str] = policy_of,
        limits: Limits | None = None,
    ) -> None:
        self.files, self.isolated, self.log, self.policy = files, isolated, log, policy
        self.limits = limits or Limits()
        self._gzipped: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(self.limits.connections)
        self._idle: dict[socket.socket, float] = {}  # connections in which no request has begun, since when
        self._closing: deque[tuple[float, socket.socket]] = deque()  # refused, each with the time to close it at
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Connection)
        self.hosts = Hosts({host, str(self.server_address[0])})

    @property
    def url(self) -> str:
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    def start(self) -> None:
        """Serve on a thread of its own."""
        threading.Thread(target=self.serve_forever, name="inpage-serve", daemon=True).start()

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """On a thread, where one is free; a connection that only idles makes room for one that asks."""
        if not self._slots.acquire(blocking=False):
            self._end_oldest_idle()
            if not self._slots.acquire(timeout=0.5):
                self._refuse_busy(request)
                return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._slots.release()
            raise

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def note_idle(self, connection: socket.socket, idle: bool) -> None:
        with self._lock:
            if idle:
                self._idle[connection] = time.monotonic()
            else:
                self._idle.pop(connection, None)

    def _end_oldest_idle(self) -> None:
        with self._lock:
            oldest = min(self._idle, key=lambda each: self._idle[each], default=None)
            if oldest is not None:
                del self._idle[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RD)  # its thread sees an end, answers what had begun, and closes

    def _refuse_busy(self, request: socket.socket) -> None:
        """Without waiting: this is the thread that accepts. The connection is closed a little later, as one that is
        closed with bytes unread is reset, and its answer may be lost."""
        body = f"all {self.limits.connections} connections are in use\n".encode()
        headers = {"Content-Type": TYPES[".txt"], "Content-Length": str(len(body)), "Retry-After": "1"}
        headers |= {"Content-Security-Policy": self.policy(""), "Connection": "close"}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.sendall(f"HTTP/1.1 503 Service Unavailable\r\n{lines}\r\n".encode() + body)
            request.shutdown(socket.SHUT_WR)
        self._closing.append((time.monotonic() + self.limits.linger, request))
        self._close_refused()

    def _close_refused(self) -> None:
        """Those whose time is over, and at once the oldest of too many."""
        while self._closing and (
            self._closing[0][0] < time.monotonic() or len(self._closing) > self.limits.connections
        ):
            self.shutdown_request(self._closing.popleft()[1])

    def service_actions(self) -> None:
        self._close_refused()

    def server_close(self) -> None:
        super().server_close()
        while self._closing:
            self.shutdown_request(self._closing.popleft()[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in mid-answer is no error of the server's."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()

    def gzipped(self, etag: str, read: Callable[[], bytes]) -> bytes:
        """The content compressed, once for each version of a file."""
        with self._lock:
            known = self._gzipped.get(etag)
        if known is None:
            known = gzip.compress(read(), 6, mtime=0)
            with self._lock:
                if sum(map(len, self._gzipped.values())) + len(known) > _CACHE_BYTES:
                    self._gzipped.clear()
                self._gzipped[etag] = known
        return known
