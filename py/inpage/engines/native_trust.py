"""Which native kernels may run in this process: those that this user compiled, or that the caller trusts by name.

kernels.so is machine code, and an artifact is a folder that may have come from anywhere; its hashes only say that it is
whole. So the compiler leaves a stamp in the artifact's record for each library that it linked: an HMAC of the library's
hash under a random key in the user's config folder. A copy of the folder keeps its stamps on this machine and means
nothing on another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import sys
from pathlib import Path

from ..errors import Untrusted
from ..format import bounded

RECORD = "build.json"  # what the compiler notes beside the manifest
STAMPS = "stamps"
_RECORD_BYTES = 1 << 20
_KEY_BYTES = 32


def config_folder() -> Path:
    """``$XDG_CONFIG_HOME/inpage`` or the system's usual place."""
    usual = "Library/Application Support" if sys.platform == "darwin" else ".config"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / usual) / "inpage"


def stamp(digest: str) -> str | None:
    """The stamp for kernels of this sha256 (hex); the key is made on first use. None where there can be no key, as with
    a home folder that is read-only: such kernels run with ``trust=True`` only."""
    key = _key(make=True)
    return None if key is None else _sign(key, digest)


def is_stamped(folder: Path, digest: str) -> bool:
    """Whether the artifact in ``folder`` carries this user's stamp for kernels of this sha256."""
    key = _key(make=False)
    if key is None:
        return False
    found = _stamps(folder).get(digest)
    return isinstance(found, str) and found.isascii() and hmac.compare_digest(found, _sign(key, digest))


def require_trust(folder: Path, file: str, kernels: bytes, trust: bool) -> None:
    """Raise `Untrusted` unless these very bytes may be loaded into this process."""
    if trust or is_stamped(folder, hashlib.sha256(kernels).hexdigest()):
        return
    raise Untrusted(
        f"{folder / file} is native code that this machine did not compile ({_why_not()}): compile the model here "
        "(inpage compile), or, if you trust where the folder comes from, load it with trust=True (--trust)",
        field="trust",
    )


def _why_not() -> str:
    key = config_folder() / "key"
    if _key(make=False) is not None:
        return f"no stamp under {key}"
    return f"{key} is not a private file of yours: chmod 600, or remove it" if key.exists() else f"there is no {key}"


def _sign(key: bytes, digest: str) -> str:
    return hmac.new(key, f"inpage native kernels {digest}".encode(), hashlib.sha256).hexdigest()


def _stamps(folder: Path) -> dict[str, object]:
    """As the record has them: untrusted, like the rest of the folder."""
    with contextlib.suppress(OSError, ValueError):
        path = folder / RECORD
        if stat.S_ISREG(path.stat().st_mode) and path.stat().st_size <= _RECORD_BYTES:
            record = bounded.read(path.read_bytes())
            if isinstance(record, dict) and isinstance(record.get(STAMPS), dict):
                return dict(record[STAMPS])
    return {}


def _key(*, make: bool) -> bytes | None:
    """The key, if it is one that only this user can read; a key that others know could sign anything."""
    path = config_folder() / "key"
    with contextlib.suppress(OSError):
        if make and not path.exists():
            _make_key(path)
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            private = stat.S_ISREG(found.st_mode) and not found.st_mode & 0o077
            if private and found.st_uid == os.getuid():
                key = file.read(_KEY_BYTES + 1)
                return key if len(key) == _KEY_BYTES else None
    return None


def _make_key(path: Path) -> None:
    """Whole or not at all, and once: of two compilers that begin together, both use the key of the first."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    scratch = path.with_name(f".key.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
