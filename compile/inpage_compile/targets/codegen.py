"""TIR kernels → one object file for a CPU target, through TVM's LLVM code generator."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import tvm
from tvm import tirx
from tvm.target import Target

from ..passes.plain_c import plain_c


def lower(kernels: Mapping[str, tirx.PrimFunc], target: Target) -> tvm.IRModule:
    """Kernels by symbol, as plain C functions ready for code generation."""
    mod = tvm.IRModule({name: plain_c(func, name) for name, func in kernels.items()})
    mod = tirx.transform.BindTarget(target.with_host(target))(mod)
    t = tirx.transform
    passes = [
        t.FlattenBuffer(),
        t.NarrowDataType(32),
        t.VectorizeLoop(),
        t.UnrollLoop(),
        t.CommonSubexprElim(),
        t.LowerIntrin(),
    ]
    return tvm.ir.transform.Sequential(passes)(mod)


def compile_object(kernels: Mapping[str, tirx.PrimFunc], target: Target, out: Path) -> Path:
    """Write the kernels' object code to ``out``."""
    with _quiet():
        module = tvm.get_global_func("target.build.llvm")(lower(kernels, target), target)
        module.write_to_file(str(out), "o")
    return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """TVM's native side warns on stderr about vector width defaults, once a target; that is noise to our users."""
    sys.stderr.flush()
    saved = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
