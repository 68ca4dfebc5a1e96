"""Levels of precision: the same model with its matrices in fewer bits, several of them in one artifact.

A level is made from the source's own numbers: matrices that the source holds in more bits are rounded as ggml rounds
them, the others stay as they are, without loss. Token embedding and head keep eight bits at least, as their errors are
every token's. So levels have much in common, and what they share is stored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import gguf
import numpy as np

from inpage.errors import InvalidRequest

from ..quantize import FORMATS, Groups, read_groups
from ..sources import Source, SourceTensor

SOURCE = "source"  # as the source holds it
LEVELS = (SOURCE, "f16", "q8_0", "q4_1", "q4_0")
_WIDE = ("token_embd", "output")
_WIDE_LEAST = "q8_0"
_EXACT = ("position_embd", "token_types", "cls", "cls.output")  # small, and no packed matrices or a classifier's


@dataclass(frozen=True, slots=True)
class Rounded(SourceTensor):
    """A tensor rounded to ``format`` when it is asked for; ``data`` is the original's, and ``original`` its format."""

    original: str = "f32"

    def stored(self) -> Groups:
        columns = self.shape[-1]
        values = read_groups(self.data, self.original, self.stored_rows, columns).to_float32()
        raw = gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType[self.format.upper()])
        return read_groups(raw, self.format, self.stored_rows, columns)


def _at_level(source: Source, level: str) -> Source:
    """The model with its matrices in that precision."""
    if level == SOURCE:
        return source
    return replace(source, tensors={name: _at(t, level) for name, t in source.tensors.items()})


def sources_of(source: Source, names: Sequence[str]) -> dict[str, Source]:
    """The model at each of these levels. Raises `InvalidRequest` for a name that is none, and for two levels that come
    out the same."""
    for name in names:
        if name not in LEVELS:
            raise InvalidRequest(f"no level {name!r}; there are {', '.join(LEVELS)}", field="levels")
    out: dict[str, Source] = {}
    seen: dict[tuple[str, ...], str] = {}
    for name in dict.fromkeys(names):
        out[name] = _at_level(source, name)
        formats = tuple(t.format for t in out[name].tensors.values())
        if formats in seen:
            raise InvalidRequest(f"{source.id} comes out the same at levels {seen[formats]} and {name}", field="levels")
        seen[formats] = name
    return out


def _at(tensor: SourceTensor, level: str) -> SourceTensor:
    wanted = _WIDE_LEAST if tensor.name in _WIDE and FORMATS[level].bits < FORMATS[_WIDE_LEAST].bits else level
    target = FORMATS[wanted]
    if (
        len(tensor.shape) != 2
        or tensor.name in _EXACT
        or FORMATS[tensor.format].bits <= target.bits
        or tensor.shape[1] % target.group
    ):
        return tensor
    return Rounded(tensor.name, tensor.shape, wanted, tensor.data, tensor.repeats, tensor.order, original=tensor.format)
