"""What a graph takes, gives and keeps in files beside it. Nothing of what it computes is looked at: ONNX Runtime does.

Field numbers are those of onnx.proto (github.com/onnx/onnx)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from inpage.errors import SourceInvalid, brief

from .protobuf import Value, content, fields, number, text

_MODEL_GRAPH, _MODEL_FUNCTIONS, _FUNCTION_NODE = 7, 25, 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE = 1, 5, 11, 12, 15
_NODE_ATTRIBUTE, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, (5, 10), (6, 11)
_TENSOR_TYPE, _TENSOR_NAME, _TENSOR_EXTERNAL, _TENSOR_LOCATION, _EXTERNAL = 2, 8, 13, 14, 1
_SPARSE_TENSORS = (1, 2)
_NAME_BYTES, _PATH_BYTES, _DIMENSIONS, _DEPTH, _VALUES = 1000, 500, 8, 8, 65_536
# TensorProto.DataType: name of it, as onnxruntime-web calls it.
TYPES: Mapping[int, str] = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 16: "bfloat16"}


@dataclass(frozen=True, slots=True)
class GraphValue:
    """An input or output. ``kind``: of its numbers, as in `TYPES`, or the number of another; ``shape``: None where an
    extent is not fixed."""

    name: str
    kind: str
    shape: tuple[int | None, ...]


@dataclass(slots=True)
class OnnxGraph:
    """``external``: by file of tensors beside the graph, how many bytes it must have. ``halves``: some are float16."""

    inputs: dict[str, GraphValue] = field(default_factory=dict)
    outputs: dict[str, GraphValue] = field(default_factory=dict)
    external: dict[str, int] = field(default_factory=dict)
    halves: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """Names of what one layer keeps, keys first: the input and the output of each."""

    key: tuple[str, str]
    value: tuple[str, str]


def read_graph(model: memoryview, where: str) -> OnnxGraph:
    """Of a .onnx file. ``where``: its name. Raises `SourceInvalid`."""
    found = [content(value, where) for tag, value in fields(model, where) if tag == _MODEL_GRAPH]
    if len(found) != 1:
        raise SourceInvalid(f"{where} is not a .onnx file: it has {len(found)} graphs", field=where)
    out, initialized = OnnxGraph(), set()
    for tag, value in fields(found[0], where):
        if tag == _INITIALIZER:
            initialized.add(_tensor(content(value, where), where, out))
        elif tag == _SPARSE:
            _sparse(content(value, where), where, out)
        elif tag == _NODE:
            _node(content(value, where), where, out, _DEPTH)
        elif tag in (_INPUT, _OUTPUT):
            each = _value(content(value, where), where)
            side = out.inputs if tag == _INPUT else out.outputs
            side[each.name] = each
            if len(side) > _VALUES:
                raise SourceInvalid(f"{where} has more than {_VALUES} inputs", field=where)
    for tag, value in fields(model, where):
        if tag == _MODEL_FUNCTIONS:
            for inner, node in fields(content(value, where), where):
                if inner == _FUNCTION_NODE:
                    _node(content(node, where), where, out, _DEPTH)
    for name in initialized & out.inputs.keys():  # until IR version 4 weights were inputs as well
        del out.inputs[name]
    return out


def layers_of(graph: OnnxGraph, where: str) -> list[Layer]:
    """The cache's inputs and outputs, by layer: ``past_key_values.N.key`` and ``present.N.key``, as onnxruntime-genai
    and transformers.js name them. Raises `SourceInvalid` where there is none, or a part of one is missing."""
    past = _numbered(graph.inputs, re.compile(r"past_key_values\.(\d{1,4})\.(key|value)"))
    present = _numbered(graph.outputs, re.compile(r"present\.(\d{1,4})\.(key|value)"))
    if not past:
        have = ", ".join(sorted(map(brief, graph.inputs))[:8])
        why = "without a KV cache each token would compute the whole text: export it as `text-generation-with-past`"
        raise SourceInvalid(f"{where} has no input past_key_values.0.key, only {have}; {why}", field="inputs")
    if past.keys() != present.keys():
        layer, part = sorted(past.keys() ^ present.keys())[0]
        there, missing = ("past_key_values", "present") if (layer, part) in past else ("present", "past_key_values")
        side = "outputs" if missing == "present" else "inputs"
        raise SourceInvalid(f"{where} has {there}.{layer}.{part}, but no {missing}.{layer}.{part}", field=side)
    count = 1 + max(layer for layer, _ in past)
    for layer in range(count):
        for part in ("key", "value"):
            if (layer, part) not in past:
                raise SourceInvalid(f"{where} has no input past_key_values.{layer}.{part}", field="inputs")
    return [
        Layer((past[i, "key"], present[i, "key"]), (past[i, "value"], present[i, "value"])) for i in range(count)
    ]  # fmt: skip


def _numbered(values: Mapping[str, GraphValue], pattern: re.Pattern[str]) -> dict[tuple[int, str], str]:
    matches = ((name, pattern.fullmatch(name)) for name in values)
    return {(int(match[1]), match[2]): name for name, match in matches if match}


def _node(node: memoryview, where: str, out: OnnxGraph, depth: int) -> None:
    """Tensors in a node's attributes, and in the graphs of its branches."""
    if depth == 0:
        raise SourceInvalid(f"{where}: graphs are nested more than {_DEPTH} deep", field=where)
    for tag, attribute in fields(node, where):
        if tag != _NODE_ATTRIBUTE:
            continue
        for inner, value in fields(content(attribute, where), where):
            if inner in _ATTRIBUTE_TENSORS:
                _tensor(content(value, where), where, out)
            elif inner in _ATTRIBUTE_GRAPHS:
                _inner_graph(content(value, where), where, out, depth)


def _inner_graph(graph: memoryview, where: str, out: OnnxGraph, depth: int) -> None:
    for tag, value in fields(graph, where):
        if tag == _INITIALIZER:
            _tensor(content(value, where), where, out)
        elif tag == _SPARSE:
            _sparse(content(value, where), where, out)
        elif tag == _NODE:
            _node(content(value, where), where, out, depth - 1)


def _sparse(message: memoryview, where: str, out: OnnxGraph) -> None:
    for tag, value in fields(message, where):
        if tag in _SPARSE_TENSORS:
            _tensor(content(value, where), where, out)


def _tensor(tensor: memoryview, where: str, out: OnnxGraph) -> str:
    """Its name; what it has in a file is put down in ``out``."""
    name, outside, entries = "", False, []
    for tag, value in fields(tensor, where):
        if tag == _TENSOR_TYPE:
            out.halves = out.halves or TYPES.get(number(value, where)) == "float16"
        elif tag == _TENSOR_NAME:
            name = text(value, where, _NAME_BYTES)
        elif tag == _TENSOR_LOCATION:
            outside = number(value, where) == _EXTERNAL
        elif tag == _TENSOR_EXTERNAL:
            entries.append(content(value, where))
    if outside:
        _external(dict(_entries(entries, where)), name, where, out)
    return name


def _entries(entries: list[memoryview], where: str) -> Iterator[tuple[str, str]]:
    for entry in entries:
        pair = {tag: text(value, where, _PATH_BYTES) for tag, value in fields(entry, where) if tag in (1, 2)}
        yield pair.get(1, ""), pair.get(2, "")


def _external(said: Mapping[str, str], name: str, where: str, out: OnnxGraph) -> None:
    path = said.get("location", "")
    sizes = [said.get(key, "0") for key in ("offset", "length")]
    if not path or not all(re.fullmatch(r"\d{1,15}", size) for size in sizes):
        raise SourceInvalid(f"{where}: tensor {brief(name)} does not say where in a file it lies", field=brief(name))
    end = sum(map(int, sizes))
    out.external[path] = max(out.external.get(path, 0), end)


def _value(message: memoryview, where: str) -> GraphValue:
    """ValueInfoProto: name 1, type 2 → tensor_type 1 → elem_type 1, shape 2 → dim 1 → dim_value 1."""
    name, kind, shape = "", "", []
    for tag, value in fields(message, where):
        if tag == 1:
            name = text(value, where, _NAME_BYTES)
        elif tag == 2:
            for inner in _all(value, 1, where):
                for at, part in fields(content(inner, where), where):
                    if at == 1:
                        code = number(part, where)
                        kind = TYPES.get(code, str(code))
                    elif at == 2:
                        shape = [_extent(dim, where) for dim in _all(part, 1, where)]
    if len(shape) > _DIMENSIONS:
        raise SourceInvalid(f"{where}: {brief(name)} has {len(shape)} dimensions", field=brief(name))
    return GraphValue(name, kind, tuple(shape))


def _all(message: Value, tag: int, where: str) -> list[Value]:
    return [value for at, value in fields(content(message, where), where) if at == tag]


def _extent(dim: Value, where: str) -> int | None:
    fixed = [number(value, where) for at, value in fields(content(dim, where), where) if at == 1]
    return fixed[-1] if fixed and fixed[-1] >= 0 else None
