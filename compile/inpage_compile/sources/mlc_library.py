"""What web-llm runs: one of MLC's folders as it is, and the library that MLC compiled for it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from inpage.errors import InvalidRequest, quoted
from inpage.format.limits import FILE_BYTES

from ..checkpoints.files import ModelFolder
from ..checkpoints.tensor_cache import has_halves, index_of, shard_files
from .download import Progress
from .hub import fetch_url
from .mlc import CONFIG, is_mlc_folder
from .pypi import cache_folder

FIELD = "mlc_lib"
_MAGIC = b"\0asm\1\0\0\0"
# What web-llm 0.2.86 calls; libraries for those before 0.2.80 have another interface of TVM's.
_EXPORT = b"TVMFFIFunctionCall"
_PINNED = re.compile(r"(.+)#sha256=([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class MlcFiles:
    """``index``: tensor-cache.json; ``shards``: the files that it names; ``library``: WebAssembly that MLC compiled;
    ``halves``: it computes with float16."""

    index: Path
    shards: tuple[Path, ...]
    library: bytes
    halves: bool

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.index, *self.shards))


def read_library(ref: str, *, cache: Path | None = None, progress: Progress = lambda done, total: None) -> bytes:
    """The library. ``ref``: a file or an https address, with ``#sha256=HEX`` behind it where it must be that one.
    Raises `InvalidRequest` (field ``mlc_lib``) for what web-llm cannot run, `NetworkError` where a download failed."""
    pinned = _PINNED.fullmatch(ref)
    place, wanted = (pinned[1], pinned[2].lower()) if pinned else (ref, None)
    if not place.startswith(("https://", "http://")):
        return _checked(Path(place), place, wanted)
    path = fetch_url(place, cache or cache_folder(), progress, suffix=".wasm")
    try:
        return _checked(path, place, wanted)
    except InvalidRequest:
        path.unlink(missing_ok=True)  # what the address gives may be another one by now: the next call asks again
        raise


def _checked(path: Path, place: str, wanted: str | None) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES["kernels"] + 1)
    except OSError as e:
        raise InvalidRequest(f"{quoted(place)}: {e.strerror}", field=FIELD) from e
    if len(data) > FILE_BYTES["kernels"]:
        raise InvalidRequest(f"{path.name} is larger than {FILE_BYTES['kernels']} bytes", field=FIELD)
    found = hashlib.sha256(data).hexdigest()
    if wanted is not None and found != wanted:
        raise InvalidRequest(f"{path.name} has sha256 {found}, expected {wanted}", field=FIELD)
    if not data.startswith(_MAGIC):
        raise InvalidRequest(f"{path.name} is not WebAssembly: MLC's libraries are .wasm files", field=FIELD)
    if _EXPORT not in data:
        raise InvalidRequest(
            f"{path.name} is no library for web-llm 0.2.86: it has no {_EXPORT.decode()}. Those for it are compiled "
            "with MLC's tools of the same time, or lie in binary-mlc-llm-libs",
            field=FIELD,
        )
    return data


def mlc_folder(ref: str) -> Path:
    """Raises `InvalidRequest` for anything else than one of MLC's."""
    if not is_mlc_folder(Path(ref)):
        raise InvalidRequest(f"{quoted(ref)} is none of MLC's folders ({CONFIG}), which a library needs", field=FIELD)
    return Path(ref)


def files_of(ref: str, library: bytes) -> MlcFiles:
    """Of a folder that `open_mlc` took."""
    folder = ModelFolder(Path(ref))
    shards = tuple(folder.file(name) for name in shard_files(folder))
    return MlcFiles(folder.file(index_of(folder)), shards, library, has_halves(folder) or b"enable f16" in library)
