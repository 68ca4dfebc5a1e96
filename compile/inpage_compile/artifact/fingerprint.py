"""What an artifact was made from, as one hash: source, compiler, its tools and the options.

Two compiles with the same fingerprint make the same artifact, so the second one need not run.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import inpage
from inpage.format.structure import canonical_json

from ..sources import Source

TOOLS = ("apache-tvm", "apache-tvm-ffi", "ziglang", "numpy", "gguf")
_SUFFIXES = {".py", ".c", ".h"}


def compiler_hash() -> str:
    """sha256 over the compiler's own sources and the versions of its tools."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    shared = sorted((Path(inpage.__path__[0]) / "format").glob("*.py"))  # the format is part of the compiler
    files = sorted(p for p in root.rglob("*") if p.suffix in _SUFFIXES)
    for path in [*files, *shared]:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for tool in TOOLS:
        try:
            digest.update(f"{tool} {version(tool)}\n".encode())
        except PackageNotFoundError:
            digest.update(f"{tool} none\n".encode())
    return digest.hexdigest()


def fingerprint(source: Source, options: Mapping[str, Any]) -> str:
    """sha256 of everything that decides the artifact's bytes. ``options``: JSON values (targets, maxima, …)."""
    return hashlib.sha256(
        canonical_json(
            {
                "source": source.origin.sha256,
                "id": source.id,
                "name": source.name,
                "license": [source.license.id, source.license.notice, source.license.text],
                "sampling": asdict(source.sampling) if source.sampling else None,
                "architecture": asdict(source.architecture),
                "embedding": asdict(source.embedding) if source.embedding else None,
                "compiler": compiler_hash(),
                "machine": [platform.system(), platform.machine()],
                "options": dict(options),
            }
        )
    ).hexdigest()
