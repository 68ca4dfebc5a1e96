"""Compile a tiny model for the page at two levels and at the smaller alone: ``python levels.py OUT``.

``OUT/several`` and ``OUT/single``, unchanged ones left as they are, and ``OUT/inpage.zip``, the package as the page
imports it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from inpage.cli.site import package_zip
from inpage_compile.pipeline import compile_model
from support.models import first_ways, tiny_file


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tiny_file("f32") as path, first_ways():
        for name, levels in (("several", ("q8_0", "q4_1")), ("single", ("q4_1",))):
            compile_model(str(path), out / name, variants=("wasm-simd",), levels=levels)
    (out / "inpage.zip").write_bytes(package_zip())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
