"""GGUF files: metadata, tensors, tokenizer, chat template. Read with the `gguf` package after a bounds check."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader
from gguf.gguf_reader import ReaderTensor

from inpage.errors import SourceInvalid
from inpage.format.schema import SourceRef
from inpage.format.structure import one_line

from ..families import family_of
from ..families.family import check_tensors
from ..families.rope import FACTORS
from ..gguf.header import check_header
from ..gguf.metadata import Metadata
from ..quantize import format_of
from ..quantize.tensor import SourceTensor
from ..tokenizers.gguf import build_tokenizer
from .base import LicenseInfo, Source


class _Reader(GGUFReader):  # type: ignore[misc]  # the package is untyped
    """The package's reader over a plain array: slicing a `np.memmap` 250,000 times takes twice as long."""

    @property
    def data(self) -> npt.NDArray[Any]:
        return self._mapped

    @data.setter
    def data(self, mapped: npt.NDArray[Any]) -> None:
        self._mapped = np.asarray(mapped)


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    try:
        with path.open("rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise SourceInvalid(f"{path}: {e.strerror}", field="path") from e


def open_gguf(
    path: Path,
    *,
    origin: SourceRef | None = None,
    sha256: str | None = None,
    license_text: str | None = None,
) -> Source:
    """Open a GGUF model. ``sha256``: what the file must hash to. Raises `SourceInvalid` with the field at fault."""
    check_header(path)
    actual = file_sha256(path)
    if sha256 is not None and actual != sha256.lower():
        raise SourceInvalid(f"{path.name} has sha256 {actual}, expected {sha256}", field="sha256")
    try:
        reader = _Reader(path)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, UnicodeDecodeError) as e:
        raise SourceInvalid(f"{path.name}: {e}", field="file") from e
    meta = Metadata(reader)
    tensors: dict[str, SourceTensor] = {}
    for tensor in map(_tensor, reader.tensors):
        if tensor.name in tensors:
            raise SourceInvalid(f"tensor {tensor.name} stands twice", field=tensor.name)
        tensors[tensor.name] = tensor
    family = family_of(meta.text("general.architecture"), "general.architecture")
    keys = family.keys(meta)
    factors = tensors.pop(FACTORS, None)
    architecture, rope = family.read(keys, tensors, factors)
    check_tensors(architecture, tensors)
    name = one_line(meta.text("general.name", path.stem)) or "model"
    return Source(
        id=re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("._-") or "model",
        name=name,
        origin=origin or SourceRef("gguf", one_line(path.name), one_line(path.name), actual),
        architecture=architecture,
        tensors=tensors,
        tokenizer=build_tokenizer(meta, architecture.vocab),
        chat_template=meta.text("tokenizer.chat_template", "") or None,
        license=_license(meta, license_text),
        rope_divisors=rope.divisors,
        warnings=tuple(f"{path.name}: what {key[:80]!r} says is not known here and left out" for key in keys.unread()),
    )


def _tensor(t: ReaderTensor) -> SourceTensor:
    name = t.name.removesuffix(".weight")
    shape = tuple(int(n) for n in reversed(t.shape))
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > 2:
        raise SourceInvalid(f"{name}: {len(shape)} dimensions, expected 1 or 2", field=name)
    return SourceTensor(name, shape, format_of(t.tensor_type.name, name), t.data)


def _license(meta: Metadata, text: str | None) -> LicenseInfo:
    author = one_line(meta.text("general.author", "") or meta.text("general.organization", ""))
    name = one_line(meta.text("general.name", ""))
    notice = f"{name} by {author}" if name and author else None
    return LicenseInfo(one_line(meta.text("general.license", "")) or None, text, notice)
