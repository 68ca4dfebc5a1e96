"""`FewRows`, whose four threads of a share read its activations together, for adapters that have subgroups.

Each of them reads a quarter of 32 columns, multiplies it by the norm's weights and adds up its squares; the others get
the products from its registers. So a thread loads 2 vectors of a row and 2 of the norm's weights where `FewRows` loads
8 of both, and squares ask for no loads of their own. Every value and every sum is `FewRows`' to the bit.

All that threads pass to each other stays within four lanes, which a subgroup of any size has, and is passed where the
whole workgroup runs along. Threads must lie in subgroups in their order: web/engine/webgpu/subgroups.js makes sure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..shared.packed import GROUP
from .build import WORKGROUP_BYTES, Args, Buffer, Expr, call, cast, lane, let, loop, madd, store, u32, vector, when
from .linear_rows import FewRows
from .sums import share_bounds
from .weights import Four, QuadReader


@dataclass(frozen=True)
class SharedReads:
    """A workgroup's ``rows``, few enough for all of their activations to be in registers at once."""

    rows: int

    def __str__(self) -> str:
        return f"{self.rows}_subgroups"


class SharedRows(FewRows):
    """One workgroup's sums: see `FewRows`."""

    def __init__(self, a: Args, *args: Any) -> None:
        super().__init__(a, *args)
        self.first = let(a.subgroup_lane() & u32(0xFFFFFFFC))  # of the four
        self.there: Expr = None  # whether this thread has columns in this turn, where not all threads do

    @contextmanager
    def _groups(self) -> Iterator[Expr]:
        """The same number of turns for all threads: those without columns read some that are another's."""
        groups = self.weights.columns // GROUP
        low, high = share_bounds(self.share, self.weights.columns)
        with loop(-(-groups // self.shares)) as i:
            group = let(low + i)
            if groups % self.shares:
                self.there = let(group < high)
                group = let(tirx.Min(group, groups - 1))
            self._read(group)
            yield group

    def _read(self, group: Expr) -> None:
        """This thread's quarter: as squares want it, and as products do."""
        places = [let(group * (GROUP // 4) + self.quad * 2 + v) for v in range(2)]
        self.own = [[self.inputs.read(start + at, None) for at in places] for start in self.starts]
        self.normed = self.own
        if self.inputs.norm is not None:
            norms = [let(self.inputs.norm[at]) for at in places]
            self.normed = [[let(x * n) for x, n in zip(own, norms, strict=True)] for own in self.own]

    def _if_there(self) -> Any:
        return nullcontext() if self.there is None else when(self.there)

    def _add_four(self, reader: QuadReader, quants: list[Four], group: Expr, four: Expr) -> None:
        owner, odd = let(self.first + cast("uint32", four // 2)), let(four % 2 == 1)
        xs = {}
        for r, own in enumerate(self.normed):
            value = let(tirx.Select(odd, own[1], own[0]))
            xs[r] = let(call("float32x4", "subgroupShuffle", value, owner))
        with self._if_there():
            self._add([reader.columns(of) for of in quants], xs)

    def _add_squares(self, squares: Buffer, group: Expr) -> None:
        with self._if_there():
            for v in range(2):
                for r, own in enumerate(self.own):
                    store(squares, madd(own[v], own[v], squares[r]), r)

    def _blocks_at_once(self, each: int) -> int:
        """All of them, where there is room: two barriers less."""
        more = (self.blocks - 1) * self.room * self.threads * 16
        return self.blocks if self.room == self.tile and self.room * each + more <= WORKGROUP_BYTES else 1

    def _room_for_squares(self, a: Args) -> Buffer:
        return a.workgroup(self.room * self.shares, "float32x4")

    def _leave_squares(self, row: int, own: Expr) -> None:
        own = let(own)
        four = let(vector(*(let(call("float32", "quadBroadcast", own, u32(n))) for n in range(4))))
        with when(self.quad == 0):
            store(self.squares, four, row * self.shares + self.share)

    def _sum_squares(self, total: Buffer, row: Expr) -> None:
        with loop(self.shares) as share:
            four = let(self.squares[row * self.shares + share])
            for n in range(4):
                store(total, total[0] + lane(four, n), 0)


__all__ = ["SharedReads", "SharedRows"]
