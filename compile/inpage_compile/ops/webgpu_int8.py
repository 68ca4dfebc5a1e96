"""`GpuOps` with matrices multiplied in 8 bits where their quants are whole numbers; the rest, and what passes between
kernels, is float32. Of one row each kernel rounds its input itself, so that a decode step has no dispatch more; of many
rows a kernel does it once."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvm.relax.frontend.nn import Tensor

from ..kernels.shared.packed import PackedMatrix
from ..kernels.webgpu.linear import Input
from ..kernels.webgpu.quantize_rows import quantize_rows, words_of
from ..kernels.webgpu.weights import multiplies_int8
from .webgpu import GpuOps, NormedActivations

INT8 = "int8"  # among a variant's activations


@dataclass(frozen=True)
class Int8GpuOps(GpuOps):
    def _input(self, x: NormedActivations, w: Tensor, weights: PackedMatrix) -> tuple[list[Tensor], Input]:
        if not multiplies_int8(weights.format):
            return super()._input(x, w, weights)
        if self.tier.rows == 1:
            args, folded = super()._input(x, w, weights)
            return args, replace(folded, int8=True)
        return [self._once(x, lambda: self._quantized(x, weights.columns)), w], Input("uint32", x.epsilon, int8=True)

    def _quantized(self, x: NormedActivations, columns: int) -> Tensor:
        count = self.logit_rows if x.head else self.rows
        args = [x.tensor, *([] if x.norm is None else [x.norm])]
        out = Tensor.placeholder([count, words_of(columns)], "uint32")
        return self._call(quantize_rows(columns, str(x.tensor.dtype), x.epsilon), args, out, count)


__all__ = ["INT8", "Int8GpuOps"]
