"""Compile a tiny model for the page at four levels and at the smallest alone: ``python levels.py OUT``.

``OUT/several`` and ``OUT/single``, unchanged ones left as they are, and ``OUT/inpage.zip``, the package as the page
imports it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inpage.cli.site import package_zip
from inpage_compile.pipeline import compile_model
from support.models import first_ways
from support.tiny import Tiny

LEVELS = ("q8_0", "q6_k", "q4_k_m", "q2_k")
WIDE = Tiny(seed=20, hidden=256, heads=4, kv_heads=2, head_dim=64, ffn=256)  # K-types fit its rows


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = WIDE.write(out / "wide.gguf")
    with first_ways():
        for name, levels in (("several", LEVELS), ("single", LEVELS[-1:])):
            compile_model(str(path), out / name, variants=("wasm-simd",), levels=levels)
    (out / "inpage.zip").write_bytes(package_zip())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
