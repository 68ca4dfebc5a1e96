"""A bounds check of a GGUF file's header, before the `gguf` package maps it.

The package's reader trusts every length: past the end of the file its slices are silently short or empty, and a
hostile count loops without end. This walk reads nothing but lengths, touches each byte of the header once, and
names what is wrong.

Layout (little-endian): magic, version u32, tensor count u64, key count u64; keys: string, type u32, value;
tensors: string, dimensions u32, extents u64 each, type u32, offset u64; padding to the alignment; data.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from inpage.errors import SourceInvalid

VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
MAX_TENSORS, MAX_KEYS, MAX_DIMENSIONS = 100_000, 100_000, 4


class _Walk:
    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.at = 0
        self.where = "header"

    def skip(self, n: int) -> int:
        start = self.at
        if n > len(self.data) - start:
            raise SourceInvalid(
                f"the file is cut off or damaged: {self.where} needs {n} bytes at {start}, "
                f"the file has {len(self.data)}",
                field=self.where,
            )
        self.at += n
        return start

    def u32(self) -> int:
        return int(struct.unpack_from("<I", self.data, self.skip(4))[0])

    def u64(self) -> int:
        return int(struct.unpack_from("<Q", self.data, self.skip(8))[0])

    def string(self) -> str:
        n = self.u64()
        start = self.skip(n)
        try:
            return str(self.data[start : start + n], "utf-8")
        except UnicodeDecodeError as e:
            raise SourceInvalid(f"{self.where}: a name is not UTF-8", field=self.where) from e

    def value(self, kind: int) -> None:
        if kind in SCALAR_BYTES:
            self.skip(SCALAR_BYTES[kind])
        elif kind == STRING:
            self.skip(self.u64())
        elif kind == ARRAY:
            inner, count = self.u32(), self.u64()
            if inner in SCALAR_BYTES:
                self.skip(count * SCALAR_BYTES[inner])
            elif inner == STRING:
                if count > len(self.data) // 8:
                    self.skip(count * 8)  # each string has at least its length: this raises
                for _ in range(count):
                    self.skip(self.u64())
            else:
                raise SourceInvalid(f"{self.where}: arrays of type {inner} are unknown", field=self.where)
        else:
            raise SourceInvalid(f"{self.where}: value type {kind} is unknown", field=self.where)


def check_header(path: Path) -> None:
    """Raise `SourceInvalid` unless every key, tensor description and tensor lies inside the file."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise SourceInvalid(f"{path} is not a file", field="path")
        with path.open("rb") as f:
            magic = f.read(4)
    except OSError as e:
        raise SourceInvalid(f"{path}: {e.strerror}", field="path") from e
    if magic != b"GGUF":
        raise SourceInvalid(f"{path.name} is not a GGUF file: it starts with {magic!r}", field="magic")
    walk = _Walk(np.memmap(path, mode="r").data)
    assert len(walk.data) == size
    walk.skip(4)
    version = walk.u32()
    if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
        raise SourceInvalid(
            f"{path.name} is a big-endian file; convert it: gguf-convert-endian {path.name} little",
            field="version",
        )
    if version not in VERSIONS:
        raise SourceInvalid(f"GGUF version {version} is not supported (2 or 3 are)", field="version")
    tensors, keys = walk.u64(), walk.u64()
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise SourceInvalid(f"the header claims {tensors} tensors and {keys} keys", field="header")
    alignment = 32
    for _ in range(keys):
        walk.where = "metadata"
        name = walk.string()
        walk.where = name
        kind = walk.u32()
        if name == "general.alignment" and kind == 4:
            alignment = struct.unpack_from("<I", walk.data, walk.at)[0] if walk.at + 4 <= size else 0
        walk.value(kind)
    if alignment == 0 or alignment & (alignment - 1):
        raise SourceInvalid(f"alignment {alignment} is not a power of two", field="general.alignment")
    spans = [_tensor(walk) for _ in range(tensors)]
    start = -(-walk.at // alignment) * alignment
    for name, offset, n in spans:
        if start + offset + n > size:
            raise SourceInvalid(
                f"the file is cut off: tensor {name} ends at byte {start + offset + n}, the file has {size}",
                field=name,
            )


def _tensor(walk: _Walk) -> tuple[str, int, int]:
    """Name, offset in the data section and bytes of the next tensor description."""
    walk.where = "tensors"
    name = walk.string()
    walk.where = name
    dimensions = walk.u32()
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise SourceInvalid(f"{name}: {dimensions} dimensions", field=name)
    extents = [walk.u64() for _ in range(dimensions)]
    raw_type, offset = walk.u32(), walk.u64()
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(raw_type)]
    except (ValueError, KeyError) as e:
        raise SourceInvalid(f"{name}: tensor type {raw_type} is unknown", field=name) from e
    elements = 1
    for extent in extents:
        elements *= extent
    if not 0 < elements < 1 << 40 or extents[0] % block:
        raise SourceInvalid(f"{name}: a shape of {extents} does not fit its type", field=name)
    return name, offset, elements // block * size
