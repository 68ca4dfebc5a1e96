"""HTTP as downloads need it: ranges, redirects that carry no token away, errors that say what to do.

The standard library's client; it goes by the environment's proxies."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from inpage.errors import NetworkError, SourceInvalid, quoted, said

SECONDS = 30.0  # without a byte
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_AGAIN = (408, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")
_TOKEN = re.compile(r"[!-~]{1,1000}")
_WAITS = 60.0


class TryAgain(Exception):
    """What may go away by itself. ``after``: seconds that the server asks for."""

    def __init__(self, why: str, after: float | None = None) -> None:
        super().__init__(why)
        self.after = after


class Gone(Exception):
    """The file is no longer what it was when its download began."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An answer under way. ``start`` and ``total``: which part of how many bytes; ``total`` is None where the server
    does not say. ``ranged``: whether it took notice of the range that was asked for."""

    response: Any = field(repr=False)
    ranged: bool
    start: int
    total: int | None
    etag: str | None

    def read(self, most: int) -> bytes:
        """b"" at the end. Raises `TryAgain` where the line is cut."""
        try:
            return bytes(self.response.read(most))
        except (OSError, http.client.HTTPException) as error:
            raise TryAgain(said(error) or type(error).__name__) from error

    def close(self) -> None:
        self.response.close()


class Client:
    """``token``: sent to ``origin`` alone, whatever it redirects to. Errors name addresses without their query, which
    may be a key."""

    def __init__(self, token: str | None = None, origin: str = "") -> None:
        if token is not None and not _TOKEN.fullmatch(token):  # the library's error would quote it
            raise SourceInvalid("HF_TOKEN holds no token: it has blanks or other signs in it", field="source")
        self._token, self._origin = token, _origin(origin) if origin else None
        self._opener = urllib.request.build_opener(_Redirects(self._authorize))

    def get(self, url: str, span: tuple[int, int] | None = None) -> Piece:
        """``span``: bytes from, to (exclusive). Raises `TryAgain`, `Gone` for a range beyond the end, `SourceInvalid`
        for what cannot be had, `NetworkError` for everything else."""
        check_url(url)
        request = urllib.request.Request(url, headers={"User-Agent": "inpage", "Accept-Encoding": "identity"})
        if span:
            request.add_header("Range", f"bytes={span[0]}-{span[1] - 1}")
        self._authorize(request)
        try:
            response = self._opener.open(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            error.close()
            raise self._refusal(url, error) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise NetworkError(f"{shown(url)}: {said(error.reason)}", field="source") from None
            raise TryAgain(said(error.reason) if isinstance(error.reason, Exception) else str(error.reason)) from None
        except (OSError, http.client.HTTPException) as error:
            raise TryAgain(said(error) or type(error).__name__) from None
        return self._piece(url, response)

    def _authorize(self, request: urllib.request.Request) -> None:
        if self._token and _origin(request.full_url) == self._origin:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")

    def _piece(self, url: str, response: Any) -> Piece:
        etag = response.headers.get("ETag")
        if (coding := response.headers.get("Content-Encoding", "identity")) != "identity":
            response.close()
            raise NetworkError(f"{shown(url)}: the server sends it as {quoted(coding)}, unasked", field="source")
        length = response.headers.get("Content-Length", "")
        if response.status == 206:
            match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not match:
                response.close()
                raise NetworkError(f"{shown(url)}: the server's Content-Range cannot be read", field="source")
            return Piece(response, True, int(match[1]), int(match[3]), etag)
        total = int(length) if re.fullmatch(r"\d{1,18}", length) else None
        return Piece(response, False, 0, total, etag)

    def _refusal(self, url: str, error: urllib.error.HTTPError) -> Exception:
        where = shown(url)
        if error.code in _AGAIN:
            after = error.headers.get("Retry-After", "")
            return TryAgain(
                f"status {error.code}", min(float(after), _WAITS) if re.fullmatch(r"\d{1,6}", after) else None
            )
        if error.code == 416:
            return Gone(f"{where}: the file has become shorter")
        if error.code in (401, 403):
            hint = "is the token in HF_TOKEN allowed to read it?" if self._token else "if you may read it, set HF_TOKEN"
            return SourceInvalid(
                f"{where} is private, or its terms must be accepted on its page first (status {error.code}); {hint}",
                field="source",
            )
        if error.code in (404, 410):
            return SourceInvalid(f"{where} is not there (status {error.code})", field="source")
        if 300 <= error.code < 400:
            return NetworkError(f"{where} redirects to what is no address, or for ever", field="source")
        return NetworkError(f"{where}: status {error.code}", field="source")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 6

    def __init__(self, authorize: Any) -> None:
        self._authorize = authorize

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        check_url(newurl)
        if _origin(req.full_url)[0] == "https" and _origin(newurl)[0] != "https":
            raise NetworkError(f"{shown(req.full_url)} redirects to an address that is not encrypted", field="source")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None:
            self._authorize(new)
        return new


def check_url(url: str) -> None:
    """Raises `SourceInvalid` for what is no https address (http on this machine)."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or any(not 32 < ord(c) < 127 for c in url):
        raise SourceInvalid(f"{quoted(shown(url))} is not an address", field="source")
    if parts.username is not None or parts.password is not None:
        raise SourceInvalid(f"{shown(url)}: an address with a password in it is not taken", field="source")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise SourceInvalid(f"{quoted(shown(url))} is not an https address", field="source")


def shown(url: str) -> str:
    """An address as errors and records have it: without what may be a secret."""
    bare = url.partition("#")[0].partition("?")[0]
    scheme, separator, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def _origin(url: str) -> tuple[str, str, int]:
    parts = urllib.parse.urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(scheme, 0)


def read_small(client: Client, url: str, most: int) -> bytes:
    """The whole answer, of at most ``most`` bytes."""
    piece = client.get(url)
    try:
        data = b""
        while len(data) <= most and (block := piece.read(min(1 << 16, most + 1 - len(data)))):
            data += block
    finally:
        piece.close()
    if len(data) > most:
        raise NetworkError(f"{shown(url)} answers with more than {most} bytes", field="source")
    if piece.total is not None and len(data) < piece.total:
        raise TryAgain("the answer is cut off")
    return data
