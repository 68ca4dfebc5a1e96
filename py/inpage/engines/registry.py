"""Which engines there are: a line each. An engine is a module (or a folder) here with ``async def load(job)``, and its
line below; nothing else knows its name.

A manifest's variant names the engine that runs it by ``backend``. A variant for an engine that is not here is left out,
so that an artifact may carry what only later versions can run.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from ..errors import Unsupported, quoted
from ..format.schema import Manifest, Variant
from ..settings import Settings
from .protocol import MLC_COUNTS, ONNX_COUNTS, RUNTIME_COUNTS, WEBGPU_COUNTS, Engine, Flags, Progress


@dataclass(frozen=True, slots=True)
class LoadJob:
    """``base``: the artifact's folder or URL; ``text``: of its manifest. ``pinned``: so many threads, not only at most
    so many. ``kernels``: those that were chosen on this device, of each list of alternatives. ``trust``: run machine
    code that this machine did not compile. ``examined``: this GPU passed the manifest's exam before."""

    flags: Flags
    base: str
    manifest: Manifest
    text: str
    variant: Variant
    threads: int
    pinned: bool
    kernels: tuple[str, ...] | None
    settings: Settings
    trust: bool
    on_progress: Progress
    examined: bool = False


Load: TypeAlias = Callable[[LoadJob], Awaitable[Engine]]


@dataclass(frozen=True, slots=True)
class EngineKind:
    """``place``: "page" or "host". ``files``: by role, that each of its variants must have. ``variants``: names of its
    usual ones, the one expected to be the fastest first. ``gpu``: it computes on a WebGPU adapter and not on threads,
    and compiles its kernels when it is loaded. ``maps_weights``: several engines in one process share their weights.
    ``apart``: it needs code, or weights, that no other engine does, so that these may be missing for it alone.
    ``lacks``: which of its ``flags`` it does not have on this machine, and what would help. ``counts``: names of what
    it counts, in the order in which the page tells it."""

    backend: str
    title: str
    place: str
    load: Load
    flags: Flags = Flags()  # noqa: RUF009 - frozen
    files: tuple[str, ...] = ("plan", "kernels")
    variants: tuple[str, ...] = ()
    gpu: bool = False
    maps_weights: bool = False
    apart: bool = False
    lacks: Callable[[], Mapping[str, str]] = dict
    counts: tuple[str, ...] = RUNTIME_COUNTS

    @property
    def able(self) -> Flags:
        """What it can do here."""
        return replace(self.flags, **dict.fromkeys(self.lacks(), False))


def _module(name: str) -> Load:
    """Imported when it is first needed: each runs in one place only."""

    async def load(job: LoadJob) -> Engine:
        engine: Engine = await importlib.import_module(f"{__package__}.{name}").load(job)
        return engine

    return load


async def _nowhere(job: LoadJob) -> Engine:
    raise Unsupported(f"this version has no engine for {quoted(job.variant.backend)}", field="backend")


def _lacking() -> Mapping[str, str]:
    from .native_needs import lacking  # no page has it

    return lacking()


_IN_PAGE = Flags(grammars=True)
# Those behind float16 and float32 run where they were measured to be faster.
_MATRICES = tuple(f"webgpu-matrix-{size}" for size in ("16x16x16", "8x16x16", "8x8x8"))
_GPU = ("webgpu-f16", "webgpu-f32", "webgpu-int8", *_MATRICES)
# Keeps the cache of each sequence itself, and adds in an order of its own.
_SEQUENTIAL = Flags(paged=False, deterministic=False, grammars=True)
_engines: dict[str, EngineKind] = {}


def register(kind: EngineKind) -> None:
    """Those registered first are expected to be faster."""
    _engines[kind.backend] = kind


register(
    EngineKind("webgpu", "WebGPU", "page", _module("in_page"), _IN_PAGE, variants=_GPU, gpu=True, counts=WEBGPU_COUNTS)
)
register(EngineKind("wasm", "WASM", "page", _module("in_page"), _IN_PAGE, variants=("wasm-relaxed", "wasm-simd")))
register(
    EngineKind(
        "native", "native", "host", _module("native_load"), Flags(grammars=True), maps_weights=True, lacks=_lacking
    )
)

for _backend, _title, _on_gpu in (
    ("onnx-webgpu", "ONNX Runtime on WebGPU", True),
    ("onnx", "ONNX Runtime on WASM", False),
):
    register(
        EngineKind(
            _backend, _title, "page", _module("in_page"), _SEQUENTIAL, ("sampler",), gpu=_on_gpu, apart=True,
            counts=ONNX_COUNTS,
        )
    )  # fmt: skip
register(
    EngineKind(
        "mlc", "MLC on WebGPU", "page", _module("in_page"), _SEQUENTIAL, ("library", "sampler"), gpu=True, apart=True,
        counts=MLC_COUNTS,
    )
)  # fmt: skip


def engine_kind(backend: str) -> EngineKind:
    """The engine of this backend. One that is not registered runs nowhere and can do nothing."""
    nothing = Flags(paged=False, deterministic=False, logprobs=False)
    return _engines.get(backend) or EngineKind(backend, backend, "", _nowhere, nothing, files=())


def wants_gpu(name: str) -> bool:
    """Whether a backend, or a variant, of this name computes on a GPU."""
    return any(kind.gpu and name in (kind.backend, *kind.variants) for kind in _engines.values())


def expected_order(variant: Variant) -> tuple[int, int]:
    """Sorts variants by what is usually faster."""
    kind = engine_kind(variant.backend)
    place = list(_engines).index(kind.backend) if kind.backend in _engines else len(_engines)
    return place, kind.variants.index(variant.name) if variant.name in kind.variants else len(kind.variants)
