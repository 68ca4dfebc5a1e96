"""What an artifact carries as it is, for engines that replay no plan: files in the weight space, so that they are
fetched, kept, resumed and verified like any model's, and a sampler, so that a parameter means what it means in every
engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from inpage.format.limits import ALIGN
from inpage.format.schema import GraphFile

from .artifact.writer import ArtifactWriter
from .targets.link import link_wasm

_NO_KERNELS = """/* No kernels: what chooses tokens needs none. */
#include "abi.h"

const inpage_kernel inpage_kernels[] = {0};
const int32_t inpage_kernel_shares[] = {0};
const int32_t inpage_kernel_count = 0;
"""
_CHUNK = 1 << 22


class Carried(Protocol):
    """What stands beside that which is compiled of the same model. ``option``: that asked for it; ``bytes``: of its
    weights; ``sha256``: of what decides them."""

    @property
    def option(self) -> str: ...
    @property
    def bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...

    def add(self, writer: ArtifactWriter, level: str) -> None:
        """To an artifact whose own weights are written."""


def write_files(writer: ArtifactWriter, phase: str, paths: Sequence[tuple[str, Path]]) -> tuple[GraphFile, ...]:
    """One behind the other, by these names, in the section that was begun."""
    total = sum(path.stat().st_size for _, path in paths)
    done = at = 0
    out = []
    for name, path in paths:
        at = -(-at // ALIGN) * ALIGN
        out.append(GraphFile(name, at, path.stat().st_size))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                writer.add_bytes(at, memoryview(chunk))
                at += len(chunk)
                done += len(chunk)
                writer.report(phase, done, total)
    return tuple(out)


def link_sampler(scratch: Path) -> Path:
    """sampler.wasm, in the folder ``scratch``: our runtime without a kernel."""
    table = scratch / "table.c"
    table.write_text(_NO_KERNELS)
    return link_wasm([], table, scratch / "sampler.wasm", relaxed=False)
