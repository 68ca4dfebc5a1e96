"""The variants that can be compiled: which instruction set, which code-generation target, what a device must have."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace

import tvm
from tvm.target import Target

from inpage.errors import InvalidRequest

from ..kernels.cpu.isa import Isa
from ..kernels.webgpu.matrix_units import MatrixUnits

ROWS = 128
PREFILL_ROWS = (128, 256, 512, 1024)  # that a WebGPU variant can be made for
# What adapters offer with float32 results: NVIDIA's and AMD's, Intel's, and, for tests, Mesa's lavapipe.
UNITS = (MatrixUnits(16, 16, 16), MatrixUnits(8, 16, 16), MatrixUnits(8, 8, 8))
DP4A = "packed_4x8_integer_dot_product"  # a language feature of WGSL
MATRICES = "chromium-experimental-subgroup-matrix"
_WASM_FEATURES = ("simd128", "bulk-memory", "nontrapping-fptoint", "sign-ext", "mutable-globals", "atomics")


@dataclass(frozen=True)
class VariantSpec:
    """``activations``: on CPUs int8, or f32 for the variant that measures what quantizing them costs; for WebGPU the
    type of what passes between kernels, or int8: that is float32, and int8 is what matrices are multiplied with.
    ``units``: of WebGPU's subgroup matrices, where they multiply.
    ``rows``: of a step of a prompt, enough to keep a weight block in cache for many activations, few enough for a small
    arena."""

    name: str
    backend: str
    isa: Isa
    activations: str
    requires: tuple[str, ...]
    library: str  # file name of the linked kernels
    rows: int = ROWS
    units: MatrixUnits | None = None

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


def _needed(units: MatrixUnits) -> tuple[str, ...]:
    """The last word is no feature of WebGPU's: engines find it where an adapter's units multiply so."""
    return ("webgpu", "shader-f16", "subgroups", MATRICES, f"{MATRICES}/{units}")


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
        VariantSpec("webgpu-int8", "webgpu", gpu, "int8", ("webgpu", DP4A), "kernels.wgsl"),
        *(
            VariantSpec(f"webgpu-matrix-{u}", "webgpu", gpu, "float16", _needed(u), "kernels.wgsl", units=u)
            for u in UNITS
        ),
    ]
    return {v.name: v for v in (*webgpu, *wasm, *native)}


DEFAULT = ("webgpu-f16", "webgpu-f32", "wasm-relaxed", "wasm-simd", "native")


def choose(names: tuple[str, ...] | None, prefill_rows: int = ROWS) -> list[VariantSpec]:
    """The named variants, or the default ones; those for WebGPU with steps of ``prefill_rows`` rows. Raises
    `InvalidRequest` for a name that does not exist, and for other rows than `PREFILL_ROWS`."""
    known = all_variants()
    for name in names or ():
        if name not in known:
            raise InvalidRequest(f"no variant {name!r}; there are {', '.join(known)}", field="variants")
    if prefill_rows not in PREFILL_ROWS:
        raise InvalidRequest(
            f"{prefill_rows} rows are not one of {', '.join(map(str, PREFILL_ROWS))}", field="prefill_rows"
        )
    specs = [known[name] for name in names or DEFAULT]
    return [replace(spec, rows=prefill_rows) if spec.backend == "webgpu" else spec for spec in specs]
