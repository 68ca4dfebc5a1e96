"""The machine's peaks in real Chromium: every kernel's sums are checked there, and one that skips work is found out."""

from __future__ import annotations

from pathlib import Path

import pytest

from inpage.errors import InpageError
from inpage_bench import peaks
from inpage_bench.browser import Browsers, Where

DOT32 = "wasm_i32x4_relaxed_dot_i8x16_i7x16_add(x, w, sum)"
CHEATS = {
    "read": ("i < vectors; i += 8) {\n#pragma", "i < vectors; i += 16) {\n#pragma"),
    "dot16": ("wasm_i16x8_add(sum, ", "wasm_i16x8_sub(sum, "),
    "dot32": (DOT32, f"wasm_i32x4_sub(sum, {DOT32})"),
    "madd": ("wasm_f32x4_relaxed_madd(x, w, sum)", "wasm_f32x4_relaxed_nmadd(x, w, sum)"),
}


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs too short to say anything of speed: what counts here is that they are right."""
    monkeypatch.setattr(peaks, "_SIZES", (1 << 19,))
    monkeypatch.setattr(peaks, "_ROUND_MS", 1)
    monkeypatch.setattr(peaks, "_beyond_caches", lambda remote: 3 << 20)


async def test_every_peak_is_measured_and_every_cheating_kernel_is_found_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build = peaks.build
    async with Browsers(Where()) as browsers, browsers.visit() as visit:
        found = await peaks.measure_peaks(visit, [1, 2], quick=True)
        for rates in (found.read_gbps, found.dot_gops, found.dot16_gops, found.dot32_gops, found.fma_gops):
            assert set(rates) == {"1", "2"} and all(rate > 0 for rate in rates.values())
        assert found.read_by_bytes.keys() == {"1", "2"}
        assert all(by_size.keys() == {str(1 << 19), str(3 << 20)} for by_size in found.read_by_bytes.values())
        assert found.dot_gops["1"] == max(found.dot16_gops["1"], found.dot32_gops["1"])

        honest = Path(peaks.__file__).with_name("peaks.c").read_text()
        for kernel, (work, less) in CHEATS.items():
            assert honest.count(work) == 1
            cheat = tmp_path / "peaks.c"
            cheat.write_text(honest.replace(work, less))
            wasm = build(tmp_path, cheat)
            monkeypatch.setattr(peaks, "build", lambda wasm=wasm: wasm)
            with pytest.raises(InpageError, match=f"{kernel} summed up"):
                await peaks.measure_peaks(visit, [1, 2], quick=True)


def test_the_kernels_are_built_once(tmp_path: Path) -> None:
    first = peaks.build(tmp_path)
    stamp = first.stat().st_mtime_ns
    assert peaks.build(tmp_path) == first and first.stat().st_mtime_ns == stamp
    assert [path.name for path in tmp_path.iterdir()] == [first.name]
