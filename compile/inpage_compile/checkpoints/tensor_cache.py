"""The weights of MLC's folders, mapped: tensor-cache.json (before TVM 0.22 ndarray-cache.json) names the tensors in
each of the files params_shard_*.bin.

As with safetensors every length is checked against the files, and no two tensors share a byte."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from inpage.errors import SourceInvalid, brief, quoted

from .files import ModelFolder
from .safetensors import Stored

NAMES = ("tensor-cache.json", "ndarray-cache.json")
_INDEX_BYTES, _SHARDS, _TENSORS = 32 << 20, 10_000, 100_000
_TYPES = {"uint32": ("U32", 4), "float16": ("F16", 2), "float32": ("F32", 4), "bfloat16": ("BF16", 2)}


def index_of(folder: ModelFolder) -> str:
    """The name of the file that names the others. Raises `SourceInvalid`."""
    found = next((name for name in NAMES if folder.has(name)), None)
    if found is None:
        raise SourceInvalid(f"{folder.path.name} has neither {' nor '.join(NAMES)}", field=NAMES[0])
    return found


def shard_files(folder: ModelFolder) -> list[str]:
    return [shard["dataPath"] for shard in _shards(folder)]


def has_halves(folder: ModelFolder) -> bool:
    """Whether a tensor is float16, of a folder that `read_tensor_cache` took."""
    return any(entry["dtype"] == "float16" for shard in _shards(folder) for entry in shard["records"])


def read_tensor_cache(folder: ModelFolder) -> dict[str, Stored]:
    """All tensors by name. float32 that is stored in halves (``f32-to-bf16``) is BF16 here."""
    out: dict[str, Stored] = {}
    for shard in _shards(folder):
        for tensor in _tensors(folder, shard):
            if tensor.name in out:
                raise SourceInvalid(f"tensor {brief(tensor.name)} stands twice", field=brief(tensor.name))
            out[tensor.name] = tensor
    return out


def _shards(folder: ModelFolder) -> list[dict[str, Any]]:
    name = index_of(folder)
    records = folder.json(name, _INDEX_BYTES).get("records")
    if not isinstance(records, list) or not 0 < len(records) <= _SHARDS:
        raise SourceInvalid(f"{name}: records must be a list of files", field=name)
    for i, shard in enumerate(records):
        if (
            not isinstance(shard, dict)
            or not isinstance(shard.get("dataPath"), str)
            or shard.get("format") != "raw-shard"
        ):
            raise SourceInvalid(f"{name}: records[{i}] must name a file of format raw-shard", field=name)
        if not isinstance(shard.get("records"), list) or len(shard["records"]) > _TENSORS:
            raise SourceInvalid(f"{name}: records[{i}].records must be a list of tensors", field=name)
    if len({shard["dataPath"] for shard in records}) < len(records):
        raise SourceInvalid(f"{name} names a file twice", field=name)
    return records


def _tensors(folder: ModelFolder, shard: dict[str, Any]) -> list[Stored]:
    file = shard["dataPath"]
    path = folder.file(file)
    data = np.asarray(np.memmap(path, mode="r")) if path.stat().st_size else np.zeros(0, np.uint8)
    digest = shard.get("md5Sum")
    if digest is not None:
        with path.open("rb") as f:
            if hashlib.file_digest(f, "md5").hexdigest() != digest:
                raise SourceInvalid(f"{file} is damaged: it is not what its md5Sum says", field=file)
    spans = sorted(
        ((*_span(file, entry, len(data)), i) for i, entry in enumerate(shard["records"])), key=lambda s: s[:2]
    )
    end = 0
    out = []
    for start, stop, i in spans:
        entry = shard["records"][i]
        if start < end:
            raise SourceInvalid(f"{file}: {brief(entry['name'])} begins within the tensor before it", field=file)
        end = stop
        kind = (
            "BF16"
            if entry.get("format") == "f32-to-bf16" and entry["dtype"] == "float32"
            else _TYPES[entry["dtype"]][0]
        )
        out.append(Stored(entry["name"], kind, tuple(entry["shape"]), data[start:stop]))
    return out


def _span(file: str, entry: Any, size: int) -> tuple[int, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise SourceInvalid(f"{file}: a tensor must have a name", field=file)
    name, dtype, shape = brief(entry["name"]), entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in _TYPES or entry.get("format", "raw") not in ("raw", "f32-to-bf16"):
        raise SourceInvalid(
            f"{file}: {name} is {quoted(dtype)} as {quoted(entry.get('format'))}, which is unknown", field=name
        )
    numbers: list[Any] = [entry.get("byteOffset"), entry.get("nbytes")]
    if (
        not isinstance(shape, list)
        or len(shape) > 8
        or not all(type(n) is int and 0 <= n < 1 << 40 for n in [*shape, *numbers])
    ):
        raise SourceInvalid(f"{file}: {name}: shape, byteOffset and nbytes must be whole numbers", field=name)
    width = 2 if entry.get("format") == "f32-to-bf16" and dtype == "float32" else _TYPES[dtype][1]
    elements = 1
    for extent in shape:
        elements = min(elements * extent, 1 << 40)
    start, count = numbers
    if count != elements * width:
        raise SourceInvalid(f"{file}: {name}: {count} bytes for {dtype} of shape {shape}", field=name)
    if start + count > size:
        raise SourceInvalid(f"{file} is cut off: {name} ends at byte {start + count}, the file has {size}", field=file)
    return start, start + count
