"""A request's body, within bounds: of bytes as they come, of bytes unpacked, and of time."""

from __future__ import annotations

import asyncio
import zlib

from starlette.requests import Request

from ...errors import quoted, said
from ...format import bounded
from ...openai.api import BODY_BYTES
from ..http_request import Refused

_SECONDS = 60  # for all of a body


async def read_body(request: Request, *, most: int = BODY_BYTES, seconds: float = _SECONDS) -> bytes:
    """Unpacked where it is gzip. Raises `Refused`, and `ClientDisconnect` where it does not come whole."""
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", ""):
        raise Refused(415, f"content-encoding is {quoted(encoding)}: send gzip, or none")
    if (bounded.whole(request.headers.get("content-length")) or 0) > most:
        raise _too_large(most)
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 16) if encoding == "gzip" else None
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                part = chunk if unpack is None else unpack.decompress(chunk, most - size + 1)
                size += len(part)
                if size > most:
                    raise _too_large(most)
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the body did not come whole within {seconds:g} seconds") from None
    except zlib.error as error:
        raise Refused(400, f"the body is not gzip: {said(error)}") from error
    if unpack is not None and (not unpack.eof or unpack.unused_data):
        raise Refused(400, "the body is not gzip: it ends too early, or too late")
    return b"".join(parts)


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is larger than {most} bytes")
