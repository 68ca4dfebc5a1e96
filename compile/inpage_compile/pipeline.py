"""`compile_model`: a source of weights in, an artifact folder out.

Phases, each reported to ``progress(phase, done, total)``: source (opened), weights (bytes), then one a variant.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from inpage.errors import ArtifactInvalid, InvalidRequest, OutOfMemory, Unsupported
from inpage.format.plan import parse_plan
from inpage.format.plan_types import Plan
from inpage.format.plan_views import check_for_webgpu, describe
from inpage.format.schema import Architecture, Exam, Manifest, Perplexity, Pruning, Tensor

from .artifact import weights
from .artifact.fingerprint import fingerprint
from .artifact.levels import LEVELS, SOURCE, default_level, distinct, fallbacks, sources_of
from .artifact.licenses import check_license
from .artifact.scratch import scratch
from .artifact.writer import ArtifactWriter, is_current, load_manifest
from .carried import Carried
from .families.encoder_graph import build_encoder, build_gpu_encoders, encoder_maxima, outputs_of, packing_of
from .families.graph import build_gpu_graphs, build_graph, heads_of
from .families.layers import layout_of
from .lowering.plan import Graph, LoweredPlan, make_plan, trampolines
from .measure import exam, perplexity
from .measure.budget import best_level
from .mlc_model import VARIANT as MLC
from .mlc_model import compile_mlc, open_carried_library
from .onnx_model import compile_onnx, open_carried
from .ops.maxima import Maxima
from .ops.webgpu import tiers_for
from .pruning.embedding import check_saving, with_embedding
from .pruning.steps import Wanted, prepare, prune
from .sources import Source, open_source
from .sources.base import limit_context
from .sources.mlc_library import mlc_folder
from .sources.onnx import onnx_folder
from .targets.codegen import compile_object
from .targets.link import link_native, link_wasm
from .targets.variants import ROWS, VariantSpec, all_variants, choose
from .targets.webgpu import shaders

Progress = Callable[[str, int, int], None]

SEQUENCES, LOGIT_ROWS = 16, 16  # that one step takes
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
    target_memory: int | None = None,
    measure: bool = False,
    progress: Progress | None = None,
    accept_license: bool = False,
    dump: bool = False,
    pruning: Wanted | None = None,
    onnx: str | None = None,
    mlc_lib: str | None = None,
    prefill_rows: int = ROWS,
) -> Path:
    """Compile to ``out`` (default: ``root``/model id) and return that folder; an unchanged model is left as it is. Of
    ``onnx:FOLDER``, or a folder that has nothing but graphs, see `compile_onnx`.

    ``variants``: names, default all for the page and this machine; of those by default one that cannot be made of this
    model is left out, and stderr says why. ``context``: at most this many tokens. ``levels``: in which precisions (see
    `levels`), by default q4_k_m of a language model in floats, else the source's own; of several the largest is the
    best, and what they share is stored once. ``target_memory``: of those, or of all where none are named, only the best
    that fits into so many bytes. ``measure``: perplexity of each, and of the source, goes into the manifest.
    ``pruning``: what leaves the model first, see `pruning.steps`; levels are chosen by what is left. ``onnx``: a graph
    of the same model that the best level carries as well (see `open_carried`). ``mlc_lib``: a library that MLC compiled
    for ``source``, a folder of MLC's, carried with its weights as they are (see `read_library`); with the variant
    mlc-webgpu alone nothing else is. ``prefill_rows``: how many tokens of a prompt a step of a WebGPU variant takes at
    most, 128, 256, 512 or 1024; the same bits, with larger arenas. ``dump`` prints every plan. Raises `SourceInvalid`,
    `Unsupported`, `InvalidRequest` and, where no level fits, `OutOfMemory`."""
    report = progress or (lambda phase, done, total: None)
    longer = prefill_rows != ROWS
    if pruning is not None and pruning.text and not pruning:
        raise InvalidRequest("a text to measure on is for --prune-vocab, --drop-layers or --embedding", field="text")
    if (graphs := onnx_folder(source)) is not None:
        why = "the source is a graph: its bytes are carried as they are, and ONNX Runtime runs it"
        asked = (pruning or Wanted()).options | {"onnx": onnx, "mlc_lib": mlc_lib}
        _check_compiled(why, target_memory=target_memory, measure=measure, dump=dump, prefill_rows=longer, **asked)
        return compile_onnx(graphs, out, root, variants, context, levels, report, accept_license)
    if mlc_lib is not None and variants == (MLC,):
        asked = (pruning or Wanted()).options | {"onnx": onnx, "levels": levels}
        why = f"of {MLC} alone nothing is compiled"
        _check_compiled(why, target_memory=target_memory, measure=measure, dump=dump, prefill_rows=longer, **asked)
        return compile_mlc(source, mlc_lib, out, root, context, report, accept_license)
    for option, given in (("onnx", onnx), ("mlc_lib", mlc_lib)):
        if pruning and given is not None:
            raise InvalidRequest("what is of the whole model cannot stand beside a pruned one", field=option)
    if mlc_lib is not None:
        mlc_folder(source)
        variants = variants and tuple(name for name in variants if name != MLC)
    chosen = choose(variants, prefill_rows)
    report("source", 0, 1)
    opened = open_source(
        source,
        licensed=lambda terms: check_license(terms, accept_license),
        progress=lambda done, total: report("download", done, total),
    )
    model = limit_context(opened, context)
    if longer and model.architecture.encoder:
        raise InvalidRequest("an encoder reads a text in one step: leave it out", field="prefill_rows")
    carried: list[Carried] = [] if onnx is None else [open_carried(onnx, model)]
    if mlc_lib is not None:
        carried.append(open_carried_library(source, mlc_lib, report))
    for each in carried:
        if target_memory is not None and each.bytes > target_memory:
            raise InvalidRequest(
                f"its {each.bytes / 1e6:.1f} MB are beyond target_memory, {target_memory / 1e6:.1f} MB: take another "
                "precision, or leave it out",
                field=each.option,
            )
    report("source", 1, 1)
    for warning in model.warnings:
        print(warning, file=sys.stderr)
    folder = out or root / model.id
    named = levels or ((default_level(model),) if target_memory is None else LEVELS)
    at_levels = _at_levels(model, named, strict=bool(levels))
    if target_memory is not None and not pruning:
        at_levels = _best(at_levels, target_memory, chosen, variants)
    measured_by = _native(model, chosen) if measure else None
    options = {"rows": ROWS, "sequences": SEQUENCES, "logit_rows": LOGIT_ROWS, "levels": list(at_levels)}
    options |= {"measured on": perplexity.TEXT} if measure else {}
    options |= {"prefill_rows": prefill_rows} if prefill_rows != ROWS else {}
    if pruning:
        options |= {"pruning": pruning.mark(), "target_memory": target_memory}
    options |= {each.option: each.sha256 for each in carried}
    mark = fingerprint(model, {"variants": [v.name for v in chosen], **options})
    if dump or not is_current(folder, mark) or (variants and not _has(folder, chosen)):
        # Before gigabytes of weights are converted:
        _check_shape(model.architecture)
        if pruning:
            prepared = prepare(model, pruning)
            at_levels = _at_levels(prepared.sized, named, bool(levels), pruning.embedding)
            if target_memory is not None:
                at_levels = _best(at_levels, target_memory, chosen, variants)
            if pruning.embedding:
                check_saving(sources_of(prepared.sized, tuple(at_levels)), pruning.embedding)
        for spec in chosen if variants else ():
            _check_size(spec, min(map(weights.size, at_levels.values())))
        done: list[Pruning] = []
        original = model if pruning else None
        if pruning:
            best = next(iter(at_levels))
            model, done = prune(prepared, pruning, partial(_compiled, level=best, beside=folder, report=report))
            at_levels = _at_levels(model, tuple(at_levels), True, pruning.embedding)
            if target_memory is not None and model.architecture != prepared.sized.architecture:
                at_levels = _best(at_levels, target_memory, chosen, variants)
        for name, rounded in at_levels.items():
            for line in fallbacks(rounded):
                print(f"{name}: {line}", file=sys.stderr)
        _write(
            model, at_levels, folder, mark, chosen, report, accept_license, dump, variants is None, measured_by, done,
            carried=carried, original=original,
        )  # fmt: skip
    return folder


def _check_compiled(why: str, **options: object) -> None:
    """None of these can be asked of what is carried as it is."""
    for name, given in options.items():
        if given:
            raise InvalidRequest(f"{why}; {name} is for other sources", field=name)


def _at_levels(model: Source, names: Sequence[str], strict: bool, embedding: str = "") -> dict[str, Source]:
    """The model at these levels, the largest first. Two that come out the same are refused if ``strict``, else one of
    them is left out."""
    found = sources_of(model, names) if strict else distinct(model, names)
    found = {name: with_embedding(at, model, embedding) for name, at in found.items()}
    return dict(sorted(found.items(), key=lambda item: weights.size(item[1]), reverse=True))


def _best(
    at_levels: Mapping[str, Source], target: int, chosen: Sequence[VariantSpec], named: Sequence[str] | None
) -> dict[str, Source]:
    """The only one that is carried. ``named``: variants that must be; else one of ``chosen`` is enough."""
    best = best_level(at_levels, target, lambda source: plans_of(source, chosen, every=named is not None))
    return {best: at_levels[best]}


@contextmanager
def _compiled(model: Source, embedding: str, level: str, beside: Path, report: Progress) -> Iterator[Path]:
    """An artifact of the model at one level, for this machine alone and for as long as it is measured; on the disk of
    the one that is made."""
    at_level = _at_levels(model, (level,), True, embedding)
    with scratch(beside, "measured") as place:
        folder = place / "model"
        told = partial(_told_as_measuring, report)
        _write(model, at_level, folder, "", choose(("native",)), told, True, False, skip=False, quick=True)
        yield folder


def _told_as_measuring(report: Progress, phase: str, done: int, total: int) -> None:
    report(f"measuring: {phase}", done, total)


def plans_of(source: Source, chosen: Sequence[VariantSpec], every: bool = False) -> list[Plan]:
    """The plans of those variants that can be made of the model. Raises `Unsupported` where none can, or with ``every``
    where one cannot."""
    tensors = {p.entry.name: p.entry for p in weights.plan(source)}
    plans, last = [], None
    for spec in chosen:
        try:
            plan = parse_plan(lower_variant(spec, source.architecture, tensors).json, tensors.values())
            _check_plan(spec, plan, tensors)
            plans.append(plan)
        except Unsupported as error:
            last = error
    if last is not None and (every or not plans):
        raise last
    return plans


def _native(model: Source, chosen: Sequence[VariantSpec]) -> VariantSpec:
    """The variant that perplexity is measured with."""
    if model.architecture.encoder:
        raise InvalidRequest(f"{model.id} predicts no text: it has no perplexity to measure", field="measure")
    spec = next((spec for spec in chosen if spec.backend == "native"), None)
    if spec is None:
        raise InvalidRequest("perplexity is measured by the native engine: name native in --variants", field="measure")
    return spec


def _has(folder: Path, chosen: list[VariantSpec]) -> bool:
    """Whether an artifact was made with all of these variants: one made by default may lack some."""
    return {spec.name for spec in chosen} <= {v.name for v in load_manifest(folder).variants}


def _write(
    model: Source, at_levels: Mapping[str, Source], folder: Path, mark: str, chosen: list[VariantSpec],
    report: Progress, accept: bool, dump: bool, skip: bool, measure: VariantSpec | None = None,
    pruning: Sequence[Pruning] = (), quick: bool = False, carried: Sequence[Carried] = (),
    original: Source | None = None,
) -> None:  # fmt: skip
    """``original``: what a pruned model was, with which perplexities are compared."""
    if list(at_levels) == [SOURCE]:
        at_levels = {"": at_levels[SOURCE]}
    names = list(at_levels)
    with ArtifactWriter(
        folder, model, fingerprint=mark, accept_license=accept, progress=report, levels=names, pruning=pruning
    ) as writer:
        entries = weights.plan_and_write_levels(at_levels, writer)
        for level in names:
            tensors, left_out = {t.name: t for t in entries[level]}, 0
            for spec in chosen:
                phase = spec.name if len(names) == 1 else f"{level} {spec.name}"
                report(phase, 0, 1)
                try:
                    with tempfile.TemporaryDirectory() as scratch:
                        files, readable = compile_variant(spec, model.architecture, tensors, Path(scratch), quick)
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
        for each in carried:
            each.add(writer, names[0])
        examined = not (quick or model.architecture.encoder or model.origin.random)
        examined = examined and any(spec.backend == "webgpu" for spec in chosen)
        writer.finish(
            (lambda made: _measure(model, original, made, names, measure, report)) if measure else None,
            (lambda made: _examine(made, writer.levels_with("webgpu"), report)) if examined else None,
        )


def _examine(made: Path, levels: Sequence[str], report: Progress) -> dict[str, Exam]:
    """What their GPU variants have to get right where they are loaded."""

    def reference(manifest: Manifest, scratch: Path) -> dict[str, bytes | Path]:
        spec, tensors = all_variants()[exam.REFERENCE], {t.name: t for t in manifest.tensors}
        return compile_variant(spec, manifest.architecture, tensors, scratch, quick=True)[0]

    report("exam", 0, len(levels))
    found = {}
    for i, level in enumerate(levels):
        try:
            found[level] = exam.exam_of(made, level, reference)
        except (Unsupported, OutOfMemory) as error:  # it asks for this machine's CPU and for all weights at once
            print(f"the exam of GPU variants is left out: {error}", file=sys.stderr)
        report("exam", i + 1, len(levels))
    return found


def _measure(
    model: Source, original: Source | None, made: Path, names: Sequence[str], spec: VariantSpec, report: Progress
) -> dict[str, Perplexity]:
    """Perplexity of each level of an artifact, and of the source, made for that where it is none of them."""
    report("perplexity", 0, 1)
    found = dict(zip(names, perplexity.measure(made, names if len(names) > 1 else [""], spec.name), strict=True))
    whole = None if original else found.get(SOURCE) or found.get("")
    if whole is None:
        # Within what is written: it goes with that where this process is killed.
        with tempfile.TemporaryDirectory(dir=made, prefix=".source-") as place:
            source, out = original or model, Path(place) / "source"
            _write(source, {SOURCE: source}, out, "", [spec], lambda *_: None, True, dump=False, skip=False, quick=True)
            (whole,) = perplexity.measure(out, [""], spec.name)
    report("perplexity", 1, 1)
    return {
        name: Perplexity(each.by_tokens_of(whole), whole.perplexity, whole.positions, whole.window, perplexity.TEXT)
        for name, each in found.items()
    }


def compile_variant(
    spec: VariantSpec, architecture: Architecture, tensors: Mapping[str, Tensor], scratch: Path, quick: bool = False
) -> tuple[dict[str, bytes | Path], str]:
    """plan.json and the linked kernels (written to ``scratch``), and the plan for people. ``quick``: compile a third of
    the kernels, to the same bits (see `lower_variant`). Raises `Unsupported`, naming the field, where the variant
    cannot be made of this model."""
    lowered = lower_variant(spec, architecture, tensors, quick=quick)
    checked = parse_plan(lowered.json, tensors.values())
    _check_plan(spec, checked, tensors)
    text = json.dumps(lowered.json, separators=(",", ":"))
    if spec.backend == "webgpu":
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


def _check_plan(spec: VariantSpec, plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    _check_size(spec, max(t.offset + t.bytes for t in tensors.values()) + plan.arena_bytes)
    if spec.backend == "webgpu":
        try:
            check_for_webgpu(plan)
        except ArtifactInvalid as error:  # the plan is sound, but larger than WebGPU's default limits
            raise Unsupported(f"{spec.name} cannot be made of this model: {error}", field=error.field) from error


def _check_size(spec: VariantSpec, needed: int) -> None:
    if spec.backend == "wasm" and needed >= _WASM_BYTES:
        raise Unsupported(
            f"{spec.name} cannot be made of this model: {needed / 1e9:.2f} GB do not fit the {_WASM_BYTES / 1e9:.2f} "
            "GB that WebAssembly addresses; a lower level (--levels) or a WebGPU variant may",
            field="variants",
        )


def lower_variant(
    spec: VariantSpec, architecture: Architecture, tensors: Mapping[str, Tensor], maxima: Maxima | None = None,
    quick: bool = False,
) -> LoweredPlan:  # fmt: skip
    """The plan of a variant and its kernels, not yet compiled. ``quick``: on CPUs without the functions for few rows,
    which leave the same bits sooner."""
    maxima = maxima or _maxima(architecture, spec.rows)
    if architecture.encoder:
        return _lower_encoder(spec, architecture, tensors, maxima)
    groups = layout_of(architecture).groups
    if spec.backend == "webgpu":
        tiers = tiers_for(maxima.rows, maxima.sequences, architecture.hidden)
        mods, names = build_gpu_graphs(architecture, tensors, spec.activations, maxima, tiers, spec.units)
        graphs = [Graph(t.name, t.rows, mod) for t, mod in zip(tiers, mods, strict=True)]
        return make_plan(graphs, names, tensors, spec.name, maxima, architecture.vocab, 2, groups)
    graphs = []
    for name, rows in (("decode", 1), ("batch", FEW_ROWS), ("step", maxima.rows)):
        if (graphs and rows <= graphs[-1].rows) or (quick and name != "step"):
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
        tiers = tiers_for(maxima.rows, 1, architecture.hidden)[-1:]
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


def _maxima(architecture: Architecture, rows: int = ROWS) -> Maxima:
    if architecture.encoder:
        return encoder_maxima(architecture)
    return Maxima(rows, SEQUENCES, LOGIT_ROWS, architecture.context)
