"""The variants that can be compiled: which instruction set, which code-generation target, what a device must have."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass

import tvm
from tvm.target import Target

from inpage.errors import InvalidRequest

from ..kernels.cpu.isa import Isa

_WASM_FEATURES = ("simd128", "bulk-memory", "nontrapping-fptoint", "sign-ext", "mutable-globals", "atomics")


@dataclass(frozen=True)
class VariantSpec:
    """``activations``: on CPUs int8, or f32 for the variant that measures what quantizing them costs; for WebGPU the
    type of what passes between kernels."""

    name: str
    backend: str
    isa: Isa
    activations: str
    requires: tuple[str, ...]
    library: str  # file name of the linked kernels

    def target(self) -> Target:
        if self.backend == "wasm":
            features = [*_WASM_FEATURES, *(["relaxed-simd"] if self.isa.name == "wasm-relaxed" else [])]
            triple = "wasm32-unknown-unknown-wasm"
            return Target({"kind": "llvm", "mtriple": triple, "mattr": [f"+{f}" for f in features]})
        return Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})


def host_requirement() -> str:
    """What a native variant demands of the machine that loads it, as the manifest says it."""
    return f"host:{platform.machine().lower()}-{sys.platform}"


def _host_isa() -> Isa:
    """x86 where this CPU has what the kernels use; elsewhere portable code, which keeps activations in float32."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return Isa("portable")
    cpu = Target({"kind": "llvm", "mcpu": tvm.target.codegen.llvm_get_system_cpu()})
    has = tvm.target.codegen.llvm_cpu_has_features(["ssse3", "sse4.1", "fma"], cpu)
    return Isa("x86") if has else Isa("portable")


def all_variants() -> dict[str, VariantSpec]:
    """Every variant by name; the first of a backend that can run is the one to prefer."""
    wasm = [
        VariantSpec("wasm-relaxed", "wasm", Isa("wasm-relaxed"), "int8", ("simd128", "relaxed-simd"), "kernels.wasm"),
        VariantSpec("wasm-simd", "wasm", Isa("wasm-simd"), "int8", ("simd128",), "kernels.wasm"),
    ]
    host = (host_requirement(),)
    native = [
        VariantSpec("native", "native", _host_isa(), "int8", host, "kernels.so"),
        VariantSpec("native-f32", "native", _host_isa(), "f32", host, "kernels.so"),
    ]
    gpu = Isa("webgpu")
    webgpu = [
        VariantSpec("webgpu-f16", "webgpu", gpu, "float16", ("webgpu", "shader-f16"), "kernels.wgsl"),
        VariantSpec("webgpu-f32", "webgpu", gpu, "float32", ("webgpu",), "kernels.wgsl"),
    ]
    return {v.name: v for v in (*webgpu, *wasm, *native)}


DEFAULT = ("webgpu-f16", "webgpu-f32", "wasm-relaxed", "wasm-simd", "native")


def choose(names: tuple[str, ...] | None) -> list[VariantSpec]:
    """The named variants, or the default ones. Raises `InvalidRequest` for a name that does not exist."""
    known = all_variants()
    for name in names or ():
        if name not in known:
            raise InvalidRequest(f"no variant {name!r}; there are {', '.join(known)}", field="variants")
    return [known[name] for name in names or DEFAULT]
