"""Every error that inpage raises on purpose. Each names the field or thing at fault and what mends it.

An error crosses a worker boundary as ``{"code", "message", "field"}``; `from_wire` makes it an exception again.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_QUOTED = 60  # characters of what came from outside, in a message
_SAID = 400
_LONG_WORD = re.compile(r"(\S{60})\S+")
_FIELD = 200
_MESSAGE = 4000


def quoted(value: Any) -> str:
    """A value from outside as a message repeats it: at most 60 characters of it, whatever it is."""
    if isinstance(value, str):
        return repr(value) if len(value) <= _QUOTED else f"{value[:_QUOTED]!r}…"
    try:
        text = _SHORT.repr(value)
    except Exception:  # whole numbers of more than 4,300 digits; what an object of the caller's own raises
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def brief(key: Any) -> str:
    """A key from outside as a field's path names it."""
    text = key if isinstance(key, str) else quoted(key)
    return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"


def said(error: BaseException) -> str:
    """What an error of another library says, in one line: its messages may repeat all that the library was given."""
    return _LONG_WORD.sub(r"\1…", " ".join(str(error).split())[:_SAID])


def only_faults(error: BaseException) -> None:
    """In ``except BaseException``, which libraries written in Rust need: their ``PanicException`` is no `Exception`.
    What is no fault (a cancellation, an interrupt, an exit) is raised again."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


@contextmanager
def foreign(kind: type[InpageError], what: str, field: str | None) -> Iterator[None]:
    """Round calls of another library: all that it raises becomes a ``kind`` that says ``what`` cannot be done."""
    try:
        yield
    except BaseException as error:
        # One without a code of its own is JavaScript's, of a library there.
        if isinstance(error, InpageError) and error.code != InpageError.code:
            raise
        only_faults(error)
        raise kind(f"{what}: {said(error)}", field=field) from error


def _shortened(text: str, most: int) -> str:
    """As it can be shown and sent: not too long, and no half of a character."""
    text = text[: most + 1].encode("utf-8", "backslashreplace").decode()  # which makes six characters of one
    return text if len(text) <= most else f"{text[: most - 1]}…"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, _QUOTED, _QUOTED, _QUOTED


class InpageError(Exception):
    """Base of all. ``code`` is stable and is what crosses worker boundaries; ``field`` names the bad input."""

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(_shortened(message, _MESSAGE))
        self.field = None if field is None else _shortened(field, _FIELD)

    def to_wire(self) -> dict[str, str | None]:
        return {"code": self.code, "message": str(self), "field": self.field}


class ArtifactInvalid(InpageError):
    """A manifest, plan or shard is not what it claims to be (size, hash, schema)."""

    code = "artifact_invalid"


class SourceInvalid(InpageError):
    """A model source (GGUF file, wheel) cannot be read: truncated, unknown architecture or tensor type."""

    code = "source_invalid"


class Unsupported(InpageError):
    """This device or build cannot do what was asked."""

    code = "unsupported"


class Untrusted(Unsupported):
    """Native code that this machine did not compile: it runs only where the caller says that it may."""

    code = "untrusted"


class InvalidRequest(InpageError):
    """A request is malformed: empty prompt, prompt longer than the context, a parameter out of range."""

    code = "invalid_request"


class OutOfMemory(InpageError):
    code = "out_of_memory"


class StorageFull(InpageError):
    """Browser storage refused a shard: the model still runs from memory; it is fetched again next time. Or the disk has
    no room for a model to be compiled."""

    code = "storage_full"


class NetworkError(InpageError):
    """A download failed after its retries."""

    code = "network"


class DeviceLost(InpageError):
    """The engine's device or worker is gone."""

    code = "device_lost"


class PoisonRequest(InpageError):
    """A request that ended engine after engine: it fails alone and is not tried again."""

    code = "poison_request"


class Timeout(InpageError):
    """The request's time was over before its answer was whole; ask again with more time, or when less is waiting."""

    code = "timeout"


class Fatal(InpageError):
    """The page's Python itself is gone: what it was asked goes to the next one."""

    code = "fatal"


class Cancelled(InpageError):
    code = "cancelled"


class QueueFull(InpageError):
    code = "queue_full"


_BY_CODE = {
    c.code: c
    for c in (
        ArtifactInvalid,
        SourceInvalid,
        Unsupported,
        Untrusted,
        InvalidRequest,
        OutOfMemory,
        StorageFull,
        NetworkError,
        DeviceLost,
        PoisonRequest,
        Fatal,
        Timeout,
        Cancelled,
        QueueFull,
    )
}


def typed(error: BaseException) -> InpageError:
    """The same as one of these errors; an unexpected one becomes a plain `InpageError`."""
    return error if isinstance(error, InpageError) else InpageError(f"{type(error).__name__}: {said(error)}")


def from_wire(wire: dict[str, str | None]) -> InpageError:
    """The exception that `to_wire` described; an unknown code becomes a plain `InpageError`."""
    cls = _BY_CODE.get(wire.get("code") or "", InpageError)
    return cls(wire.get("message") or "unknown error", field=wire.get("field"))
