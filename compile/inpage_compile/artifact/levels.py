"""Levels of precision: the same model with its matrices in fewer bits, several of them in one artifact.

A level is made from the source's own numbers, by llama.cpp's mixture of its name: matrices that the source holds in
more bits are rounded, the others stay as they are, without loss. So levels have much in common, and what they share is
stored once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt

from inpage.errors import InvalidRequest, SourceInvalid

from ..families import FAMILIES, EncoderFamily
from ..quantize import FORMATS, Groups, quantize
from ..quantize.mixtures import MIXTURES, Model, fitting, format_in
from ..sources import Source, SourceTensor
from ..sources.shape import KIND as SHAPE

SOURCE = "source"  # as the source holds it
DEFAULT = "q4_k_m"  # of a source in floats
VECTORS = "q8_0"  # of a decoder in floats that answers with vectors, which fewer bits turn away further
LEVELS = (SOURCE, *MIXTURES)
_EXACT = (
    "position_embd",
    "token_types",
    "cls",
    "cls.output",
    "dense",
)  # small, and no packed matrices or a classifier's


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded(SourceTensor):
    """``original``, rounded to ``format`` when it is asked for; shape, rows and ``data`` are the original's.
    ``wanted``: the level's format, where rows do not divide into its groups and ``format`` stands in."""

    original: SourceTensor
    wanted: str

    def rows(self, which: npt.NDArray[np.intp] | slice) -> Self:
        return replace(SourceTensor.rows(self, which), original=self.original.rows(which))

    def stored(self) -> Groups:
        values = self.original.stored().to_float32()
        try:
            return quantize(values, self.format)
        except ValueError as e:
            raise SourceInvalid(f"{self.name}: {e}", field=self.name) from e


def rounded(tensor: SourceTensor, format: str, wanted: str = "") -> Rounded:
    """``tensor`` in ``format``, made of the numbers that it has now. ``wanted``: see `Rounded`; "": the same format."""
    t = tensor
    return Rounded(t.name, t.shape, format, t.data, t.repeats, t.order, original=t, wanted=wanted or format)


def default_level(source: Source) -> str:
    """`DEFAULT` for a language model whose matrices are all floats, as checkpoints are, `VECTORS` for one that answers
    with vectors; else the source's own."""
    floats = all(FORMATS[t.format].is_float for t in source.tensors.values())
    made_up = source.origin.kind == SHAPE  # its formats are what was asked for
    if not floats or made_up or isinstance(FAMILIES[source.architecture.family], EncoderFamily):
        return SOURCE
    return VECTORS if source.architecture.encoder else DEFAULT


def sources_of(source: Source, names: Sequence[str]) -> dict[str, Source]:
    """The model at each of these levels. Raises `InvalidRequest` for a name that is none, and for two levels that come
    out the same."""
    out: dict[str, Source] = {}
    for name, made in _made(source, names).items():
        twin = next((other for other in out if _formats(out[other]) == _formats(made)), None)
        if twin is not None:
            raise InvalidRequest(f"{source.id} comes out the same at levels {twin} and {name}", field="levels")
        out[name] = made
    return out


def distinct(source: Source, names: Sequence[str]) -> dict[str, Source]:
    """As `sources_of`, without those that come out as one before them."""
    found = {_formats(made): (name, made) for name, made in reversed(_made(source, names).items())}
    return dict(reversed(found.values()))


def fallbacks(source: Source) -> list[str]:
    """Of a model at a level: a line for each format whose groups do not divide the rows of matrices that it was meant
    for, with what they have instead, and which those are."""
    found: dict[tuple[str, str, int], dict[str, list[int]]] = {}
    for t in source.tensors.values():
        if isinstance(t, Rounded) and t.wanted != t.format:
            block = re.match(r"blk\.(\d+)\.", t.name)
            kind = t.name[block.end() :] if block else t.name
            layers = found.setdefault((t.wanted, t.format, t.shape[1]), {}).setdefault(kind, [])
            layers += [int(block[1])] if block else []
    return [
        f"{has} in place of {wanted}, whose groups of {FORMATS[wanted].span} do not divide rows of {columns}: "
        + "; ".join(f"blk.{_runs(layers)}.{kind}" if layers else kind for kind, layers in kinds.items())
        for (wanted, has, columns), kinds in found.items()
    ]


def _runs(layers: Sequence[int]) -> str:
    """0-2,5 of 0, 1, 2 and 5."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _made(source: Source, names: Sequence[str]) -> dict[str, Source]:
    for name in names:
        if name not in LEVELS:
            raise InvalidRequest(f"no level {name!r}; there are {', '.join(LEVELS)}", field="levels")
    return {name: _at_level(source, name) for name in dict.fromkeys(names)}


def _formats(source: Source) -> tuple[str, ...]:
    return tuple(t.format for t in source.tensors.values())


def _at_level(source: Source, level: str) -> Source:
    """The model with its matrices in that precision."""
    if level == SOURCE:
        return source
    a = source.architecture
    attending = [layer for layer in range(a.layers) if layer not in a.conv_layers]
    model = Model(a.layers, attending, a.heads // a.kv_heads, "output" not in source.tensors)
    return replace(source, tensors={name: _at(t, level, model) for name, t in source.tensors.items()})


def _at(tensor: SourceTensor, level: str, model: Model) -> SourceTensor:
    if len(tensor.shape) != 2 or tensor.name in _EXACT:
        return tensor
    wanted = format_in(level, tensor.name, model)
    format = fitting(wanted, tensor.shape[1])
    if FORMATS[tensor.format].bits <= FORMATS[format].bits:
        return tensor
    return rounded(tensor, format, wanted)
