"""What `serve` answers on one connection: files whole, in part or compressed, and else an error with its reason."""

from __future__ import annotations

import contextlib
import hashlib
import http
import os
import posixpath
import socket
import socketserver
import stat
import sys
import time
from collections.abc import Mapping
from email.utils import formatdate
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from .http_request import Refused, Request, RequestReader, accepts_gzip, matches, parse, parse_range

if TYPE_CHECKING:
    from .static import StaticServer

# Said here and not taken from the system's table, which differs from machine to machine: a module script or a
# streaming WebAssembly compilation refuses any other type.
TYPES = {
    ".bin": "application/octet-stream",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".zip": "application/zip",
}
_COMPRESSED = {".css", ".html", ".js", ".json", ".map", ".mjs", ".svg", ".txt", ".wasm", ".webmanifest"}
_COMPRESS_BYTES = 32 << 20  # larger files go as they are
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CHUNK = 1 << 18


class _Body:
    """A file, open, or content; so nothing that fails later can spoil a head that is already sent."""

    def __init__(self, content: Path | bytes) -> None:
        self.file: BufferedReader | BytesIO
        if isinstance(content, bytes):
            self.file, self.size = BytesIO(content), len(content)
            self.etag = hashlib.sha256(content).hexdigest()[:32]
            return
        self.file = content.open("rb")
        found = os.fstat(self.file.fileno())
        if not stat.S_ISREG(found.st_mode):
            self.file.close()
            raise OSError("no regular file")
        self.size = found.st_size
        key = f"{content}\0{found.st_mtime_ns}\0{found.st_size}"
        self.etag = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class Connection(socketserver.BaseRequestHandler):
    server: StaticServer
    request: socket.socket

    def handle(self) -> None:
        limits, reader = self.server.limits, RequestReader(self.request)
        with contextlib.suppress(OSError):
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        while True:
            asked, with_body = None, True
            self._line, self._path, self._begun = "-", "", False
            try:
                self.server.note_idle(self.request, True)
                try:
                    head = reader.head(limits.idle, limits.head)
                finally:
                    self.server.note_idle(self.request, False)
                if head is None:
                    return
                self.request.settimeout(limits.send)
                asked = parse(head, self.server.hosts)
                self._line, with_body = asked.line, asked.method == "GET"
                self._answer(asked, with_body)
            except Refused as refused:
                self._line = refused.line or self._line
                self._close(refused.status, refused.reason, not self._line.startswith("HEAD "))
                return
            except OSError:
                return  # the client is gone, or too slow
            except Exception:
                if not self._begun:
                    self._close(500, "the server failed", with_body)
                raise
            if asked.close:
                self._linger()
                return

    def _answer(self, asked: Request, with_body: bool) -> None:
        path = self._path = asked.path + "index.html" if asked.path == "" or asked.path.endswith("/") else asked.path
        content = None if _forbidden(path) else self.server.files.get(path)
        if content is None:
            self._say(404, "not found", with_body, asked.close)
            return
        try:
            body = _Body(content)
        except OSError:
            self._say(404, "not found", with_body, asked.close)
            return
        with body.file:
            self._send_file(asked, path, body, with_body)

    def _send_file(self, asked: Request, path: str, body: _Body, with_body: bool) -> None:
        suffix = posixpath.splitext(path)[1]
        compressible = suffix in _COMPRESSED and body.size <= _COMPRESS_BYTES
        wanted = asked.headers.get("range")
        packed = compressible and wanted is None and accepts_gzip(asked.headers.get("accept-encoding"))
        etag = f'"{body.etag}{"-gz" if packed else ""}"'
        headers = {
            "Content-Type": TYPES.get(suffix, "application/octet-stream"),
            "ETag": etag,
            "Cache-Control": "no-cache",  # keep it, ask whether it is still good
            "Accept-Ranges": "bytes",
        }
        if compressible:
            headers["Vary"] = "Accept-Encoding"
        if matches(asked.headers.get("if-none-match"), etag):
            self._head(304, headers, None, asked.close)
            return
        if packed:
            data = self.server.gzipped(body.etag, body.file.read)
            self._head(200, headers | {"Content-Encoding": "gzip"}, len(data), asked.close)
            if with_body:
                self._send(BytesIO(data), len(data))
            return
        start, end, status = 0, body.size, 200
        if wanted is not None and asked.headers.get("if-range", etag) == etag:
            span = parse_range(wanted, body.size)
            if span == "unsatisfiable":
                more = {"Content-Range": f"bytes */{body.size}"}
                self._say(416, "range not satisfiable", with_body, asked.close, more)
                return
            if isinstance(span, tuple):
                start, end, status = *span, 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{body.size}"
        self._head(status, headers, end - start, asked.close)
        if with_body:
            body.file.seek(start)
            self._send(body.file, end - start)

    def _send(self, file: BufferedReader | BytesIO, left: int) -> None:
        while left > 0 and (piece := file.read(min(left, _CHUNK))):
            self.request.sendall(piece)
            left -= len(piece)
        if left:
            raise OSError("the file shrank: the length that was promised cannot be kept")

    def _head(self, status: int, headers: Mapping[str, str], length: int | None, close: bool) -> None:
        self._begun = True
        all_headers = {"Server": "inpage", "Date": formatdate(usegmt=True), **headers}
        all_headers |= _ISOLATION if self.server.isolated else {}
        all_headers["X-Content-Type-Options"] = "nosniff"
        if policy := self.server.policy(self._path):
            all_headers["Content-Security-Policy"] = policy
        if length is not None:
            all_headers["Content-Length"] = str(length)
        if close:
            all_headers["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
        self.request.sendall(f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\n{lines}\r\n".encode("latin-1"))
        if self.server.log:
            moment = time.strftime("%d/%b/%Y %H:%M:%S")
            sys.stderr.write(f'{self.client_address[0]} - - [{moment}] "{self._line}" {status} -\n')

    def _say(
        self, status: int, reason: str, with_body: bool, close: bool, headers: Mapping[str, str] | None = None
    ) -> None:
        data = f"{reason}\n".encode()
        self._head(status, {"Content-Type": TYPES[".txt"], **(headers or {})}, len(data), close)
        if with_body:
            self.request.sendall(data)

    def _close(self, status: int, reason: str, with_body: bool) -> None:
        """The last answer of this connection."""
        with contextlib.suppress(OSError):
            self.request.settimeout(self.server.limits.send)
            self._say(status, reason, with_body, True, {"Allow": "GET, HEAD"} if status == 405 else None)
            self._linger()

    def _linger(self) -> None:
        """Read on for a moment: a connection that is closed with bytes unread is reset, and its answer may be lost."""
        until = time.monotonic() + self.server.limits.linger
        with contextlib.suppress(OSError):
            self.request.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                self.request.settimeout(left)
                if not self.request.recv(_CHUNK):
                    return


def _forbidden(path: str) -> bool:
    """No path within a site: one that would leave it, or names something hidden."""
    return "\0" in path or "\\" in path or hidden(tuple(path.split("/")))


def hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") for part in parts)
