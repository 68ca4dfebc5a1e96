"""TIR expressions and statements by short names, for kernels of every target."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import tirx as T

Expr = Any  # a TIR expression, variable or Python number


Buffer = Any


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
