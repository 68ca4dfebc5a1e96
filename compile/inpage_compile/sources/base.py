"""What every source of a model yields: its architecture, tensors, tokenizer, template and licence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid
from inpage.format.schema import Architecture, SourceRef

from ..quantize import Groups, read_groups


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor as the source stores it. ``shape``: [n] or [rows, columns]; ``format``: a name in `FORMATS`;
    ``data``: the stored bytes, a view of the mapped file. ``repeats``: how often the rows that are stored follow one
    another in the tensor."""

    name: str
    shape: tuple[int, ...]
    format: str
    data: npt.NDArray[Any] = field(repr=False)
    repeats: int = 1

    @property
    def stored_rows(self) -> int:
        return self.shape[0] // self.repeats if len(self.shape) == 2 else 1

    def stored(self) -> Groups:
        """Quants, scales and minima of the stored rows; one-dimensional tensors count as one row."""
        try:
            return read_groups(self.data, self.format, self.stored_rows, self.shape[-1])
        except ValueError as e:
            raise SourceInvalid(f"{self.name}: {e}", field=self.name) from e

    def groups(self) -> Groups:
        """As `stored`, of all rows."""
        g = self.stored()
        if self.repeats == 1:
            return g
        q, d, m = (None if part is None else np.tile(part, (self.repeats, 1)) for part in (g.q, g.d, g.m))
        assert q is not None
        return Groups(g.format, q, d, m)


def dequantize(tensor: SourceTensor) -> npt.NDArray[np.float32]:
    """The tensor's exact values as float32, in its own shape."""
    return tensor.groups().to_float32().reshape(tensor.shape)


@dataclass(frozen=True, slots=True)
class LicenseInfo:
    """``id``: an SPDX id, or None where the source names none. ``text``: the licence file that came along, if any;
    ``notice``: who made the model and what must be said about it."""

    id: str | None
    text: str | None = None
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """``json``: a Hugging Face tokenizer.json. ``special``: control tokens by text. ``eos``: ids that end an
    answer, the model's own first."""

    json: dict[str, Any] = field(repr=False)
    bos: int | None
    eos: tuple[int, ...]
    add_bos: bool
    special: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Source:
    """An opened model. ``rope_factors``: what rope frequencies are divided by, float32 [head_dim / 2], or None."""

    id: str
    name: str
    origin: SourceRef
    architecture: Architecture
    tensors: Mapping[str, SourceTensor] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)
    chat_template: str | None = field(repr=False)
    license: LicenseInfo = field(repr=False)
    rope_factors: npt.NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def tokenizer_json(self) -> dict[str, Any]:
        return self.tokenizer.json
