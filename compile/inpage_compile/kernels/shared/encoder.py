"""The shape of an encoder's steps: heads, and the sequences whose rows a step holds side by side."""

from __future__ import annotations

from dataclasses import dataclass

from inpage.errors import Unsupported

_CONTEXT = 8192  # a query's weights lie on the stack, which is 64 KiB in the page
BLOCK = 16  # rows whose keys lie side by side; a step takes a multiple of them at most


@dataclass(frozen=True)
class Packing:
    """``context``: rows of one sequence at most; ``sequences``: of a step. Raises `Unsupported` for what the kernels do
    not take."""

    heads: int
    dim: int
    context: int
    sequences: int

    def __post_init__(self) -> None:
        if self.dim % 8:
            message = f"head_dim: {self.dim} is not a multiple of 8, which the kernels need"
            raise Unsupported(message, field="head_dim")
        if self.context > _CONTEXT:
            message = f"context: texts of {self.context} tokens; compile it with --context {_CONTEXT} or less"
            raise Unsupported(message, field="context")

    @property
    def width(self) -> int:
        return self.heads * self.dim

    @property
    def label(self) -> str:
        """The part of a kernel's name that identifies what it is made for."""
        return f"{self.heads}_{self.dim}_{self.context}"


__all__ = ["BLOCK", "Packing"]
