"""Write what the page needs to try every kernel: ``python kernel_cases.py OUT``, for each WebAssembly instruction set

- ``<isa>.wasm``: one module of all kernels of `kernel_content`, behind the real runtime and linker. Kernel 2i of its
  table is a kernel as it is; 2i + 1 the same in three shares, as three threads would take them, the last first;
- ``<isa>.json``: the cases, with offsets into
- ``<isa>.bin``: inputs, expected outputs and tolerances.

What was written stays until the compiler or the tests' code changes.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kernel_content import Case, all_cases
from tvm import tirx

from inpage_compile.artifact.fingerprint import compiler_hash
from inpage_compile.targets.codegen import compile_object
from inpage_compile.targets.link import link_wasm
from inpage_compile.targets.variants import all_variants
from support import kernel_reference, weights

SHARES = 3


class Blob:
    """Arrays one after another, 8-aligned; equal ones once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, int] = {}

    def put(self, array: npt.NDArray[Any]) -> int:
        content = np.ascontiguousarray(array).tobytes()
        key = hashlib.sha256(content).digest()
        if key not in self._places:
            self.data += bytes(-len(self.data) % 8)
            self._places[key] = len(self.data)
            self.data += content
        return self._places[key]


def split(func: tirx.PrimFunc) -> tuple[list[str], list[str]]:
    """Names of a kernel's buffers and of its scalars."""
    buffers = [p.name for p in func.params if isinstance(p.ty, tirx.BufferType)]
    return buffers, [p.name for p in func.params if not isinstance(p.ty, tirx.BufferType)]


def describe(case: Case, kernel: int, blob: Blob) -> dict[str, Any]:
    """One case for the page: buffers in the kernel's order, each with what it holds before and must hold after."""
    names, scalars = split(case.kernel)
    assert {*case.inputs, *case.outputs} == set(names) and set(case.scalars) == set(scalars), (
        case.name,
        names,
        scalars,
    )
    buffers = []
    for name in names:
        entry: dict[str, Any] = {"name": name}
        if name in case.inputs:
            entry |= {"input": blob.put(case.inputs[name]), "bytes": case.inputs[name].nbytes}
        if name in case.outputs:
            out = case.outputs[name]
            entry |= {"dtype": out.dtype, "bytes": out.want.size * np.dtype(out.dtype).itemsize}
            entry |= {"want": blob.put(out.want), "tolerance": blob.put(out.tolerance), "count": out.want.size}
        buffers.append(entry)
    values = [case.scalars[name] for name in scalars]
    return {"family": case.family, "name": case.name, "kernel": kernel, "scalars": values, "buffers": buffers}


def table(kernels: Mapping[str, tirx.PrimFunc]) -> str:
    """C source of the kernel table, each kernel whole and in shares."""
    lines, entries = ['#include "abi.h"', ""], []
    for symbol, func in kernels.items():
        buffers, scalars = split(func)
        types = ["void *"] * len(buffers) + ["int32_t"] * (len(scalars) + 2)
        values = [f"b[{i}]" for i in range(len(buffers))] + [f"s[{i}]" for i in range(len(scalars))]
        head = "(void *const *b, const int32_t *s, int32_t thread, int32_t threads)"
        lines += [
            f"void {symbol}({', '.join(types)});",
            f"static void whole_{symbol}{head} {{ {symbol}({', '.join(values)}, thread, threads); }}",
            f"static void shares_{symbol}{head} {{",
            f"  if (thread == 0 && threads == 1) for (int32_t i = {SHARES}; i-- > 0;)",
            f"    {symbol}({', '.join(values)}, i, {SHARES});",
            "}",
        ]
        entries += [f"whole_{symbol}", f"shares_{symbol}"]
    lines += [f"const inpage_kernel inpage_kernels[] = {{{', '.join(entries)}}};"]
    lines += [f"const int32_t inpage_kernel_shares[] = {{{', '.join('0' for _ in entries)}}};"]
    return "\n".join([*lines, f"const int32_t inpage_kernel_count = {len(entries)};", ""])


def write(name: str, out: Path) -> None:
    spec = all_variants()[name]
    kernels: dict[str, tirx.PrimFunc] = {}
    index: dict[tirx.PrimFunc, int] = {}
    blob = Blob()
    cases = []
    for case in all_cases(spec.isa):
        if case.kernel not in index:
            index[case.kernel] = len(kernels)
            kernels[f"k{len(kernels)}"] = case.kernel
        cases.append(describe(case, index[case.kernel], blob))
    obj = compile_object(kernels, spec.target(), out / f"{name}.o")
    source = out / f"{name}.c"
    source.write_text(table(kernels))
    link_wasm([obj], source, out / f"{name}.wasm", relaxed=spec.isa.name == "wasm-relaxed")
    (out / f"{name}.bin").write_bytes(blob.data)
    (out / f"{name}.json").write_text(json.dumps(cases))


def once(out: Path, make: Callable[[], None], *content: str) -> None:
    """Fill the folder ``out``, unless it was filled by the same compiler, the same caller and the same tests' code.
    ``content``: the caller's files with the cases, beside it."""
    out.mkdir(parents=True, exist_ok=True)
    sources = [Path(inspect.getfile(make)), *(Path(__file__).with_name(name) for name in content)]
    sources += [Path(str(module.__file__)) for module in (kernel_reference, weights)]
    key = hashlib.sha256(compiler_hash().encode() + b"".join(p.read_bytes() for p in sources)).hexdigest()
    mark = out / "made-from"
    if mark.is_file() and mark.read_text() == key:
        return
    mark.unlink(missing_ok=True)
    make()
    mark.write_text(key)


def main(out: Path) -> None:
    def make() -> None:
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
            for done in [pool.submit(write, name, out) for name in ("wasm-relaxed", "wasm-simd")]:
                done.result()

    once(out, make, "kernel_content.py")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
