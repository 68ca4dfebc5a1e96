"""`compile_onnx`: a folder with .onnx files in, an artifact whose engine is ONNX Runtime out.

Nothing is compiled but the sampler, which is our runtime without a kernel; the graph and its files of tensors become
the weight space as they are, so that they are fetched, kept, resumed and verified like any model's."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inpage.errors import InvalidRequest, SourceInvalid
from inpage.format.schema import GraphCache, GraphRef

from .artifact.fingerprint import fingerprint
from .artifact.licenses import check_license
from .artifact.writer import ArtifactWriter, is_current, load_manifest
from .carried import link_sampler, write_files
from .sources import Source
from .sources.base import limit_context
from .sources.onnx import KIND, LOGITS, GraphFiles, open_graph, open_onnx

Progress = Callable[[str, int, int], None]

# By name: backend, and what the device must have. The sampler needs threads' memory and SIMD wherever it runs.
VARIANTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "onnx-webgpu": ("onnx-webgpu", ("simd128", "atomics", "webgpu")),
    "onnx-wasm": ("onnx", ("simd128", "atomics")),
}


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
    model = replace(model, source=limit_context(model.source, context))
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
            _write(graph, writer, level, level if len(graphs) > 1 else "weights")
            _add_variants(writer, graph, names, sampler, level)
        writer.finish()
    return folder


@dataclass(frozen=True, slots=True)
class CarriedGraph:
    """See `Carried`."""

    graph: GraphFiles
    sha256: str

    @property
    def option(self) -> str:
        return KIND

    @property
    def bytes(self) -> int:
        return self.graph.bytes

    def add(self, writer: ArtifactWriter, level: str) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            writer.check_room(self.bytes)
            writer.begin_section([level], "graph")
            _write(self.graph, writer, level, "graph")
            _add_variants(writer, self.graph, list(VARIANTS), link_sampler(Path(scratch)), level)


def open_carried(ref: str, model: Source) -> CarriedGraph:
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
    return CarriedGraph(graph, sha256)


def _add_variants(
    writer: ArtifactWriter, graph: GraphFiles, names: Sequence[str], sampler: Path, level: str
) -> None:  # fmt: skip
    for name in names:
        backend, requires = VARIANTS[name]
        more = ("shader-f16",) if graph.halves and "webgpu" in requires else ()
        writer.add_variant(name, backend, [*requires, *more], {"sampler.wasm": sampler}, level)


def _write(graph: GraphFiles, writer: ArtifactWriter, level: str, phase: str) -> None:
    """The graph's file and those of its tensors, to the section that was begun."""
    first, *files = write_files(writer, phase, [(graph.file.name, graph.file), *graph.data])
    cache = tuple(GraphCache(*names) for layer in graph.layers for names in (layer.key, layer.value))
    writer.set_part(level, GraphRef(first.bytes, tuple(files), graph.inputs, cache, graph.cache_type, LOGITS))
