"""Calling single kernels as an engine does: TVM's object code in a shared library, one C call a thread.

Outputs lie between guard bytes and start out poisoned, so that a write too far, or one that is missing, shows.
Libraries are kept in build/tests/kernels until the compiler, or the test that asks for them, changes.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from inpage_compile.artifact.fingerprint import compiler_hash
from inpage_compile.lowering.plan import LoweredPlan, trampolines
from inpage_compile.targets.codegen import compile_object
from inpage_compile.targets.link import link_native
from inpage_compile.targets.variants import all_variants

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

# What runs on this machine: its own instruction set where the kernels know it, and plain LLVM code.
HOST_ISAS = sorted({all_variants()["native"].isa.name, "portable"}, reverse=True)
_CACHE = Path(__file__).parents[2] / "build" / "tests" / "kernels"
_GUARD = 256
_POISON = 0xA5


class Out:
    """An output of ``shape``, filled with poison, between two guards."""

    def __init__(self, shape: Shape, dtype: Any) -> None:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._all = np.full(_GUARD + size + _GUARD, _POISON, np.uint8)
        self.array: Array = self._all[_GUARD : _GUARD + size].view(dtype).reshape(shape)

    def written(self) -> npt.NDArray[np.bool_]:
        """Which elements no longer hold poison."""
        words = self.array.view(np.uint8).reshape(*self.array.shape, self.array.itemsize)
        return np.asarray((words != _POISON).any(axis=-1))

    def check_guards(self) -> None:
        assert (self._all[:_GUARD] == _POISON).all() and (self._all[-_GUARD:] == _POISON).all(), "wrote outside"


class Kernels:
    """A library of the kernels that ``make`` returns, under its names for them, compiled for this machine. ``asking``:
    the file whose code ``make`` is."""

    def __init__(self, name: str, asking: str, make: Callable[[], Mapping[str, tirx.PrimFunc]]) -> None:
        _CACHE.mkdir(parents=True, exist_ok=True)
        key = _key(asking)
        library, record = _CACHE / f"{name}-{key}.so", _CACHE / f"{name}-{key}.json"
        if not record.is_file():
            for old in _CACHE.glob(f"{name}-{'[0-9a-f]' * len(key)}.*"):
                old.unlink()
            _compile(make(), library, record)
        self._lib = ctypes.CDLL(str(library))
        self._signatures: dict[str, list[int]] = json.loads(record.read_text())

    def call(self, name: str, buffers: Sequence[Array], scalars: Sequence[int], thread: int, threads: int) -> None:
        assert [len(buffers), len(scalars)] == self._signatures[name], f"{name} takes {self._signatures[name]}"
        assert all(b.flags.c_contiguous for b in buffers)
        pointers = [ctypes.c_void_p(b.ctypes.data) for b in buffers]
        numbers = [ctypes.c_int32(v) for v in (*scalars, thread, threads)]
        getattr(self._lib, name)(*pointers, *numbers)

    def run(
        self, name: str, inputs: Sequence[Array], scalars: Sequence[int], outputs: Sequence[tuple[Shape, Any]],
        threads: int = 1, in_place: Sequence[Array] = (),
    ) -> list[Array]:  # fmt: skip
        """The outputs of one launch, its threads one after another. ``in_place``: inputs that are written."""
        before = [b.copy() for b in inputs]
        outs = [Out(*o) for o in outputs]
        for thread in range(threads):
            self.call(name, [*inputs, *(o.array for o in outs)], scalars, thread, threads)
        for out in outs:
            out.check_guards()
        for b, a in zip(before, inputs, strict=True):
            assert any(a is w for w in in_place) or np.array_equal(b.view(np.uint8), a.view(np.uint8)), "input written"
        return [o.array for o in outs]

    def run_split(
        self, name: str, inputs: Sequence[Array], scalars: Sequence[int], outputs: Sequence[tuple[Shape, Any]]
    ) -> list[Array]:
        """One thread's outputs, after checking that 2 and 3 threads make the same bits and none writes another's."""
        alone = self.run(name, inputs, scalars, outputs)
        for threads in (2, 3):
            shared = self.run(name, inputs, scalars, outputs, threads)
            for a, b in zip(alone, shared, strict=True):
                assert same_bits(a, b), f"{name} on {threads} threads differs"
            self._check_shares(name, inputs, scalars, outputs, threads)
        return alone

    def _check_shares(
        self, name: str, inputs: Sequence[Array], scalars: Sequence[int], outputs: Sequence[tuple[Shape, Any]],
        threads: int,
    ) -> None:  # fmt: skip
        counts = [np.zeros(shape, int) for shape, _ in outputs]
        for thread in range(threads):
            outs = [Out(*o) for o in outputs]
            self.call(name, [*inputs, *(o.array for o in outs)], scalars, thread, threads)
            for count, out in zip(counts, outs, strict=True):
                count += out.written()
        for count in counts:
            assert (count <= 1).all(), f"{name}: two of {threads} threads write one place"


def same_bits(a: Array, b: Array) -> bool:
    return a.shape == b.shape and np.array_equal(
        np.ascontiguousarray(a).view(np.uint8), np.ascontiguousarray(b).view(np.uint8)
    )


def _compile(kernels: Mapping[str, tirx.PrimFunc], library: Path, record: Path) -> None:
    signatures = {name: _signature(f) for name, f in kernels.items()}
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        obj = compile_object(kernels, all_variants()["native"].target(), Path(folder) / "kernels.o")
        table = Path(folder) / "table.c"
        table.write_text(trampolines(LoweredPlan({}, dict(kernels), signatures)))
        link_native([obj], table, Path(folder) / "kernels.so").replace(library)
        (Path(folder) / "record").write_text(json.dumps(signatures))
        (Path(folder) / "record").replace(record)


def _signature(func: tirx.PrimFunc) -> tuple[int, int]:
    """How many buffers and how many scalars a kernel takes."""
    buffers = sum(isinstance(p.ty, tirx.BufferType) for p in func.params)
    return buffers, len(func.params) - buffers


def _key(asking: str) -> str:
    """What decides the library's code: the compiler, the test that asks and its form, this module, the CPU."""
    digest = hashlib.sha256(compiler_hash().encode() + str(all_variants()["native"].target()).encode())
    digest.update(str("INPAGE_SLOW" in os.environ).encode())
    for path in (asking, __file__):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:16]
