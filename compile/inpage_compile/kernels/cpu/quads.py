"""What one dot product reads: a group of 32 columns, the weights of some output rows and a row's activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..shared.expressions import Buffer, Expr, let
from ..shared.packed import GROUP
from .build import placed, view
from .isa import Isa
from .weights import Records

Made = Iterator[tuple[int, Expr]]  # (quad of output rows, float32x4)


class _Elements:
    """What stands in a buffer from some place on."""

    def __init__(self, at: Callable[[int], Expr]) -> None:
        self._at = at

    def __getitem__(self, i: int) -> Expr:
        return self._at(i)


class InputGroup:
    """A row's group of activations, in the words that the form's dot product loads, and its scales."""

    def __init__(self, x: InputView, row: Expr, group: Expr, by_offset: bool) -> None:
        words = x.of_group
        if by_offset:
            self.words: Any = placed(x.values, x.dtype, words, row, group * GROUP)
            self.scales: Any = placed(x.scales, "float32", 2, row, group, 0) if x.scales is not None else None
        else:
            first = let(row * (x.columns * words // GROUP) + group * words)
            self.words = _Elements(lambda i: x.words[first + i])
            self.scales = _Elements(lambda i: x.scales[row, group, i])


class InputView:
    """A linear layer's input, seen in the type that its form's dot product loads."""

    def __init__(self, form: str, columns: int, values: Buffer, scales: Buffer | None, rows: Expr) -> None:
        self.columns, self.values = columns, values
        self.scales: Any = scales
        self.dtype, self.of_group = {
            "f32": ("float32", GROUP), "i8": ("int32", GROUP // 4), "i16p": ("int32", GROUP // 2),
            "i16": ("int64", GROUP // 4),
        }[form]  # fmt: skip
        self.words = view(values, self.dtype, rows * (columns * self.of_group // GROUP))


@dataclass(frozen=True)
class Quads:
    """A group of 32 columns: ``quads`` of four output rows, whose quants begin at byte ``base``, and what they are
    multiplied with, a row's activations ``x``. ``acc``: running sums, float32x4, each quad's at number ``at``.
    ``place``: the record of the super-block that the group is in, and which group it is there. ``held``: what was made
    of the weights before."""

    isa: Isa
    reader: Records
    base: Expr
    quads: range
    acc: Buffer
    at: Callable[[int], Expr]
    place: tuple[Expr, Expr] | None = None
    x: Any = None  # InputGroup
    held: dict[object, Any] = field(default_factory=dict)

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        if key not in self.held:
            self.held[key] = make()
        return self.held[key]
