"""One C file as a WebAssembly module by itself, built with the pinned clang and kept by the hash of what it is made
from: what examples and the bench compute with, beside the engines."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import Unsupported

# Contraction off: a multiply and an add round twice, as plain JavaScript does.
_FLAGS = ("-target", "wasm32-freestanding", "-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off",
          "-fno-sanitize=undefined", "-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all")  # fmt: skip


def wasm_module(source: Path, folder: Path, features: Sequence[str], options: Sequence[str] = ()) -> Path:
    """``source`` with WebAssembly's ``features`` (of clang: "simd128") and more ``options``, from ``folder`` or fresh.
    It exports what the source names. Raises `Unsupported` without ziglang, or where it does not compile."""
    try:
        compiler = version("ziglang")
    except PackageNotFoundError:
        raise Unsupported(f"{source.name} needs ziglang: pip install 'inpage[compile]'") from None
    flags = [*_FLAGS, "-mcpu=generic" + "".join(f"+{name}" for name in features), *options]
    digest = hashlib.sha256(repr((compiler, flags)).encode() + source.read_bytes()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{source.stem}-{digest}.wasm"
    if not out.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            fresh = Path(scratch) / "module.wasm"
            command = [sys.executable, "-m", "ziglang", "cc", *flags, "-o", str(fresh), str(source)]
            ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
            if ran.returncode != 0:
                raise Unsupported(f"{source.name} does not compile:\n{(ran.stdout + ran.stderr).strip()[-2000:]}")
            fresh.replace(out)  # atomic: one who builds beside this one makes the same bytes
    return out
