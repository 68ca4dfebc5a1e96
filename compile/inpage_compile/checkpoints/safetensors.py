"""Safetensors files, mapped: a length (u64, little-endian), so many bytes of JSON, then the tensors' bytes.

Every length is checked against the file before anything is mapped, and no two tensors share a byte, so that what is
read later lies where the header says.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid, brief, quoted, said
from inpage.format import bounded

from .files import ModelFolder

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_HEADER_BYTES, _INDEX_BYTES = 32 << 20, 16 << 20
_SHARDS, _DIMENSIONS, _ELEMENTS = 1000, 8, 1 << 40
# Bits of an element of each type that there is.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as the file has it. ``data``: its bytes, uint8, mapped."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: npt.NDArray[np.uint8] = field(repr=False)


def weight_files(folder: ModelFolder) -> list[str]:
    """The one file of the weights, or those that the index names. Raises `SourceInvalid`."""
    if folder.has(INDEX):
        return sorted(set(_index(folder).values()))
    if folder.has(SINGLE):
        return [SINGLE]
    others = [
        name for name in folder.names if name.endswith((".bin", ".pt", ".pth", ".safetensors", ".h5", ".msgpack"))
    ]
    listed = f" ({', '.join(map(brief, others[:3]))} cannot be read)" if others else ""
    raise SourceInvalid(f"{folder.path.name} has neither {SINGLE} nor {INDEX}{listed}", field=SINGLE)


def read_weights(folder: ModelFolder) -> dict[str, Stored]:
    """All tensors by name; the index must say of each where it is."""
    paths = {file: folder.file(file) for file in weight_files(folder)}
    found: dict[str, Stored] = {}
    index = _index(folder) if folder.has(INDEX) else None
    for file, path in paths.items():
        for tensor in read_safetensors(path).values():
            if index is not None and index.get(tensor.name) != file:
                where = index.get(tensor.name, "no file")
                raise SourceInvalid(
                    f"{file} holds {quoted(tensor.name)}, which the index says is in {where}", field=tensor.name
                )
            found[tensor.name] = tensor
    missing = [name for name in index or () if name not in found]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        where = (index or {})[missing[0]]
        raise SourceInvalid(f"{where} lacks {quoted(missing[0])}{more}, which the index names", field=missing[0])
    return found


def _index(folder: ModelFolder) -> dict[str, str]:
    places = folder.json(INDEX, _INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise SourceInvalid(f"{INDEX}: weight_map must name a file for each tensor", field=INDEX)
    if len(set(places.values())) > _SHARDS:
        raise SourceInvalid(f"{INDEX} names {len(set(places.values()))} files", field=INDEX)
    return places


def read_safetensors(path: Path) -> dict[str, Stored]:
    """Raises `SourceInvalid` for a file that is cut off or whose header does not fit it."""
    name = path.name
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            head = f.read(8)
            length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
            if length > _HEADER_BYTES:
                raise SourceInvalid(f"{name} is not a safetensors file: a header of {length} bytes", field=name)
            text = f.read(length)
    except OSError as e:
        raise SourceInvalid(f"{name}: {e.strerror}", field=name) from e
    if len(head) < 8 or len(text) < length:
        raise SourceInvalid(f"{name} is cut off: it ends within its header", field=name)
    try:
        header = bounded.read(text, _HEADER_BYTES, unique=True)
    except ValueError as e:
        raise SourceInvalid(f"{name} is not a safetensors file: {said(e)}", field=name) from e
    if not isinstance(header, dict):
        raise SourceInvalid(f"{name} is not a safetensors file: its header is no object", field=name)
    return _tensors(path, header, 8 + length, size)


def _tensors(path: Path, header: Mapping[str, Any], start: int, size: int) -> dict[str, Stored]:
    header = {key: value for key, value in header.items() if key != "__metadata__"}
    spans = sorted(((*_span(path.name, key, value), key) for key, value in header.items()), key=lambda span: span[:2])
    end = 0
    for first, last, key in spans:
        if first < end:
            raise SourceInvalid(f"{path.name}: {brief(key)} begins within the tensor before it", field=brief(key))
        end = last
    if start + end > size:
        raise SourceInvalid(
            f"{path.name} is cut off: its tensors end at byte {start + end}, the file has {size}", field=path.name
        )
    mapped = np.asarray(np.memmap(path, mode="r")) if size else np.zeros(0, np.uint8)
    return {
        key: Stored(key, header[key]["dtype"], tuple(header[key]["shape"]), mapped[start + first : start + last])
        for first, last, key in spans
    }


def _span(file: str, name: str, entry: Any) -> tuple[int, int]:
    """First and last byte in the data, which must be as many as type and shape need."""
    field = brief(name)
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise SourceInvalid(f"{file}: {field} must have dtype, shape and data_offsets", field=field)
    kind, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _BITS:
        raise SourceInvalid(f"{file}: {field} is of the unknown type {quoted(kind)}", field=field)
    if not _sizes(shape) or len(shape) > _DIMENSIONS or not _sizes(span) or len(span) != 2:
        raise SourceInvalid(f"{file}: {field}: shape and data_offsets must be whole numbers", field=field)
    elements = 1
    for extent in shape:
        elements = min(elements * extent, _ELEMENTS)
    if elements >= _ELEMENTS or span[1] - span[0] != -(-elements * _BITS[kind] // 8):
        raise SourceInvalid(f"{file}: {field}: {span[1] - span[0]} bytes for {kind} of shape {shape}", field=field)
    return span[0], span[1]


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(x) is int and 0 <= x < 1 << 62 for x in value)
