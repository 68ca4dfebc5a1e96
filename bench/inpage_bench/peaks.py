"""What this machine can do at most in the browser, measured: bytes read from memory and dot products, by threads.

The kernels (peaks.c, built with the pinned clang and kept by the hash of what they are made from) run in web workers;
each result is compared with what plain JavaScript makes of it, so no work was left out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inpage.cli import paths
from inpage.cli.wasm_module import wasm_module
from inpage.errors import Unsupported

from .driver import Pages
from .results import Peaks

_SOURCE = Path(__file__).with_name("peaks.c")
_WEB = ("peaks.html", "peaks.js", "peaks_check.js", "peaks_worker.js")
_FEATURES = ("atomics", "bulk_memory", "relaxed_simd", "simd128")
_OPTIONS = ("-Wl,--shared-memory", "-Wl,--import-memory", "-Wl,--max-memory=4294901760")
_MEASURE = """
async (options) => (await import(new URL("peaks.js", document.baseURI).href)).measurePeaks(options)
"""
_MIB = 1 << 20
_SIZES = (_MIB // 2, 4 * _MIB, 32 * _MIB, 128 * _MIB)
_ROUND_MS, _ROUNDS = 40, 5
_TIMEOUT_S = 120


async def measure_peaks(pages: Pages, threads: Sequence[int], *, remote: bool = False, quick: bool = False) -> Peaks:
    """Take some seconds (half of that when ``quick``) of an otherwise idle machine. ``remote``: the browser's machine
    is not this one, so the size of its caches is unknown. Raises `Unsupported` where the browser has no relaxed SIMD,
    the page no threads, or ziglang is missing."""
    wasm = await asyncio.to_thread(build)
    sizes = [*_SIZES, _beyond_caches(remote)]
    files: dict[str, Path | bytes] = {name: paths.web() / "bench" / name for name in _WEB}
    tab = await pages.open({**files, "peaks.wasm": wasm}, "peaks.html")
    rounds = 2 if quick else _ROUNDS
    options = {"threads": sorted(set(threads)), "sizes": sizes, "round_ms": _ROUND_MS, "rounds": rounds}
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            rates = await tab.call(_MEASURE, options)
    except TimeoutError:
        raise Unsupported(f"measuring the machine's peaks took longer than {_TIMEOUT_S} s") from None
    finally:
        await tab.close()
    return _peaks(rates, sizes, rounds)


def _peaks(rates: dict[str, Any], sizes: Sequence[int], rounds: int) -> Peaks:
    def giga(found: dict[str, float]) -> dict[str, float]:
        return {key: float(f"{value / 1e9:.4g}") for key, value in found.items()}

    largest = str(sizes[-1])
    forms = {"dot16": giga(rates["dot16"]), "dot32": giga(rates["dot32"])}
    return Peaks(
        read_gbps=giga({n: by_size[largest] for n, by_size in rates["read"].items()}),
        dot_gops={n: max(form[n] for form in forms.values()) for n in forms["dot16"]},
        how=(
            f"in the browser, the best of {rounds} runs of {_ROUND_MS} ms: SIMD loads over {sizes[-1] / 1e6:,.0f} MB, "
            "beyond all caches; relaxed int8 dot products into accumulators in registers, in the better of two forms"
        ),
        read_by_bytes={n: giga(by_size) for n, by_size in rates["read"].items()},
        dot16_gops=forms["dot16"],
        dot32_gops=forms["dot32"],
        fma_gops=giga(rates["madd"]),
    )


def _beyond_caches(remote: bool) -> int:
    """Two and a half times the last-level cache where the system tells it, else half a GiB; at most a GiB and an eighth
    of the memory."""
    llc = 0 if remote else _last_level_cache()
    wanted = max(256 * _MIB, llc * 5 // 2) if llc else 512 * _MIB
    memory = 4 << 30 if remote else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(wanted, 1 << 30, memory // 8) // _MIB * _MIB


def _last_level_cache() -> int:
    """Bytes, as Linux tells; 0 where unknown."""
    found = 0
    for size in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        try:
            text = size.read_text().strip()
            found = max(found, int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}.get(text[-1], 0))
        except (OSError, ValueError):
            continue
    return found


def build(folder: Path | None = None, source: Path = _SOURCE) -> Path:
    """peaks.wasm, from ``folder`` (by default ``build/bench``) or fresh. Raises `Unsupported` without ziglang."""
    return wasm_module(source, folder or paths.models().parent / "bench", _FEATURES, _OPTIONS)
