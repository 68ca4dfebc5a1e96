"""A server of this machine with the hub's API, and what goes wrong with servers, by order."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Asked:
    path: str
    span: tuple[int, int] | None
    authorization: str | None


@dataclass
class Server:
    """``files``: contents by path. ``fault``: given a request and how many came before, what to do instead: a status
    (with headers), or ("cut", bytes) to send only so many. ``asked``: all requests, in order."""

    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    fault: Callable[[Asked, int], Any] = lambda asked, before: None
    ranges: bool = True
    etags: bool = True
    token: str | None = None
    asked: list[Asked] = field(default_factory=list)
    url: str = ""

    def asked_for(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def add_model(
        self, name: str, files: Mapping[str, bytes], card: Mapping[str, Any] | None = None, cdn: str = ""
    ) -> None:
        """A repository: large files as the hub keeps them, by sha256 and elsewhere (``cdn``); others by their git
        id."""
        siblings: list[dict[str, Any]] = []
        for file, data in files.items():
            large = file.endswith((".gguf", ".safetensors"))
            blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
            entry: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": blob}
            if large:
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append(entry)
            path = f"/{name}/resolve/{COMMIT}/{file}"
            if large and cdn:
                self.redirects[path] = f"{cdn}/{file}?X-Signature=secret"
            else:
                self.files[path] = data
        answer = {"id": name, "sha": COMMIT, "siblings": siblings, "cardData": dict(card or {}), "private": False}
        for revision in ("main", COMMIT):
            self.answers[f"/api/models/{name}/revision/{revision}"] = answer


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            asked = Asked(
                path, (int(match[1]), int(match[2]) + 1) if match else None, self.headers.get("Authorization")
            )
            with lock:
                before = len(server.asked_for(path))
                server.asked.append(asked)
                fault = server.fault(asked, before)
            if isinstance(fault, tuple) and fault[0] != "cut":
                return self._reply(fault[0], b"", fault[1])
            if server.token is not None and asked.authorization != f"Bearer {server.token}":
                return self._reply(401, b"")
            if path in server.redirects:
                return self._reply(302, b"", {"Location": server.redirects[path]})
            if path in server.answers:
                answer = server.answers[path]
                return self._reply(200, answer if isinstance(answer, bytes) else json.dumps(answer).encode())
            if path not in server.files:
                return self._reply(404, b"")
            data = server.files[path]
            tag = {"ETag": f'"{hashlib.sha256(data).hexdigest()[:16]}"'} if server.etags else {}
            cut = fault[1] if fault else None
            if asked.span is None or not server.ranges:
                return self._reply(200, data, tag, cut)
            start, end = asked.span[0], min(asked.span[1], len(data))
            if start >= len(data):
                return self._reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            tag |= {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
            return self._reply(206, data[start:end], tag, cut)

        def _reply(
            self, status: int, data: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:cut])
            if cut is not None and cut < len(data):
                self.close_connection = True

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    server.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
