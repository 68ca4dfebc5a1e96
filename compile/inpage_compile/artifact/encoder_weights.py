"""An encoder's tensors in the order of its graph: see `weights`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..families import EncoderFamily
from ..quantize.tensor import SourceTensor, dequantize
from ..sources import Source

Planned = tuple[str, tuple[int, ...], str, str, Callable[[], npt.NDArray[Any]]]
Matrix = Callable[[str, Sequence[SourceTensor], bool], Planned]


def order(source: Source, family: EncoderFamily, matrix: Matrix) -> Iterable[Planned]:
    """``matrix``: makes a packed one of rows that follow one another, or are interleaved by 16."""
    tensors, a = source.tensors, source.architecture
    turned = family.head_order(a.head_dim, source.rope.turning)
    yield matrix("token_embd", [tensors["token_embd"]], False)
    if family.rotary:
        for name, frequencies in source.rope.tables(a).items():
            yield (name, frequencies.shape, "f32", "raw", partial(frequencies.view, np.uint8))
    else:
        yield _floats("position_embd", [tensors["position_embd"]], a.context * a.hidden)
    if a.token_types:
        yield _floats("token_types", [tensors["token_types"]], a.token_types * a.hidden)
    yield _floats("embd_norm", [tensors["token_embd_norm"]], a.hidden)
    yield _floats("embd_norm_bias", [tensors["token_embd_norm.bias"]], a.hidden)
    for i in range(a.layers):
        for name, parts in family.matrices().items():
            own = [tensors[f"blk.{i}.{part}"] for part in parts]
            if name == "attn_qkv" and family.rotary:
                own = [*(reordered(t, turned) for t in own[:2]), own[2]]
            yield matrix(f"blk.{i}.{name}", own, name == "ffn_gate_up")
        for name, parts in family.vectors().items():
            own = [tensors[f"blk.{i}.{part}"] for part in parts]
            yield _floats(f"blk.{i}.{name}", own, sum(t.shape[0] for t in own))
    if a.labels:
        yield matrix("head_dense", [tensors["cls"]], False)
        yield _floats("head_dense_bias", [tensors["cls.bias"]], a.hidden)
        yield matrix("head_out", [tensors["cls.output"]], False)
        yield _floats("head_out_bias", [tensors["cls.output.bias"]], a.labels)


def of_heads(order: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
    """``order`` within a head, for all the heads of ``size`` elements."""
    starts = np.arange(0, size, len(order))
    return (starts[:, None] + order).reshape(-1)


def reordered(t: SourceTensor, order: npt.NDArray[np.intp] | None) -> SourceTensor:
    """The rows of each head in another order."""
    return t if order is None else replace(t, order=of_heads(order, t.shape[0]))


def _floats(name: str, parts: Sequence[SourceTensor], size: int) -> Planned:
    """The first ``size`` numbers of the parts behind one another, row by row."""

    def make() -> npt.NDArray[Any]:
        values = np.concatenate([dequantize(t).reshape(-1) for t in parts])[:size]
        return np.ascontiguousarray(values).view(np.uint8)

    return (name, (size,), "f32", "raw", make)
