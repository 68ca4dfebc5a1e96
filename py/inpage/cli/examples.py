"""The example pages of a site, and the module that one of them computes with.

Those with a package.json are projects of their own, built by their own tools.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import Unsupported
from . import paths
from .wasm_module import wasm_module

_KERNEL = "examples/search/top_k.wasm"
_SOURCES = (".c", ".md")  # what no page loads


def files() -> dict[str, Path]:
    """URL path → file. Without the compiler that makes its module, the search page is left out."""
    folder = paths.examples()
    pages = [part for part in folder.iterdir() if not (part / "package.json").exists()]
    found = [path for part in pages for path in (part.rglob("*") if part.is_dir() else [part]) if path.is_file()]
    site = {f"examples/{path.relative_to(folder).as_posix()}": path for path in found if path.suffix not in _SOURCES}
    try:
        return site | {_KERNEL: kernel()}
    except Unsupported:
        return {name: path for name, path in site.items() if Path(name).parent != Path(_KERNEL).parent}


def kernel() -> Path:
    """top_k.wasm of the search page, compiled. Raises `Unsupported`."""
    return wasm_module(paths.examples() / "search/top_k.c", paths.cache_folder() / "modules", ("simd128",))


def missing() -> str:
    """Why a site with examples is without the search page; empty where it is not."""
    try:
        kernel()
    except Unsupported as error:
        return str(error)
    return ""
