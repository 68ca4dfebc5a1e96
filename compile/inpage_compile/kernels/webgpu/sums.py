"""What the sums of a linear layer are made of, and in which order: that is the same for one row and for many."""

from __future__ import annotations

from dataclasses import dataclass

from ..shared.packed import GROUP
from .build import Args, Buffer, Expr, call, cast, f32, let

_SHARES = (16, 32, 64)
_GROUPS = 4  # of a share, where shares are more than the fewest


def shares_of(columns: int) -> int:
    """How many parts a row's sum has: more of long rows, so that a few thousand outputs are enough threads to keep a
    large GPU's memory busy. Nothing but the columns decides: each number gives other bits."""
    fewest, *more = _SHARES
    return max([fewest, *(n for n in more if n * _GROUPS <= columns // GROUP)])


def share_bounds(share: Expr, columns: int, shares: int = 0) -> tuple[Expr, Expr]:
    """Of one of ``shares`` (0: `shares_of`): its first 32 columns' number, and the number behind its last ones'."""
    groups, shares = columns // GROUP, shares or shares_of(columns)
    return let(share * groups // shares), let((share + 1) * groups // shares)


def threads_of(columns: int) -> int:
    """Of a workgroup of `FewRows`: a quad of outputs and a share each."""
    return 4 * shares_of(columns)


@dataclass(frozen=True)
class Input:
    """``dtype`` of the activations; ``epsilon`` of the norm to fold in, if any. ``int8``: they are multiplied as whole
    numbers of 8 bits, rounded by the kernel itself or, of dtype uint32, before it (`quantize_rows`)."""

    dtype: str
    epsilon: float | None = None
    int8: bool = False

    @property
    def quantized(self) -> bool:
        """Whether they are `quantize_rows`' records, which the norm's weight is part of."""
        return self.int8 and self.dtype == "uint32"

    @property
    def mark(self) -> str:
        return ("_norm" if self.epsilon is not None else "") + ("_q8" if self.quantized else "_int8" * self.int8)


class Inputs:
    """Activations, weights and the norm's weight, as a kernel declares them. ``few``: rows; of few that are quantized
    single words are read. ``alone``: without weights, and bound as if they were written."""

    def __init__(self, a: Args, x: Input, few: bool = False, alone: bool = False) -> None:
        self.int8, self.quantized = x.int8, x.quantized
        self.x_type, self.epsilon = "uint32" if x.quantized and few else f"{x.dtype}x4", x.epsilon
        self.x = a.buffer("x", self.x_type, "x" if alone else "r")
        self.w: Buffer = None if alone else a.buffer("w", "uint32x4")
        self.norm: Buffer = None if x.epsilon is None or x.quantized else a.buffer("norm", "float32x4")

    def read(self, at: Expr, norm: Expr) -> Expr:
        """Four activations, float32x4, times the norm's weights."""
        value = cast("float32x4", self.x[at])
        return let(value if norm is None else value * norm)

    def inverse_rms(self, squares: Expr, columns: int) -> Expr:
        """1/rms of a row by the sum of its squares."""
        assert self.epsilon is not None
        return call("float32", "inverseSqrt", squares * f32(1.0 / columns) + f32(self.epsilon))


__all__ = ["Input", "Inputs", "shares_of", "threads_of"]
