"""One text for bug reports: what this device has, what runs on it and how fast, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..backends.selection import rate
from ..host.browser import IN_PAGE, host
from ..host.capability import Device, this_device
from ..router import Router

_VERSION = "0.1.0"


async def report(router: Router | None, failure: str = "", lesser: str = "", python: str = "") -> str:
    """``failure``: what the last load ended with, where nothing is loaded; ``lesser``: why not the best precision is
    loaded; ``python``: how Python was started. Lines of "name: value", to be copied."""
    lines = [f"inpage {_VERSION}", *_device(await this_device())]  # asked again: storage has filled since the load
    if python:
        lines.append(f"Python: {python}")
    if router is None:
        lines.append(f"model: none is loaded{f' ({failure})' if failure else ''}")
    else:
        lines += [*_router(router.info), *([f"level: {lesser}"] if lesser else [])]
        lines += _growth(router.memory.suspected)
    return "\n".join(lines) + "\n"


def _growth(suspected: dict[str, Any] | None) -> Iterator[str]:
    if suspected is None:
        return
    yield f"memory: {suspected['suspicion']}"
    grown = (f"{g['what']} {_megabytes(g['before'])} to {_megabytes(g['now'])}" for g in suspected["growers"])
    yield f"what grew: {', '.join(grown)}"
    counted = (f"{o['count']} {o['type']}" for o in suspected["objects"][:8])
    yield f"Python's objects: {', '.join(counted)}"


def _device(device: Device) -> Iterator[str]:
    yield f"program: {device.program}"
    yield f"cores: {device.cores}, compute threads: {device.threads}"
    if device.place != "page":
        return
    yield f"cross-origin isolated: {'yes' if device.isolated else 'no'}"
    wasm = sorted(device.features & {"simd128", "relaxed-simd", "atomics"})
    yield f"WebAssembly: {', '.join(wasm) or 'no SIMD'}"
    told = f"{device.memory / (1 << 30):g} GiB (as the browser rounds it)" if device.memory else "not told"
    largest = f", a WebAssembly memory up to {int(host().largestMemory()) >> 20} MiB" if IN_PAGE else ""
    yield f"memory: {told}{largest}"
    storage = device.storage
    kinds = [name for name, there in (("OPFS", storage.get("opfs")), ("IndexedDB", storage.get("idb"))) if there]
    kept = "persisted" if storage.get("persisted") else "not persisted"
    yield (
        f"storage: {', '.join(kinds) or 'none'}; {_megabytes(storage.get('usage'))} used of "
        f"{_megabytes(storage.get('quota'))}, {kept}; Web Locks: {'yes' if storage.get('locks') else 'no'}"
    )
    adapter = device.adapter
    if adapter is None:
        yield f"WebGPU: {device.no_adapter}"
        return
    yield f"WebGPU adapter: {adapter.name}{', software' if adapter.software else ''}"
    yield f"WebGPU features: {', '.join(adapter.features) or 'none'}"
    yield f"WebGPU limits: {', '.join(f'{name} {value}' for name, value in sorted(adapter.limits.items()))}"


def _router(info: dict[str, Any]) -> Iterator[str]:
    level = f" at level {info['level']}" if info["level"] else ""
    yield f"model: {info['model']}{level}, revision {info['revision'][:16]}"
    yield f"running: {info['why']}"
    if info["kernels"]:
        yield f"kernels: {info['kernels']}"
    yield (
        f"loaded in {info['load_ms'] / 1e3:.1f} s; weights {_megabytes(info['weight_bytes'])}, "
        f"arena {_megabytes(info['arena_bytes'])}, KV {_megabytes(info['kv_bytes'])}"
    )
    for found in info["candidates"]:
        line = f"{found['variant']}: {'can run' if found['can_run'] else 'cannot run'}: {found['reason']}"
        if found["decode_tps"]:
            line += f"; {rate(found['decode_tps'])} tokens a second, prompt {rate(found['prefill_tps'])}"
        elif found["can_run"]:
            line += "; not measured"
        yield line + (f"; {found['fault']}" if found["fault"] else "")


def _megabytes(count: Any) -> str:
    return "?" if count is None else f"{count / 1e6:.0f} MB"
