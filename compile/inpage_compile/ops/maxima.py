"""How much one step takes."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernels.shared.heads import PAGE


@dataclass(frozen=True)
class Maxima:
    """What one step can take."""

    rows: int
    sequences: int
    logit_rows: int
    context: int

    @property
    def blocks(self) -> int:
        """KV pages of one sequence at most."""
        return -(-self.context // PAGE)
