"""An encoder's tensors in the order of its graph: see `weights`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..families.encoder import LAYER_MATRICES, LAYER_VECTORS
from ..quantize.tensor import SourceTensor, dequantize
from ..sources import Source

Planned = tuple[str, tuple[int, ...], str, str, Callable[[], npt.NDArray[Any]]]
Matrix = Callable[[str, Sequence[SourceTensor]], Planned]


def order(source: Source, matrix: Matrix) -> Iterable[Planned]:
    """``matrix``: makes a packed one of rows that follow one another."""
    tensors, a = source.tensors, source.architecture
    yield matrix("token_embd", [tensors["token_embd"]])
    yield _floats("position_embd", [tensors["position_embd"]], a.context * a.hidden)
    if a.token_types:
        yield _floats("token_types", [tensors["token_types"]], a.token_types * a.hidden)
    yield _floats("embd_norm", [tensors["token_embd_norm"]], a.hidden)
    yield _floats("embd_norm_bias", [tensors["token_embd_norm.bias"]], a.hidden)
    for i in range(a.layers):
        for name, parts in {**LAYER_MATRICES, **LAYER_VECTORS}.items():
            own = [tensors[f"blk.{i}.{part}"] for part in parts]
            if name in LAYER_MATRICES:
                yield matrix(f"blk.{i}.{name}", own)
            else:
                yield _floats(f"blk.{i}.{name}", own, sum(t.shape[0] for t in own))
    if a.labels:
        yield matrix("head_dense", [tensors["cls"]])
        yield _floats("head_dense_bias", [tensors["cls.bias"]], a.hidden)
        yield matrix("head_out", [tensors["cls.output"]])
        yield _floats("head_out_bias", [tensors["cls.output.bias"]], a.labels)


def _floats(name: str, parts: Sequence[SourceTensor], size: int) -> Planned:
    """The first ``size`` numbers of the parts behind one another, row by row."""

    def make() -> npt.NDArray[Any]:
        values = np.concatenate([dequantize(t).reshape(-1) for t in parts])[:size]
        return np.ascontiguousarray(values).view(np.uint8)

    return (name, (size,), "f32", "raw", make)
