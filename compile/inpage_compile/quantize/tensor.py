"""A tensor as its source stores it."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from inpage.errors import SourceInvalid

from . import Groups, read_groups


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor as the source stores it. ``shape``: [n] or [rows, columns]; ``format``: a name in `FORMATS`;
    ``data``: the stored bytes, a view of the mapped file. ``repeats``: how often the rows that are stored follow one
    another in the tensor. ``order``: which row of those each of the tensor's rows is, where they change places."""

    name: str
    shape: tuple[int, ...]
    format: str
    data: npt.NDArray[Any] = field(repr=False)
    repeats: int = 1
    order: npt.NDArray[np.intp] | None = field(default=None, repr=False)

    @property
    def stored_rows(self) -> int:
        return self.shape[0] // self.repeats if len(self.shape) == 2 else 1

    def rows(self, which: npt.NDArray[np.intp] | slice) -> Self:
        """A matrix of those of the stored rows, in that order. Where ``data`` is not all that a row has, a subclass
        takes the rest as well."""
        data = self.data.reshape(self.stored_rows, -1)[which]
        return replace(self, shape=(len(data), self.shape[1]), data=data, repeats=1, order=None)

    def stored(self) -> Groups:
        """Quants, scales and minima of the stored rows; one-dimensional tensors count as one row."""
        try:
            return read_groups(self.data, self.format, self.stored_rows, self.shape[-1])
        except ValueError as e:
            raise SourceInvalid(f"{self.name}: {e}", field=self.name) from e

    def groups(self) -> Groups:
        """As `stored`, of all rows."""
        g = self.stored()
        if self.repeats > 1:
            g = g.rows(lambda part: np.tile(part, (self.repeats, 1)))
        return g if self.order is None else g.rows(lambda part: part[self.order])


class Mapped:
    """The files that tensors are views of. What is read of a mapped file is held in memory until something else needs
    the room: `forget` gives it back, so that what a compile holds does not grow with the model."""

    def __init__(self, tensors: Iterable[SourceTensor]) -> None:
        found = (_mapping(t.data) for t in tensors)
        self._files = list({id(file): file for file in found if file is not None}.values())

    def forget(self) -> None:
        """Pages that were read leave memory; the next read brings them again, from the system's cache."""
        if sys.platform != "win32":
            for file in self._files:
                file.madvise(mmap.MADV_DONTNEED)


def _mapping(data: Any) -> mmap.mmap | None:
    while isinstance(data, np.ndarray):
        data = data.base
    return data if isinstance(data, mmap.mmap) else None


def dequantize(tensor: SourceTensor) -> npt.NDArray[np.float32]:
    """The tensor's exact values as float32, in its own shape."""
    return tensor.groups().to_float32().reshape(tensor.shape)
