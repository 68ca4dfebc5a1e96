"""Random matrices in GGML's blocks, for models by shape and for tests: quants and sub-scales are random bits."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from inpage.format.schema import tensor_bytes

from .formats import FORMATS
from .ggml import dequantize

# Of what the `gguf` package does not quantize: where a block's f16 scale is, in bytes, then, where there is one, that
# of its sub-minima.
_SCALES = {
    "q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,), "iq4_nl": (0,), "iq4_xs": (0,),
}  # fmt: skip


def noise(rng: np.random.Generator, format: str, rows: int, columns: int, deviation: float) -> npt.NDArray[np.uint8]:
    """A matrix of this standard deviation, mean about 0: its bytes, uint8 [rows, bytes of a row]."""
    if format not in _SCALES:
        values = rng.standard_normal((rows, columns), np.float32) * np.float32(deviation)
        data = gguf.quants.quantize(values, gguf.GGMLQuantizationType[format.upper()])
        return np.ascontiguousarray(data).view(np.uint8)
    fmt = FORMATS[format]
    size = tensor_bytes(fmt, "rows16", (16, fmt.span)) // 16
    blocks = rng.integers(0, 256, (rows, columns // fmt.span, size), np.uint8)
    middle = ((1 << fmt.bits) - 1) / 2  # a minimum takes what scale · quant is on average

    def scale(by: float) -> None:
        for at, factor in zip(_SCALES[format], (1.0, middle), strict=False):
            blocks[:, :, at : at + 2] = _half(by * factor)

    scale(1.0)
    own = float(dequantize(blocks, format, rows, columns).std())
    scale(deviation / own)
    return blocks.reshape(rows, -1)


def _half(value: float) -> npt.NDArray[Any]:
    return np.array([value], np.float16).view(np.uint8)
