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
from inpage.format.schema import ARCHITECTURE_LIMITS, Architecture, SourceRef
from inpage.format.structure import one_line

from ..families import family_of
from ..families.family import check_tensors
from ..gguf.header import check_header
from ..gguf.metadata import Metadata
from ..quantize import format_of
from ..quantize.tensor import SourceTensor, dequantize
from ..tokenizers.gguf import build_tokenizer
from .base import LicenseInfo, Source

ROPE_FACTORS = "rope_freqs"


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
    factors = tensors.pop(ROPE_FACTORS, None)
    architecture = _architecture(meta, tensors)
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
        rope_factors=_rope_factors(meta, architecture, factors),
    )


def _tensor(t: ReaderTensor) -> SourceTensor:
    name = t.name.removesuffix(".weight")
    shape = tuple(int(n) for n in reversed(t.shape))
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > 2:
        raise SourceInvalid(f"{name}: {len(shape)} dimensions, expected 1 or 2", field=name)
    return SourceTensor(name, shape, format_of(t.tensor_type.name, name), t.data)


def _architecture(meta: Metadata, tensors: dict[str, SourceTensor]) -> Architecture:
    known = family_of(meta.text("general.architecture"), "general.architecture")
    family = known.name
    if meta.integer(f"{family}.expert_count", 0):
        raise SourceInvalid("mixtures of experts are not supported", field=f"{family}.expert_count")
    if "token_embd" not in tensors:
        raise SourceInvalid("tensor token_embd.weight is missing", field="token_embd")
    hidden = _size(meta, f"{family}.embedding_length", "hidden")
    heads = _size(meta, f"{family}.attention.head_count", "heads")
    kv_heads = _size(meta, f"{family}.attention.head_count_kv", "kv_heads", heads)
    if heads % kv_heads:
        raise SourceInvalid(
            f"{heads} heads do not divide among {kv_heads} key/value heads",
            field=f"{family}.attention.head_count_kv",
        )
    head_dim = _size(meta, f"{family}.attention.key_length", "head_dim", max(hidden // heads, 1))
    for key, what in (("attention.value_length", "value heads"), ("rope.dimension_count", "partial rotary")):
        if meta.integer(f"{family}.{key}", head_dim) != head_dim:
            raise SourceInvalid(f"{what} of another width than key heads: unsupported", field=f"{family}.{key}")
    if head_dim % 2:
        raise SourceInvalid(f"a head of {head_dim}: must be even", field=f"{family}.attention.key_length")
    return Architecture(
        family=family,
        layers=_size(meta, f"{family}.block_count", "layers"),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=_size(meta, f"{family}.feed_forward_length", "ffn"),
        vocab=tensors["token_embd"].shape[0],
        rope_theta=meta.number(f"{family}.rope.freq_base", 10000.0),
        norm_eps=meta.number(f"{family}.attention.layer_norm_rms_epsilon"),
        tied="output" not in tensors,
        context=_size(meta, f"{family}.context_length", "context"),
        qkv_bias=known.qkv_bias,
        qk_norm=known.qk_norm,
    )


def _size(meta: Metadata, key: str, name: str, default: int | None = None) -> int:
    """A whole number of the architecture, within the schema's limit for ``name``."""
    v, limit = meta.integer(key, default), ARCHITECTURE_LIMITS[name]
    if not 1 <= v <= limit:
        raise SourceInvalid(f"{key}: {v} is outside 1..{limit}", field=key)
    return v


def _rope_factors(meta: Metadata, a: Architecture, tensor: SourceTensor | None) -> npt.NDArray[np.float32] | None:
    """Per-frequency divisors: the ``rope_freqs`` tensor (Llama 3) or linear scaling's one factor."""
    scaling = meta.text(f"{a.family}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise SourceInvalid(f"rope scaling {scaling!r} is not supported", field=f"{a.family}.rope.scaling.type")
    factors = np.ones(a.head_dim // 2, np.float32)
    if tensor is not None:
        if tensor.shape != factors.shape:
            raise SourceInvalid(f"{ROPE_FACTORS}: shape {list(tensor.shape)}", field=ROPE_FACTORS)
        factors = dequantize(tensor)
    if scaling == "linear":
        factors = factors * np.float32(meta.number(f"{a.family}.rope.scaling.factor"))
    if not np.all(np.isfinite(factors)) or not np.all(factors > 0):
        raise SourceInvalid("rope factors must be positive", field=ROPE_FACTORS)
    return None if np.all(factors == 1) else factors


def _license(meta: Metadata, text: str | None) -> LicenseInfo:
    author = one_line(meta.text("general.author", "") or meta.text("general.organization", ""))
    name = one_line(meta.text("general.name", ""))
    notice = f"{name} by {author}" if name and author else None
    return LicenseInfo(one_line(meta.text("general.license", "")) or None, text, notice)
