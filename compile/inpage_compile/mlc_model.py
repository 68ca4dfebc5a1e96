"""A folder of MLC's with the library that MLC compiled for it: both become part of an artifact as they are, and web-llm
runs them in the page."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inpage.format.schema import MlcRef

from .artifact.fingerprint import fingerprint
from .artifact.licenses import check_license
from .artifact.writer import ArtifactWriter, is_current
from .carried import link_sampler, write_files
from .sources.base import limit_context
from .sources.mlc import open_mlc
from .sources.mlc_library import FIELD, MlcFiles, files_of, mlc_folder, read_library

Progress = Callable[[str, int, int], None]

VARIANT, _BACKEND = "mlc-webgpu", "mlc"
# What the device must have: the sampler needs the first two, web-llm the limits, whatever the library.
_REQUIRES = (
    "simd128", "atomics", "webgpu", "maxStorageBuffersPerShaderStage:10", "maxComputeWorkgroupStorageSize:32768",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CarriedLibrary:
    """See `Carried`."""

    files: MlcFiles

    @property
    def option(self) -> str:
        return FIELD

    @property
    def bytes(self) -> int:
        return self.files.bytes

    @property
    def sha256(self) -> str:
        """Its weights are the source's."""
        return hashlib.sha256(self.files.library).hexdigest()

    def add(self, writer: ArtifactWriter, level: str) -> None:
        writer.check_room(self.bytes)
        writer.begin_section([level], "mlc")
        _add(writer, self.files, level, "mlc")


def open_carried_library(ref: str, library: str, progress: Progress) -> CarriedLibrary:
    """``ref``: a folder that was opened. Raises as `read_library` does."""
    data = read_library(library, progress=lambda done, total: progress("download", done, total))
    return CarriedLibrary(files_of(ref, data))


def compile_mlc(
    ref: str, library: str, out: Path | None, root: Path, context: int | None, report: Progress, accept_license: bool
) -> Path:
    """The library alone, so that the model may be of any family. Parameters and errors as `compile_model`'s."""
    path = mlc_folder(ref)
    report("source", 0, 1)
    data = read_library(library, progress=lambda done, total: report("download", done, total))
    source = open_mlc(path, licensed=lambda terms: check_license(terms, accept_license), whole=True)
    source = limit_context(source, context)
    report("source", 1, 1)
    for warning in source.warnings:
        print(warning, file=sys.stderr)
    folder = out or root / source.id
    mark = fingerprint(source, {FIELD: hashlib.sha256(data).hexdigest()})
    if is_current(folder, mark):
        return folder
    files = files_of(ref, data)
    with ArtifactWriter(folder, source, fingerprint=mark, accept_license=accept_license, progress=report) as writer:
        writer.check_room(files.bytes)
        writer.begin_section([""])
        _add(writer, files, "", "weights")
        writer.finish()
    return folder


def _add(writer: ArtifactWriter, files: MlcFiles, level: str, phase: str) -> None:
    """The weights to the section that was begun, and the variant."""
    index, *shards = write_files(writer, phase, [(path.name, path) for path in (files.index, *files.shards)])
    writer.set_part(level, MlcRef(index.bytes, tuple(shards)))
    requires = [*_REQUIRES, *(("shader-f16",) if files.halves else ())]
    with tempfile.TemporaryDirectory() as scratch:
        made: dict[str, bytes | Path] = {"library.wasm": files.library, "sampler.wasm": link_sampler(Path(scratch))}
        writer.add_variant(VARIANT, _BACKEND, requires, made, level)
