"""The shape of an encoder's steps: heads, and the sequences whose rows a step holds side by side."""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from inpage.errors import Unsupported

from .expressions import Expr, let
from .heads import EVERYTHING

_CONTEXT = 8192  # a query's weights lie on the stack, which is 64 KiB in the page
BLOCK = 16  # rows whose keys lie side by side; a step takes a multiple of them at most


@dataclass(frozen=True)
class Packing:
    """``kv_heads``: of keys and values, each of which several query heads share; ``context``: rows of one sequence at
    most; ``sequences``: of a step. ``biased``: queries, keys and values still lack their bias. ``before``, ``after``:
    tokens of its sequence on either side that a row sees beside itself. Raises `Unsupported` for what the kernels do
    not take."""

    heads: int
    kv_heads: int
    dim: int
    context: int
    sequences: int
    biased: bool = True
    before: int = EVERYTHING
    after: int = EVERYTHING

    def __post_init__(self) -> None:
        if self.dim % 8:
            message = f"head_dim: {self.dim} is not a multiple of 8, which the kernels need"
            raise Unsupported(message, field="head_dim")
        if self.context > _CONTEXT:
            message = f"context: texts of {self.context} tokens; compile it with --context {_CONTEXT} or less"
            raise Unsupported(message, field="context")

    @property
    def width(self) -> int:
        """Columns of attention's result."""
        return self.heads * self.dim

    @property
    def kv_width(self) -> int:
        """Columns of keys, and of values."""
        return self.kv_heads * self.dim

    @property
    def joined(self) -> int:
        """Columns of queries, keys and values side by side."""
        return self.width + 2 * self.kv_width

    @property
    def shared(self) -> int:
        """Query heads that read the same keys."""
        return self.heads // self.kv_heads

    @property
    def shape(self) -> str:
        """The part of a kernel's name that identifies the heads it is made for."""
        shared = "" if self.kv_heads == self.heads else f"_{self.kv_heads}"
        return f"{self.heads}{shared}_{self.dim}_{self.context}" + ("" if self.biased else "_plain")

    @property
    def label(self) -> str:
        """As `shape`, and what rows see."""
        causal = "_causal" if self.after == 0 else f"_after{self.after}" if self.after < EVERYTHING else ""
        return self.shape + causal + (f"_before{self.before}" if self.before < EVERYTHING else "")

    def seen(self, row: Expr, first: Expr, count: Expr) -> tuple[Expr, Expr]:
        """The first row that ``row`` sees of its sequence, which has ``count`` rows from ``first`` on, and how many."""
        start = first if self.before >= self.context else let(tirx.Max(first, row - self.before))
        end = first + count if self.after >= self.context else tirx.Min(first + count, row + self.after + 1)
        return start, let(end - start)


__all__ = ["BLOCK", "Packing"]
