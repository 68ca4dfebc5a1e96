"""Folders with .onnx files, as onnxruntime-genai's model builder and transformers.js's exports have them: one graph a
precision, in the folder itself or in ``onnx``, with config.json and tokenizer.json beside or above them.

The graph is taken as it is; of config.json only what a cache and a context need."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inpage.errors import InvalidRequest, SourceInvalid, brief, quoted
from inpage.format.schema import ARCHITECTURE_LIMITS, Architecture, SourceRef

from ..checkpoints.config import PREFIX, Config
from ..checkpoints.files import ModelFolder
from ..onnx.graph import GraphValue, Layer, OnnxGraph, layers_of, read_graph
from .base import LicenseInfo, Source
from .folder import BESIDE, CONFIG, read_beside, source_of, template_and_terms, tokenizer_of, without_tensors
from .problems import Problems
from .sampling import from_generation_config
from .sizes import architecture_of, size_of

KIND = "onnx"
_BELOW = "onnx"
_FILE = re.compile(r"model(?:_([a-z0-9]+))?\.onnx")
# By the file name's ending, as transformers.js calls them; of another ending, the ending is the name.
_PRECISIONS = {"": "fp32", "quantized": "q8"}
LOGITS = "logits"
# Inputs beside the cache that an engine can fill: what it puts there must be of this type.
INPUTS: Mapping[str, str] = dict.fromkeys(
    ("input_ids", "attention_mask", "position_ids", "num_logits_to_keep"), "int64"
)
_FLOATS = ("float32", "float16")


@dataclass(frozen=True, slots=True)
class GraphFiles:
    """A graph and the files of tensors that it names, in the order in which it does. ``inputs``: those beside the
    cache's; ``layers``: names of the cache's; ``cache_type``: of its numbers; ``halves``: some are
    float16."""

    file: Path
    data: tuple[tuple[str, Path], ...]
    inputs: tuple[str, ...]
    layers: tuple[Layer, ...]
    cache_type: str
    halves: bool

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.file, *(path for _, path in self.data)))


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """``graphs``: by precision. ``source`` has all the rest, and no tensors."""

    source: Source
    graphs: Mapping[str, GraphFiles]


def onnx_folder(ref: str) -> Path | None:
    """The folder that ``onnx:FOLDER`` means, or a folder that has graphs and no weights of another kind."""
    if ref.startswith(f"{KIND}:"):
        return Path(ref.removeprefix(f"{KIND}:"))
    path = Path(ref)
    if not path.is_dir() or any(path.glob("*.safetensors")) or (path / "mlc-chat-config.json").exists():
        return None
    graphs = (*path.glob("*.onnx"), *path.glob(f"{_BELOW}/*.onnx"))
    return path if any(_FILE.fullmatch(each.name) for each in graphs) else None


def open_onnx(
    path: Path, precisions: Sequence[str] = (), *, licensed: Callable[[LicenseInfo], object] = lambda _: None
) -> OnnxModel:
    """Open a folder of graphs. ``precisions``: which of them (fp32, fp16, q4, q4f16, int8, …); none: the only one that
    there is. ``licensed``: see `open_gguf`. Raises `SourceInvalid` with the field at fault, and `InvalidRequest` where
    it does not say which of several graphs is meant."""
    folder, problems = ModelFolder(path), Problems("this folder")
    beside = read_beside(folder, problems)
    config, graphs, architectures = _graphs(folder, precisions, problems)
    rows = architectures[0].vocab if architectures else 0
    tokenizer = problems.of(lambda: tokenizer_of(folder, config or {}, beside, rows)) if rows else None
    template, terms = template_and_terms(folder, beside, problems, licensed)
    assert tokenizer is not None
    sampling, more = from_generation_config(beside["generation_config.json"])
    files = [name for name in (CONFIG, "tokenizer.json", *BESIDE, "chat_template.jinja") if folder.has(name)]
    named = next(iter(graphs.values())).file.name
    deciding = folder.sha256([*files, *_deciding(folder, graphs)])
    source = source_of(
        path, folder, SourceRef(KIND, "", named, deciding), None, without_tensors(architectures[0]),
        tokenizer, template, terms, sampling, more,
    )  # fmt: skip
    return OnnxModel(source, graphs)


def open_graph(ref: str) -> tuple[GraphFiles, Architecture, str]:
    """One graph, for a model that comes from elsewhere: FOLDER or FOLDER:PRECISION. Its files, its sizes and the
    sha256 of what decides them. Raises as `open_onnx`."""
    place, _, precision = ref.removeprefix(f"{KIND}:").rpartition(":")
    path, wanted = (Path(place), (precision,)) if place and not Path(ref).is_dir() else (Path(precision), ())
    folder, problems = ModelFolder(path), Problems("this folder")
    _, graphs, architectures = _graphs(folder, wanted, problems)
    problems.check()
    (graph,) = graphs.values()
    return graph, architectures[0], folder.sha256([CONFIG, *_deciding(folder, graphs)])


def _graphs(
    folder: ModelFolder, precisions: Sequence[str], problems: Problems
) -> tuple[dict[str, object] | None, dict[str, GraphFiles], list[Architecture]]:
    """config.json, the graphs by precision, and the sizes that each has."""
    inner = folder.below(_BELOW) if folder.has(_BELOW) else folder
    chosen = _chosen(folder, inner, precisions)
    config = problems.of(lambda: _config(folder))
    graphs: dict[str, GraphFiles] = {}
    architectures: list[Architecture] = []
    for precision, name in chosen.items():
        found = problems.of(lambda name=name: _graph(inner, name))  # type: ignore[misc]
        if found is None or config is None:
            continue
        graphs[precision], read = found
        architecture = problems.of(lambda read=read, name=name: _architecture(config, read, name))  # type: ignore[misc]
        architectures += [] if architecture is None else [architecture]
    if any(other != architectures[0] for other in architectures):
        raise SourceInvalid("the graphs are of models of different shapes", field="graph")
    return config, graphs, architectures


def _chosen(folder: ModelFolder, inner: ModelFolder, wanted: Sequence[str]) -> dict[str, str]:
    """File by precision."""
    found = {}
    for name in inner.names:
        if match := _FILE.fullmatch(name):
            found[_PRECISIONS.get(match[1] or "", match[1])] = name
    if not found:
        raise SourceInvalid(f"{folder.path.name} has no model.onnx, in it or in {_BELOW}/", field="path")
    have = ", ".join(found)
    for precision in wanted:
        if precision not in found:
            raise InvalidRequest(f"no graph of precision {quoted(precision)}; there are {have}", field="levels")
    if not wanted and len(found) > 1:
        raise InvalidRequest(f"{folder.path.name} has graphs of several precisions ({have}): say which", field="levels")
    return {precision: found[precision] for precision in (wanted or found)}


def _config(folder: ModelFolder) -> dict[str, object]:
    if not folder.has(CONFIG):
        raise SourceInvalid(f"{CONFIG} is missing: take it from the model that the graph was made of", field=CONFIG)
    return folder.json(CONFIG)


def _graph(inner: ModelFolder, name: str) -> tuple[GraphFiles, OnnxGraph]:
    path = inner.file(name)
    if path.stat().st_size == 0:
        raise SourceInvalid(f"{name} is empty", field=name)
    read = read_graph(np.memmap(path, mode="r").data, name)
    data = []
    for file, least in read.external.items():
        beside = inner.file(file)
        size = beside.stat().st_size
        if size < least:
            raise SourceInvalid(f"{file} is cut off: {name} needs {least} bytes of it, it has {size}", field=file)
        data.append((file, beside))
    layers = layers_of(read, name)
    cached = {past for layer in layers for past, _ in (layer.key, layer.value)}
    inputs = tuple(each for each in read.inputs if each not in cached)
    for each in inputs:
        if each not in INPUTS:
            raise SourceInvalid(
                f"{name} takes an input {quoted(each)} that is not known; known are {', '.join(INPUTS)} and the cache",
                field="inputs",
            )
        _check_kind(read.inputs[each], (INPUTS[each],), name, "inputs")
    if "input_ids" not in inputs:
        raise SourceInvalid(f"{name} takes no input_ids", field="inputs")
    if LOGITS not in read.outputs:
        have = ", ".join(map(brief, list(read.outputs)[:8]))
        raise SourceInvalid(f"{name} gives no {LOGITS}, but {have}", field="outputs")
    _check_kind(read.outputs[LOGITS], _FLOATS, name, "outputs")
    kinds = set()
    for layer in layers:
        for past, present in (layer.key, layer.value):
            _check_kind(read.inputs[past], _FLOATS, name, "inputs")
            _check_kind(read.outputs[present], _FLOATS, name, "outputs")
            kinds |= {read.inputs[past].kind, read.outputs[present].kind}
    if len(kinds) > 1:
        raise SourceInvalid(f"{name} keeps keys and values of several types", field="inputs")
    cache_type = kinds.pop()
    halves = read.halves or cache_type == "float16"
    return GraphFiles(path, tuple(data), inputs, tuple(layers), cache_type, halves), read


def _check_kind(value: GraphValue, kinds: Sequence[str], name: str, field: str) -> None:
    if value.kind not in kinds:
        what = f"is of type {value.kind}, not {' or '.join(kinds)}"
        raise SourceInvalid(f"{name}: {brief(value.name)} {what}", field=field)


def _architecture(config: Mapping[str, object], graph: OnnxGraph, name: str) -> Architecture:
    """The graph's own sizes first."""
    said = Config(config)
    layers = layers_of(graph, name)
    shape = graph.outputs[LOGITS].shape
    vocab = shape[-1] if shape and shape[-1] else size_of(said, "vocab_size")
    if vocab > ARCHITECTURE_LIMITS["vocab"]:
        raise SourceInvalid(f"{name}: {vocab} logits are not believed", field="vocab")
    found = architecture_of(said, layers=len(layers), vocab=vocab)
    kv_heads, head_dim = found.kv_heads, found.head_dim
    for layer in layers:
        for names in (layer.key, layer.value):
            for value in (graph.inputs[names[0]], graph.outputs[names[1]]):
                if len(value.shape) != 4:
                    raise SourceInvalid(
                        f"{name}: {brief(value.name)} has {len(value.shape)} dimensions; a cache has batch, heads, "
                        "tokens, width",
                        field="inputs",
                    )
                for extent, expected, key in (
                    (value.shape[1], kv_heads, "num_key_value_heads"),
                    (value.shape[3], head_dim, "head_dim"),
                ):
                    if extent is not None and extent != expected:
                        raise SourceInvalid(
                            f"{name}: {brief(value.name)} has {extent} where {CONFIG} says {expected} ({key})",
                            field=f"{PREFIX}.{key}",
                        )
    return found


def _deciding(folder: ModelFolder, graphs: Mapping[str, GraphFiles]) -> list[str]:
    paths = {path for each in graphs.values() for path in (each.file, *(path for _, path in each.data))}
    return [path.relative_to(folder.path).as_posix() for path in paths]
