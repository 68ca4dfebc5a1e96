"""Compile a tiny model with a context of 512 tokens for the page: ``python long_context.py OUT``.

``OUT/long``, left as it is where it is unchanged, and ``OUT/inpage.zip``, the package as the page imports it.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from inpage.cli.site import package_zip
from inpage_compile.pipeline import compile_model
from support.models import first_ways
from support.tiny import MODELS


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, first_ways():
        source = replace(MODELS["f32"], context=512).write(Path(folder) / "tiny-long.gguf")
        compile_model(str(source), out / "long", variants=("wasm-simd",))
    (out / "inpage.zip").write_bytes(package_zip())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
