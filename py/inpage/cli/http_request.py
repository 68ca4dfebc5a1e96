"""HTTP/1.1 requests as `serve` reads them: a head within bounds, each rule that it breaks answered by name.

The standard library's parser answers some malformed requests with a traceback and no response; a static server needs
so little of HTTP that all of it can be checked here (RFC 9110, RFC 9112).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from ..format import bounded

LINE_BYTES = 8 << 10
HEAD_BYTES = 32 << 10
HEADERS = 100
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VERSION = re.compile(rb"HTTP/(\d)\.(\d)")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]]+)(?::(\d{0,5}))?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Refused(Exception):
    """A request that gets an error: ``status`` and a reason for people. ``line``: what of it can be logged."""

    def __init__(self, status: int, reason: str, line: str = "") -> None:
        super().__init__(reason)
        self.status, self.reason, self.line = status, reason, line


@dataclass(frozen=True, slots=True)
class Request:
    """``path``: percent-decoded, without leading slashes or query. ``headers``: by lower-case name. ``close``: the
    connection ends after the answer."""

    line: str
    method: str
    path: str
    headers: Mapping[str, str]
    close: bool


class RequestReader:
    """Reads the requests of one connection, one after another."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def head(self, idle: float, whole: float) -> bytes | None:
        """The bytes of the next head, without the empty line at its end; None where the client sends none: within
        ``idle`` seconds its first byte must come, within ``whole`` more all of it. Raises `Refused`."""
        until = time.monotonic() + idle
        begun = False
        while True:
            self._buffer = self._buffer.lstrip(b"\r\n")  # empty lines before a request are let pass (RFC 9112, 2.2)
            if not begun and self._buffer:
                begun, until = True, time.monotonic() + whole
            if begun and not _TOKEN.match(self._buffer):
                raise Refused(400, "this is not HTTP; a server without TLS answers here, at http://")
            line = self._buffer.find(b"\n")
            if (len(self._buffer) if line < 0 else line) > LINE_BYTES:
                raise Refused(414, f"the request line is longer than {LINE_BYTES} bytes", _shown(self._buffer))
            found = re.search(rb"\r?\n\r?\n", self._buffer)
            if found and found.start() <= HEAD_BYTES:
                head, self._buffer = self._buffer[: found.start()], self._buffer[found.end() :]
                return head
            if len(self._buffer) > HEAD_BYTES:
                raise Refused(431, f"the headers are larger than {HEAD_BYTES} bytes", _shown(self._buffer))
            more = self._receive(until)
            if more is None and begun:
                raise Refused(408, f"the request did not come whole within {whole:g} seconds", _shown(self._buffer))
            if more == b"" and begun:
                raise Refused(400, "the request ends before its empty line", _shown(self._buffer))
            if not more:
                return None
            self._buffer += more

    def _receive(self, until: float) -> bytes | None:
        """b"" at the end of the connection, None when the time is over."""
        try:
            self._connection.settimeout(max(0.001, until - time.monotonic()))
            return self._connection.recv(1 << 14)
        except TimeoutError:
            return None


def parse(head: bytes, hosts: Hosts) -> Request:
    """Raises `Refused`."""
    first, *rest = head.split(b"\n")
    line = first.rstrip(b"\r")
    shown = _shown(line)
    words = line.split(b" ")
    if len(words) != 3:
        raise Refused(400, "the request line must be METHOD TARGET HTTP/1.1", shown)
    method, target, version = words
    if not _TOKEN.fullmatch(method):
        raise Refused(400, "the method is no token", shown)
    numbers = _VERSION.fullmatch(version)
    if numbers is None:
        raise Refused(400, "the version must be HTTP/1.1", shown)
    if numbers[1] != b"1":
        raise Refused(505, "only HTTP/1.1 is spoken here", shown)
    headers = _headers(rest, shown)
    if method not in (b"GET", b"HEAD"):
        raise Refused(405, "only GET and HEAD", shown)
    if not _TARGET.fullmatch(target):
        raise Refused(400, "the target must be percent-encoded", shown)
    path, named = _split(target.decode("ascii"), shown)
    host = headers.get("host")
    if host is None:
        raise Refused(400, "the Host header is missing", shown)
    for each in (host, named):
        if each is not None:
            hosts.check(each, shown)
    tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
    body = headers.get("content-length", "0").strip() != "0" or "transfer-encoding" in headers
    close = body or "close" in tokens or (numbers[2] == b"0" and "keep-alive" not in tokens)
    return Request(shown, method.decode("ascii"), path, headers, close)


def _headers(lines: list[bytes], shown: str) -> dict[str, str]:
    if len(lines) > HEADERS:
        raise Refused(431, f"more than {HEADERS} headers", shown)
    headers: dict[str, str] = {}
    for each in lines:
        name, colon, value = each.rstrip(b"\r").partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Refused(400, "a header is no NAME: VALUE", shown)
        key, text = name.decode("ascii").lower(), value.decode("latin-1").strip(" \t")
        if key in headers and key in ("host", "content-length", "range"):
            raise Refused(400, f"the header {key} comes twice", shown)
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _split(target: str, shown: str) -> tuple[str, str | None]:
    """The decoded path of a target, and the host that it names in its absolute form."""
    named = None
    scheme, mark, rest = target.partition("://")
    if mark and scheme.isalnum():
        if scheme.lower() != "http":
            raise Refused(400, "the target must be a path, or http://…", shown)
        named, slash, path = rest.partition("/")
        target = slash + path or "/"
        if any(sign in named for sign in "?#"):
            raise Refused(400, "the target names no host", shown)
    if not target.startswith("/"):
        raise Refused(400, "the target must begin with /", shown)
    path = re.split(r"[?#]", target, maxsplit=1)[0]
    if _BAD_ESCAPE.search(path):
        raise Refused(400, "a % in the path is not followed by two hex digits", shown)
    try:
        return unquote_to_bytes(path).decode("utf-8").lstrip("/"), named
    except UnicodeDecodeError:
        raise Refused(400, "the path is not UTF-8", shown) from None


class Hosts:
    """Which names a request may call this server by.

    A page of another site can have its own name point at this machine (DNS rebinding) and would then read everything
    here as its own. It cannot choose the Host header: that is the name in its address bar."""

    def __init__(self, names: Collection[str]) -> None:
        """``names``: what it is bound to, or was asked to be; all of loopback's go together. Bound to all addresses it
        also answers to any of them (an address is no name that somebody else could point here) and to this machine's
        own name."""
        self._names = {_plain(name) for name in names}
        self._any = any(_is_unspecified(name) for name in self._names)
        if self._any:
            own = _plain(socket.gethostname())
            self._names |= {own, own.partition(".")[0], f"{own.partition('.')[0]}.local"}
        if self._any or any(name in LOOPBACK or _is_loopback(name) for name in self._names):
            self._names |= set(LOOPBACK)

    def check(self, header: str, shown: str = "") -> None:
        """Raises `Refused`."""
        found = _HOST.fullmatch(header)
        if found is None or int(found[2] or 0) > 65535:
            raise Refused(400, "the Host header is no HOST:PORT", shown)
        name = _plain(found[1])
        if name in self._names or (self._any and _address(name) is not None):
            return
        if name.endswith(".localhost") and "localhost" in self._names:  # browsers ask no name server for these
            return
        names = ", ".join(sorted(self._names))
        raise Refused(421, f"this server is not {name[:80]!r}; it answers to {names} (inpage serve --host)", shown)


def _plain(name: str) -> str:
    return name.lower().strip("[]").removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return address is not None and address.is_loopback


def _is_unspecified(name: str) -> bool:
    address = _address(name)
    return name == "" or (address is not None and address.is_unspecified)


def _shown(line: bytes) -> str:
    """For the log: one line, printable."""
    text = line.split(b"\n", 1)[0].rstrip(b"\r")[:200].decode("latin-1")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def parse_range(header: str, size: int) -> tuple[int, int] | str | None:
    """``bytes=a-b``, ``bytes=a-`` or ``bytes=-n`` as [start, end); ``"unsatisfiable"``; None where it is to be ignored
    (another unit, several ranges, malformed: RFC 9110 lets a server send the whole)."""
    unit, _, spec = header.partition("=")
    first, dash, last = spec.strip().partition("-")
    first, last = first.strip(), last.strip()
    low, high = bounded.whole(first), bounded.whole(last)
    if unit.strip().lower() != "bytes" or not dash or (first and low is None) or (last and high is None):
        return None
    if low is None:
        if high is None:
            return None
        start, end = max(0, size - high), size
    else:
        start, end = low, size if high is None else min(size, high + 1)
        if high is not None and high < low:
            return None
    return (start, end) if start < end else "unsatisfiable"


def accepts_gzip(header: str | None) -> bool:
    for item in (header or "").lower().split(","):
        coding, _, quality = item.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def matches(header: str | None, etag: str) -> bool:
    tags = [tag.strip().removeprefix("W/") for tag in (header or "").split(",")]
    return etag in tags or "*" in tags
