"""A static web server for a built site: isolation headers, ranges, compression and revalidation.

On the standard library alone. Any static host can serve a site; this one is for the machine one works on, and adds what
threads in the page need: ``Cross-Origin-Opener-Policy`` and ``Cross-Origin-Embedder-Policy``.
"""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import socketserver
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

Files = Mapping[str, "Path | bytes"]

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
_ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CHUNK = 1 << 18


class Folder:
    """A folder's files by URL path; nothing outside it, links included."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()

    def get(self, path: str) -> Path | bytes | None:
        found = (self._root / path).resolve()
        return found if found.is_relative_to(self._root) and found.is_file() else None


class StaticServer(ThreadingHTTPServer):
    """Serves ``files`` (URL path without a leading slash → file or content) until `shutdown`. ``port`` 0 takes a free
    one; `url` says which. ``isolated`` adds the headers that give pages SharedArrayBuffer."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self, files: Files | Folder, host: str = "127.0.0.1", port: int = 0, *, isolated: bool = True, log: bool = False
    ) -> None:
        self.files, self.isolated, self.log = files, isolated, log
        self._gzipped: dict[str, bytes] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the DNS for this host's name, which can hang

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"

    def start(self) -> None:
        """Serve on a thread of its own."""
        threading.Thread(target=self.serve_forever, name="inpage-serve", daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in mid-answer is no error of the server's."""

    def gzipped(self, etag: str, body: _Body) -> bytes:
        """The content compressed, once for each version of a file."""
        with self._lock:
            if etag not in self._gzipped:
                self._gzipped[etag] = gzip.compress(body.read(), 6, mtime=0)
            return self._gzipped[etag]


@dataclass(frozen=True)
class _Body:
    content: Path | bytes
    size: int
    etag: str

    @classmethod
    def of(cls, content: Path | bytes) -> _Body:
        if isinstance(content, bytes):
            return cls(content, len(content), hashlib.sha256(content).hexdigest()[:32])
        stat = content.stat()
        key = f"{content}\0{stat.st_mtime_ns}\0{stat.st_size}"
        return cls(content, stat.st_size, hashlib.sha256(key.encode()).hexdigest()[:32])

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


class _Handler(BaseHTTPRequestHandler):
    server: StaticServer
    protocol_version = "HTTP/1.1"
    server_version = "inpage"
    sys_version = ""
    timeout = 60  # seconds that a connection may idle

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self._path()
        content = None if path is None else self.server.files.get(path)
        if content is None or path is None:
            self._refuse(404, "not found", with_body)
            return
        body = _Body.of(content)
        suffix = posixpath.splitext(path)[1]
        compressible = suffix in _COMPRESSED
        wanted = self.headers.get("Range")
        packed = compressible and wanted is None and _accepts_gzip(self.headers.get("Accept-Encoding"))
        etag = f'"{body.etag}{"-gz" if packed else ""}"'
        headers = {
            "Content-Type": TYPES.get(suffix, "application/octet-stream"),
            "ETag": etag,
            "Cache-Control": "no-cache",  # keep it, ask whether it is still good
            "Accept-Ranges": "bytes",
        }
        if compressible:
            headers["Vary"] = "Accept-Encoding"
        if _matches(self.headers.get("If-None-Match"), etag):
            self._head(304, headers, None)
            return
        if packed:
            data = self.server.gzipped(body.etag, body)
            self._head(200, headers | {"Content-Encoding": "gzip"}, len(data))
            if with_body:
                self.wfile.write(data)
            return
        start, end, status = 0, body.size, 200
        if wanted is not None and self.headers.get("If-Range", etag) == etag:
            span = parse_range(wanted, body.size)
            if span == "unsatisfiable":
                self._refuse(416, "range not satisfiable", with_body, {"Content-Range": f"bytes */{body.size}"})
                return
            if isinstance(span, tuple):
                start, end, status = *span, 206
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{body.size}"
        self._head(status, headers, end - start)
        if with_body:
            self._send(body.content, start, end)

    def _path(self) -> str | None:
        """The URL path as a key: decoded, no ``..``, a folder meaning its index.html; None if it is no path."""
        path = unquote(urlsplit(self.path).path, errors="replace").lstrip("/")
        if "\0" in path or "\\" in path or ".." in path.split("/"):
            return None
        return path + "index.html" if path == "" or path.endswith("/") else path

    def _send(self, content: Path | bytes, start: int, end: int) -> None:
        if isinstance(content, bytes):
            self.wfile.write(content[start:end])
            return
        with content.open("rb") as file:
            file.seek(start)
            left = end - start
            while left > 0 and (piece := file.read(min(left, _CHUNK))):
                self.wfile.write(piece)
                left -= len(piece)
        if left:
            self.close_connection = True  # the file shrank: the length that was promised cannot be kept

    def _head(self, status: int, headers: Mapping[str, str], length: int | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        for name, value in _ISOLATION.items() if self.server.isolated else ():
            self.send_header(name, value)
        self.send_header("X-Content-Type-Options", "nosniff")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _refuse(self, status: int, reason: str, with_body: bool, headers: Mapping[str, str] | None = None) -> None:
        data = f"{reason}\n".encode()
        self._head(status, {"Content-Type": TYPES[".txt"], **(headers or {})}, len(data))
        if with_body:
            self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses by itself (another method, a malformed request line), in our own words."""
        if code == 501:
            code, message = 405, "only GET and HEAD"
        self.close_connection = True
        self._refuse(code, message or explain or "error", True, {"Allow": "GET, HEAD", "Connection": "close"})

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(timestamp, usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        if self.server.log:
            super().log_message(format, *args)


def parse_range(header: str, size: int) -> tuple[int, int] | str | None:
    """``bytes=a-b``, ``bytes=a-`` or ``bytes=-n`` as [start, end); ``"unsatisfiable"``; None where it is to be ignored
    (another unit, several ranges, malformed: RFC 9110 lets a server send the whole)."""
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    first, last = first.strip(), last.strip()
    if unit.strip().lower() != "bytes" or not dash or not (first + last).isdecimal() or not (first + last).isascii():
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    return (start, end) if start < end else "unsatisfiable"


def _accepts_gzip(header: str | None) -> bool:
    for item in (header or "").lower().split(","):
        coding, _, quality = item.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _matches(header: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags
