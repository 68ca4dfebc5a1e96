"""Products of small matrices by a GPU's matrix units: WGSL's subgroup matrices, behind a feature of Chromium that is
still an experiment.

TIR has no such values. A local buffer stands for some of them, and void functions for what is done with them: here they
are called, and `targets.webgpu` writes them as WGSL has them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from .build import Buffer, Expr, T, i32, let, local

TEAM = 32  # threads; adapters have subgroups of so many, or of fewer, of which one works


@dataclass(frozen=True)
class MatrixUnits:
    """``m`` rows by ``n`` outputs of float32, added to by ``k`` columns of float16 at once."""

    m: int
    n: int
    k: int

    def __str__(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"

    def matrices(self, count: int) -> Buffer:
        """So many matrices of one kind; which kind, their first use says."""
        return local(count, "float32")

    def zero(self, sums: Buffer, i: int) -> None:
        self._do("zero", sums.data, i32(i))

    def load_left(self, values: Buffer, i: int, memory: Buffer, at: Expr, stride: int) -> None:
        """[m][k] of float16 in the workgroup's memory, a row every ``stride`` elements."""
        self._do("left", values.data, i32(i), memory.data, let(at), i32(stride))

    def load_right(self, values: Buffer, i: int, memory: Buffer, at: Expr, stride: int) -> None:
        """[n][k]: its columns, one every ``stride`` elements."""
        self._do("right", values.data, i32(i), memory.data, let(at), i32(stride))

    def multiply_accumulate(self, sums: Buffer, i: int, left: Buffer, l: int, right: Buffer, r: int) -> None:
        """sums[i] += left[l] · right[r]."""
        self._do("multiply", sums.data, i32(i), left.data, i32(l), right.data, i32(r))

    def store(self, sums: Buffer, i: int, memory: Buffer, at: Expr, stride: int) -> None:
        """[m][n] of float32 in the workgroup's memory."""
        self._do("store", sums.data, i32(i), memory.data, let(at), i32(stride))

    def _do(self, what: str, *args: Expr) -> None:
        T.evaluate(tirx.call_extern("void", f"matrix_{what}_{self}", *args))


__all__ = ["TEAM", "MatrixUnits"]
