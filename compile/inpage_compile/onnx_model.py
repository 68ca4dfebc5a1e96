"""`compile_onnx`: a folder with .onnx files in, an artifact whose engine is ONNX Runtime out.

Nothing is compiled but the sampler, which is our runtime without a kernel; the graph and its files of tensors become
the weight space as they are, so that they are fetched, kept, resumed and verified like any model's."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inpage.errors import InvalidRequest, SourceInvalid
from inpage.format.limits import ALIGN
from inpage.format.schema import GraphCache, GraphFile, GraphRef

from .artifact.fingerprint import fingerprint
from .artifact.licenses import check_license
from .artifact.writer import ArtifactWriter, is_current, load_manifest
from .sources import Source
from .sources.onnx import LOGITS, GraphFiles, limited, open_graph, open_onnx
from .targets.link import link_wasm

Progress = Callable[[str, int, int], None]

# By name: backend, and what the device must have. The sampler needs threads' memory and SIMD wherever it runs.
VARIANTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "onnx-webgpu": ("onnx-webgpu", ("simd128", "atomics", "webgpu")),
    "onnx-wasm": ("onnx", ("simd128", "atomics")),
}
_NO_KERNELS = """/* No kernels: what chooses tokens needs none. */
#include "abi.h"

const inpage_kernel inpage_kernels[] = {0};
const int32_t inpage_kernel_count = 0;
"""
_CHUNK = 1 << 22


def compile_onnx(
    path: Path, out: Path | None, root: Path, variants: tuple[str, ...] | None, context: int | None,
    levels: tuple[str, ...], report: Progress, accept_license: bool,
) -> Path:  # fmt: skip
    """Parameters and errors as `compile_model`'s. ``levels``: precisions, of which the folder has a graph each."""
    for name in variants or ():
        if name not in VARIANTS:
            raise InvalidRequest(f"no variant {name!r} of a graph; there are {', '.join(VARIANTS)}", field="variants")
    report("source", 0, 1)
    model = open_onnx(path, levels, licensed=lambda terms: check_license(terms, accept_license))
    most = model.source.architecture.context
    if context is not None:
        if not 1 <= context <= most:
            raise InvalidRequest(f"context {context} is not within 1 to the model's {most}", field="context")
        model = limited(model, context)
    report("source", 1, 1)
    for warning in model.source.warnings:
        print(warning, file=sys.stderr)
    folder = out or root / model.source.id
    names = [name for name in VARIANTS if name in (variants or VARIANTS)]
    graphs = dict(sorted(model.graphs.items(), key=lambda item: item[1].bytes, reverse=True))
    mark = fingerprint(model.source, {"variants": names, "levels": list(graphs)})
    if is_current(folder, mark) and {v.name for v in load_manifest(folder).variants} == set(names):
        return folder
    with ArtifactWriter(
        folder, model.source, fingerprint=mark, accept_license=accept_license, progress=report, levels=list(graphs)
    ) as writer, tempfile.TemporaryDirectory() as scratch:  # fmt: skip
        writer.check_room(sum(graph.bytes for graph in graphs.values()))
        sampler = link_sampler(Path(scratch))
        for level, graph in graphs.items():
            writer.begin_section([level])
            writer.set_graph(level, _write(graph, writer, level if len(graphs) > 1 else "weights"))
            _add_variants(writer, graph, names, sampler, level)
        writer.finish()
    return folder


@dataclass(frozen=True, slots=True)
class Carried:
    """A graph of the same model, beside what is compiled of it. ``sha256``: of what decides its bytes."""

    graph: GraphFiles
    sha256: str


def open_carried(ref: str, model: Source) -> Carried:
    """``ref``: FOLDER or FOLDER:PRECISION. Raises `SourceInvalid` where it is not the same model's, as far as sizes
    tell, and as `open_onnx` does."""
    graph, found, sha256 = open_graph(ref)
    for name in ("layers", "heads", "kv_heads", "head_dim", "hidden", "vocab"):
        own, its = getattr(model.architecture, name), getattr(found, name)
        if own != its:
            raise SourceInvalid(f"the graph is of another model: its {name} is {its}, {model.id}'s {own}", field=name)
    if found.context < model.architecture.context:
        raise SourceInvalid(
            f"the graph's context is {found.context}, {model.id}'s {model.architecture.context}: use --context",
            field="context",
        )
    return Carried(graph, sha256)


def add_carried(writer: ArtifactWriter, carried: Carried, level: str) -> None:
    """To an artifact whose own weights are written."""
    with tempfile.TemporaryDirectory() as scratch:
        writer.check_room(carried.graph.bytes)
        writer.begin_graph(level)
        writer.set_graph(level, _write(carried.graph, writer, "graph"))
        _add_variants(writer, carried.graph, list(VARIANTS), link_sampler(Path(scratch)), level)


def _add_variants(
    writer: ArtifactWriter, graph: GraphFiles, names: Sequence[str], sampler: Path, level: str
) -> None:  # fmt: skip
    for name in names:
        backend, requires = VARIANTS[name]
        more = ("shader-f16",) if graph.halves and "webgpu" in requires else ()
        writer.add_variant(name, backend, [*requires, *more], {"sampler.wasm": sampler}, level)


def link_sampler(scratch: Path) -> Path:
    """sampler.wasm, in the folder ``scratch``."""
    table = scratch / "table.c"
    table.write_text(_NO_KERNELS)
    return link_wasm([], table, scratch / "sampler.wasm", relaxed=False)


def _write(graph: GraphFiles, writer: ArtifactWriter, phase: str) -> GraphRef:
    """The graph's file and those of its tensors, one behind the other in the section that was begun."""
    total, done, at = graph.bytes, 0, 0
    files = []
    for i, path in enumerate((graph.file, *(path for _, path in graph.data))):
        size = path.stat().st_size
        if i > 0:
            at = -(-at // ALIGN) * ALIGN
            files.append(GraphFile(graph.data[i - 1][0], at, size))
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                writer.add_bytes(at, memoryview(chunk))
                at += len(chunk)
                done += len(chunk)
                writer.report(phase, done, total)
    cache = [GraphCache(*names) for layer in graph.layers for names in (layer.key, layer.value)]
    size = graph.file.stat().st_size
    return GraphRef(size, tuple(files), graph.inputs, tuple(cache), graph.cache_type, LOGITS)
