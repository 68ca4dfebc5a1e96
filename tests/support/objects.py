"""Kernels' object code, kept in build/tests/objects: tiny models have many kernels in common, and each is compiled
once, for whichever test comes first. Its key is the kernel itself as TIR, the target, and the code that lowers it: what
changes a kernel changes its key.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import tvm
from tvm import tirx
from tvm.target import Target
from tvm_ffi import structural_hash

import inpage_compile
from inpage_compile.passes.plain_c import plain_c
from inpage_compile.targets import codegen, link

ROOT = Path(__file__).parents[2] / "build" / "tests" / "objects"


def compile_object(kernels: Mapping[str, tirx.PrimFunc], target: Target, out: Path) -> Path:
    """As `codegen.compile_object`, from the objects that are there."""
    ROOT.mkdir(parents=True, exist_ok=True)
    objects = [ROOT / f"{_key(name, func, str(target))}.o" for name, func in kernels.items()]
    for (name, func), path in zip(kernels.items(), objects, strict=True):
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=ROOT) as folder:
                codegen.compile_object({name: func}, target, Path(folder) / "kernel.o").replace(path)
    linker = "wasm-ld" if "wasm" in str(target) else "ld.lld"
    link._run(linker, "-r", *map(str, objects), "-o", str(out))
    return out


def _key(name: str, func: tirx.PrimFunc, target: str) -> str:
    kernel = structural_hash(plain_c(func, name), map_free_vars=True)
    return hashlib.sha256(f"{name} {kernel} {target} {_lowering()}".encode()).hexdigest()[:32]


@cache
def _lowering() -> str:
    digest = hashlib.sha256(tvm.__version__.encode())
    for folder in ("passes", "targets"):
        for path in sorted((Path(inpage_compile.__path__[0]) / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
