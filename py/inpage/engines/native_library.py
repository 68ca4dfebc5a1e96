"""kernels.so, for CPython: verified bytes into a library of one engine's own, and what its calls take and give."""

from __future__ import annotations

import ctypes
import hashlib
import tempfile
from array import array
from pathlib import Path

from ..errors import ArtifactInvalid, InvalidRequest, Unsupported
from ..format.abi import ABI_VERSION, FUNCTIONS, POINTERS
from ..format.schema import FileRef


def read_file(folder: Path, ref: FileRef, field: str) -> bytes:
    try:
        with (folder / ref.file).open("rb") as file:
            data = file.read(ref.bytes + 1)  # one more tells that it is another file
    except OSError as e:
        raise ArtifactInvalid(f"{ref.file} cannot be read: {e.strerror}", field=field) from e
    if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
        raise ArtifactInvalid(f"{ref.file} is not the file that the manifest names", field=field)
    return data


def open_kernels(kernels: bytes) -> ctypes.CDLL:
    """Load the very bytes that were verified, from a file of this engine's own: the dynamic loader shares a library
    (and so its memory) between all who open one file."""
    with tempfile.TemporaryDirectory(prefix="inpage-") as folder:
        path = Path(folder) / "kernels.so"
        path.write_bytes(kernels)
        try:
            lib = ctypes.CDLL(str(path))
        except OSError as e:
            raise Unsupported(f"this machine cannot load the native kernels: {e}", field="variant") from e
    kinds = {"pointer": ctypes.c_void_p, "int": ctypes.c_int32}
    try:
        # Before all else: what an earlier version lacks would not say that the model is to be compiled again.
        version = lib.inpage_abi_version()
        if version != ABI_VERSION:
            message = f"kernels.so is of another version (ABI {version}, not {ABI_VERSION}): compile the model again"
            raise ArtifactInvalid(message, field="kernels")
        for name, arguments in FUNCTIONS.items():
            function = getattr(lib, name)
            function.argtypes = [kinds[kind] for kind in arguments]
            function.restype = kinds["pointer" if name in POINTERS else "int"]
    except AttributeError as e:
        raise ArtifactInvalid(f"kernels.so is no compiled model: {e}", field="kernels") from e
    return lib


def check(result: int) -> int:
    if result < 0:
        raise InvalidRequest(f"the runtime refuses the batch (error {result})", field="feeds")
    return result


def address(words: array[int]) -> int:
    return words.buffer_info()[0]
