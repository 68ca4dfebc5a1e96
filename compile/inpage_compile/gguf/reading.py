"""Files on disk, checked and mapped: one, or the parts that a large model was split into."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader

from inpage.errors import SourceInvalid

from .header import check_header
from .metadata import Metadata

_PART = re.compile(r"(?P<name>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf")
_PARTS = 1000


@dataclass(frozen=True, slots=True)
class GgufFile:
    """``readers``: of all parts. ``meta``: the first's, which has all keys. ``sha256``: of the file; of several parts,
    of their hashes, a line each."""

    name: str
    readers: list[GGUFReader]
    meta: Metadata
    sha256: str


class _Reader(GGUFReader):  # type: ignore[misc]  # the package is untyped
    """The package's reader over a plain array: slicing a `np.memmap` 250,000 times takes twice as long."""

    @property
    def data(self) -> npt.NDArray[Any]:
        return self._mapped

    @data.setter
    def data(self, mapped: npt.NDArray[Any]) -> None:
        self._mapped = np.asarray(mapped)


def is_first_part(path: Path) -> bool:
    """Whether a file's name is not that of a later part of another."""
    match = _PART.fullmatch(path.name)
    return match is None or int(match["no"]) == 1


def other_parts(name: str) -> list[str]:
    """All parts by the name of one; of a file that is whole its own."""
    match = _PART.fullmatch(name)
    if match is None or not 0 < int(match["count"]) <= _PARTS:
        return [name]
    count = int(match["count"])
    return [f"{match['name']}-{i + 1:05}-of-{count:05}.gguf" for i in range(count)]


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise SourceInvalid(f"{path}: {e.strerror}", field="path") from e


def read_gguf(path: Path, sha256: str | None = None) -> GgufFile:
    """``path``: the file, or any part of it; the others are looked for beside it. ``sha256``: what it must hash to.
    Raises `SourceInvalid`."""
    check_header(path)
    given = _reader(path)  # seconds, for a large vocabulary
    files = _parts(path, Metadata(given))
    for other in files:
        if other != path:
            check_header(other)
    hashes = [file_sha256(file) for file in files]
    actual = hashes[0] if len(files) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    if sha256 is not None and actual != sha256.lower():
        raise SourceInvalid(f"{path.name} has sha256 {actual}, expected {sha256}", field="sha256")
    readers = [given if file == path else _reader(file) for file in files]
    for i, (file, reader) in enumerate(zip(files, readers, strict=True)):
        if len(files) > 1 and _place(Metadata(reader)) != (i, len(files)):
            raise SourceInvalid(f"{file.name} is not part {i + 1} of {len(files)}", field="split.no")
    match = _PART.fullmatch(files[0].name)
    name = match["name"] if match and len(files) > 1 else path.stem
    return GgufFile(name, readers, Metadata(readers[0]), actual)


def _reader(path: Path) -> GGUFReader:
    try:
        return _Reader(path)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, UnicodeDecodeError) as e:
        raise SourceInvalid(f"{path.name}: {e}", field="file") from e


def _place(meta: Metadata) -> tuple[int, int]:
    return meta.integer("split.no", 0), meta.integer("split.count", 1)


def _parts(path: Path, meta: Metadata) -> list[Path]:
    """All parts in order, by llama.cpp's names for them."""
    no, count = _place(meta)
    if count <= 1:
        return [path]
    if not 0 <= no < count <= _PARTS:
        raise SourceInvalid(f"{path.name} says that it is part {no + 1} of {count}", field="split.count")
    match = _PART.fullmatch(path.name)
    name = match["name"] if match else path.stem
    files = [path.with_name(f"{name}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]
    files[no] = path
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise SourceInvalid(
            f"{path.name} is part {no + 1} of {count}; not found beside it: {listed}. Put all parts into one folder, "
            "or join them with llama.cpp's llama-gguf-split --merge",
            field="split.count",
        )
    return files
