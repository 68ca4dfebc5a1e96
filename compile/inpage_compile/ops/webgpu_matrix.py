"""`GpuOps` with matrices multiplied as subgroup matrices, which take float16 and add up in float32. What passes between
kernels is float16. A norm is not folded in, as activations before it may be more than float16 holds: a kernel puts the
rows through it that a layer's matrices then share."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.relax.frontend.nn import Tensor

from ..kernels.shared.packed import PackedMatrix
from ..kernels.webgpu import rows
from ..kernels.webgpu.linear import Input, Shape
from ..kernels.webgpu.linear_matrices import TILE_BLOCKS, MatrixShape
from ..kernels.webgpu.linear_tiles import ENOUGH, workgroups
from ..kernels.webgpu.matrix_units import MatrixUnits
from .webgpu import GpuOps, NormedActivations


@dataclass(frozen=True, kw_only=True)
class MatrixGpuOps(GpuOps):
    units: MatrixUnits

    def _shapes(self, weights: PackedMatrix, x: Input, head: bool = False) -> tuple[Shape, ...]:
        if self.tier.few is not None or head:
            return (MatrixShape(self.units),)
        large, small = (MatrixShape(self.units, rows) for rows in (64, 32))
        enough = workgroups(TILE_BLOCKS, large.rows, weights, self.tier.rows) >= ENOUGH
        return (large, small) if enough else (small, large)

    def _input(self, x: NormedActivations, w: Tensor, weights: PackedMatrix) -> tuple[list[Tensor], Input]:
        if x.norm is None:
            return super()._input(x, w, weights)
        return [self._once(x, lambda: self._normed(x, weights.columns)), w], Input(self.dtype)

    def _normed(self, x: NormedActivations, columns: int) -> Tensor:
        assert x.norm is not None and x.epsilon is not None
        func = rows.norm_rows(columns, x.epsilon, self.dtype)
        return self._call(func, [x.tensor, x.norm], self._wide(columns))


__all__ = ["MatrixGpuOps"]
