"""Reading memory while what was read before is multiplied."""

from __future__ import annotations

from typing import Any

from .build import Buffer, Expr, let, local, store


class Ahead:
    """A buffer of which everything is read twice, in the same order: from memory into registers, while the columns
    before are multiplied, and out of these. What is computed of the first reading is not used, and `targets.webgpu`
    leaves it out."""

    def __init__(self, buffer: Buffer, dtype: str) -> None:
        self.buffer, self.dtype = buffer, dtype
        self.registers: list[Buffer] = []
        self.next = 0
        self.fetching = True

    def again(self, *, fetching: bool) -> None:
        """From the first one on: from memory, or out of registers."""
        self.next, self.fetching = 0, fetching

    def __getitem__(self, at: Expr) -> Any:
        n, self.next = self.next, self.next + 1
        if not self.fetching:
            return self.registers[n][0]
        if n == len(self.registers):
            self.registers.append(local(1, self.dtype))
        value = let(self.buffer[at])
        store(self.registers[n], value, 0)
        return value


__all__ = ["Ahead"]
