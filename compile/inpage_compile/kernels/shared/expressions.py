"""TIR expressions and statements by short names, for kernels of every target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tvm import tirx
from tvm.script.ir_builder import tirx as T


class Expr(Protocol):
    """A TIR expression, variable or whole number. TVM is untyped: this is what mypy knows of its expressions, so that
    None, a text or a tuple in a kernel's arithmetic is refused."""

    def __add__(self, other: Any, /) -> Any: ...
    def __radd__(self, other: Any, /) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...
    def __rsub__(self, other: Any, /) -> Any: ...
    def __mul__(self, other: Any, /) -> Any: ...
    def __rmul__(self, other: Any, /) -> Any: ...
    def __floordiv__(self, other: Any, /) -> Any: ...
    def __rfloordiv__(self, other: Any, /) -> Any: ...
    def __mod__(self, other: Any, /) -> Any: ...
    def __lshift__(self, other: Any, /) -> Any: ...
    def __rshift__(self, other: Any, /) -> Any: ...
    def __and__(self, other: Any, /) -> Any: ...
    def __or__(self, other: Any, /) -> Any: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...
    def __neg__(self) -> Any: ...


Buffer = Any  # a TIR buffer


@contextmanager
def loop(extent: Expr, start: Expr = 0) -> Iterator[Any]:
    with T.serial(start, extent) as i:
        yield i


@contextmanager
def when(condition: Expr) -> Iterator[None]:
    with T.If(condition), T.Then():
        yield


def let(value: Expr) -> Any:
    """Name a value so that it is computed once."""
    return T.Bind(value)


def store(buffer: Buffer, value: Expr, *index: Expr) -> None:
    T.buffer_store(buffer, value, list(index))


def cast(dtype: str, value: Expr) -> Expr:
    return tirx.Cast(dtype, value)


def f32(value: float) -> Expr:
    return tirx.const(value, "float32")


def i32(value: int) -> Expr:
    return tirx.const(value, "int32")
