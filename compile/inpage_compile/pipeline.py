"""`compile_model`: a source of weights in, an artifact folder out.

Phases, each reported to ``progress(phase, done, total)``: source (opened), weights (bytes), then one a variant.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from inpage.errors import ArtifactInvalid, InvalidRequest, Unsupported
from inpage.format.plan import parse_plan
from inpage.format.plan_views import check_for_webgpu, describe
from inpage.format.schema import Architecture, Tensor

from .artifact import weights
from .artifact.fingerprint import fingerprint
from .artifact.levels import SOURCE, sources_of
from .artifact.licenses import check_license
from .artifact.writer import ArtifactWriter, is_current, load_manifest
from .families.encoder_graph import build_encoder, build_gpu_encoders, encoder_maxima, outputs_of, packing_of
from .families.graph import build_gpu_graphs, build_graph, heads_of
from .families.layers import layout_of
from .lowering.plan import Graph, LoweredPlan, make_plan, trampolines
from .onnx_model import Carried, add_carried, compile_onnx, open_carried
from .ops.maxima import Maxima
from .ops.webgpu import tiers_for
from .sources import Source, open_source
from .sources.onnx import onnx_folder
from .targets.codegen import compile_object
from .targets.link import link_native, link_wasm
from .targets.variants import VariantSpec, choose
from .targets.webgpu import shaders

Progress = Callable[[str, int, int], None]

# What one step takes. Rows: enough to keep a weight block in cache for many activations, few enough for a small arena.
ROWS, SEQUENCES, LOGIT_ROWS = 128, 16, 16
# On CPUs, steps of one row and of so many rows have functions of their own: linear layers are made for one row, and
# attention of few rows takes scratch for the whole context for each of them.
FEW_ROWS = 8
_WASM_BYTES = 1 << 32  # that WebAssembly addresses


def compile_model(
    source: str,
    out: Path | None = None,
    *,
    root: Path = Path("build/models"),
    variants: tuple[str, ...] | None = None,
    context: int | None = None,
    levels: tuple[str, ...] = (),
    progress: Progress | None = None,
    accept_license: bool = False,
    dump: bool = False,
    onnx: str | None = None,
) -> Path:
    """Compile to ``out`` (default: ``root``/model id) and return that folder; an unchanged model is left as it is. Of
    ``onnx:FOLDER``, or a folder that has nothing but graphs, see `compile_onnx`.

    ``variants``: names, default all for the page and this machine; of those by default one that cannot be made of this
    model is left out, and stderr says why. ``context``: at most this many tokens. ``levels``: in which precisions (see
    `levels`), default the source's own; of several the largest is the best, and what they share is stored once.
    ``dump`` prints every plan. ``onnx``: a graph of the same model that the best level carries as
    well (see `open_carried`). Raises `SourceInvalid`, `Unsupported` and `InvalidRequest`."""
    report = progress or (lambda phase, done, total: None)
    if (graphs := onnx_folder(source)) is not None:
        if onnx is not None:
            raise InvalidRequest("the source is a graph itself", field="onnx")
        return compile_onnx(graphs, out, root, variants, context, levels, report, accept_license)
    chosen = choose(variants)
    report("source", 0, 1)
    opened = open_source(
        source,
        licensed=lambda terms: check_license(terms, accept_license),
        progress=lambda done, total: report("download", done, total),
    )
    model = limit_context(opened, context)
    carried = None if onnx is None else open_carried(onnx, model)
    report("source", 1, 1)
    for warning in model.warnings:
        print(warning, file=sys.stderr)
    folder = out or root / model.id
    at_levels = sources_of(model, levels or (SOURCE,))
    at_levels = dict(sorted(at_levels.items(), key=lambda item: weights.size(item[1]), reverse=True))
    options: dict[str, Any] = {
        "rows": ROWS,
        "sequences": SEQUENCES,
        "logit_rows": LOGIT_ROWS,
        "levels": list(at_levels),
    }
    if carried is not None:
        options["onnx"] = carried.sha256
    mark = fingerprint(model, {"variants": [v.name for v in chosen], **options})
    if dump or not is_current(folder, mark) or (variants and not _has(folder, chosen)):
        # Before gigabytes of weights are converted:
        _check_shape(model.architecture)
        for spec in chosen if variants else ():
            _check_size(spec, min(map(weights.size, at_levels.values())))
        _write(model, at_levels, folder, mark, chosen, report, accept_license, dump, variants is None, carried)
    return folder


def _has(folder: Path, chosen: list[VariantSpec]) -> bool:
    """Whether an artifact was made with all of these variants: one made by default may lack some."""
    return {spec.name for spec in chosen} <= {v.name for v in load_manifest(folder).variants}


def _write(
    model: Source, at_levels: Mapping[str, Source], folder: Path, mark: str, chosen: list[VariantSpec],
    report: Progress, accept: bool, dump: bool, skip: bool, carried: Carried | None,
) -> None:  # fmt: skip
    names = list(at_levels)
    with ArtifactWriter(
        folder, model, fingerprint=mark, accept_license=accept, progress=report, levels=names
    ) as writer:
        entries = weights.plan_and_write_levels(at_levels, writer)
        for level in names:
            tensors, left_out = {t.name: t for t in entries[level]}, 0
            for spec in chosen:
                phase = spec.name if len(names) == 1 else f"{level} {spec.name}"
                report(phase, 0, 1)
                try:
                    with tempfile.TemporaryDirectory() as scratch:
                        files, readable = compile_variant(spec, model.architecture, tensors, Path(scratch))
                        writer.add_variant(spec.name, spec.backend, list(spec.requires), files, level)
                except Unsupported as error:
                    left_out += 1
                    if not skip or left_out == len(chosen):
                        raise
                    print(f"{phase} is left out: {error}", file=sys.stderr)
                else:
                    if dump:
                        print(readable)
                report(phase, 1, 1)
        if carried is not None:
            add_carried(writer, carried, names[0])
        writer.finish()


def compile_variant(
    spec: VariantSpec, architecture: Architecture, tensors: Mapping[str, Tensor], scratch: Path
) -> tuple[dict[str, bytes | Path], str]:
    """plan.json and the linked kernels (written to ``scratch``), and the plan for people. Raises `Unsupported`, naming
    the field, where the variant cannot be made of this model."""
    lowered = lower_variant(spec, architecture, tensors)
    checked = parse_plan(lowered.json, tensors.values())
    _check_size(spec, max(t.offset + t.bytes for t in tensors.values()) + checked.arena_bytes)
    text = json.dumps(lowered.json, separators=(",", ":"))
    if spec.backend == "webgpu":
        try:
            check_for_webgpu(checked)
        except ArtifactInvalid as error:  # the plan is sound, but larger than WebGPU's default limits
            raise Unsupported(f"{spec.name} cannot be made of this model: {error}", field=error.field) from error
        return {"plan.json": text.encode(), spec.library: shaders(lowered.kernels).encode()}, describe(checked)
    obj = compile_object(lowered.kernels, spec.target(), scratch / "kernels.o")
    table = scratch / "table.c"
    table.write_text(trampolines(lowered))
    library = scratch / spec.library
    if spec.backend == "wasm":
        link_wasm([obj], table, library, relaxed=spec.isa.name == "wasm-relaxed")
    else:
        link_native([obj], table, library)
    return {"plan.json": text.encode(), spec.library: library}, describe(checked)


def _check_size(spec: VariantSpec, needed: int) -> None:
    if spec.backend == "wasm" and needed >= _WASM_BYTES:
        raise Unsupported(
            f"{spec.name} cannot be made of this model: {needed / 1e9:.2f} GB do not fit the {_WASM_BYTES / 1e9:.2f} "
            "GB that WebAssembly addresses; a lower level (--levels) or a WebGPU variant may",
            field="variants",
        )


def lower_variant(
    spec: VariantSpec, architecture: Architecture, tensors: Mapping[str, Tensor], maxima: Maxima | None = None
) -> LoweredPlan:
    """The plan of a variant and its kernels, not yet compiled."""
    maxima = maxima or _maxima(architecture)
    if architecture.encoder:
        return _lower_encoder(spec, architecture, tensors, maxima)
    groups = layout_of(architecture).groups
    if spec.backend == "webgpu":
        tiers = tiers_for(maxima.rows, maxima.sequences)
        mods, names = build_gpu_graphs(architecture, tensors, spec.activations, maxima, tiers)
        graphs = [Graph(t.name, t.rows, mod) for t, mod in zip(tiers, mods, strict=True)]
        return make_plan(graphs, names, tensors, spec.name, maxima, architecture.vocab, 2, groups)
    graphs = []
    for name, rows in (("decode", 1), ("batch", FEW_ROWS), ("step", maxima.rows)):
        if graphs and rows <= graphs[-1].rows:
            continue
        limits, last = replace(maxima, rows=min(rows, maxima.rows)), name == "step"
        mod, names = build_graph(
            architecture, tensors, spec.isa, spec.activations, limits, split=not last, single=limits.rows == 1
        )
        graphs.append(Graph(name, limits.rows, mod))
    return make_plan(graphs, names, tensors, spec.name, maxima, architecture.vocab, groups=groups)


def _lower_encoder(
    spec: VariantSpec, architecture: Architecture, tensors: Mapping[str, Tensor], maxima: Maxima
) -> LoweredPlan:
    """One function for steps of every size: they come full."""
    if spec.backend == "webgpu":
        tiers = tiers_for(maxima.rows, 1)[-1:]
        mods, names = build_gpu_encoders(architecture, tensors, spec.activations, maxima, tiers)
    else:
        mod, names = build_encoder(architecture, tensors, spec.isa, spec.activations, maxima)
        mods = [mod]
    graphs = [Graph("step", maxima.rows, mod) for mod in mods]
    arenas = 2 if spec.backend == "webgpu" else 1
    return make_plan(
        graphs, names, tensors, spec.name, maxima, architecture.vocab, arenas, width=outputs_of(architecture)
    )


def _check_shape(architecture: Architecture) -> None:
    maxima = _maxima(architecture)
    if architecture.encoder:
        packing_of(architecture, maxima)
    else:
        heads_of(architecture, maxima)


def _maxima(architecture: Architecture) -> Maxima:
    if architecture.encoder:
        return encoder_maxima(architecture)
    return Maxima(ROWS, SEQUENCES, LOGIT_ROWS, architecture.context)


def limit_context(model: Source, context: int | None) -> Source:
    if context is None:
        return model
    most = model.architecture.context
    if not 1 <= context <= most:
        raise InvalidRequest(f"context {context} is not within 1 to the model's {most}", field="context")
    return replace(model, architecture=replace(model.architecture, context=context))
