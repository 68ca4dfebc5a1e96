"""Every error that inpage raises on purpose. Each names the field or thing at fault and what mends it.

An error crosses a worker boundary as ``{"code", "message", "field"}``; `from_wire` makes it an exception again.
"""

from __future__ import annotations


class InpageError(Exception):
    """Base of all. ``code`` is stable and is what crosses worker boundaries; ``field`` names the bad input."""

    code = "error"

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

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


class ArtifactDamaged(DeviceLost):
    """Weights that came from browser storage were not what they should be, which showed only when answers ran on them:
    those end. The engine is loaded again with the damaged file fetched anew; ask again."""

    code = "artifact_damaged"


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
        ArtifactDamaged,
        PoisonRequest,
        Fatal,
        Timeout,
        Cancelled,
        QueueFull,
    )
}


def from_wire(wire: dict[str, str | None]) -> InpageError:
    """The exception that `to_wire` described; an unknown code becomes a plain `InpageError`."""
    cls = _BY_CODE.get(wire.get("code") or "", InpageError)
    return cls(wire.get("message") or "unknown error", field=wire.get("field"))
