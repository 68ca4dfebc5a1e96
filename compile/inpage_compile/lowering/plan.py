"""Relax function → launch plan: what remains of a graph once it passes destinations is a list of kernel calls.

Tensors between kernels become buffers in arenas; parameters become weights, inputs, KV; the first output is the
logits. A kernel is a plan kernel once, however often it is called.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import tvm
from tvm import ir, relax, tirx

from inpage.format.plan import ENCODER_COLUMNS, VERSION
from inpage.format.plan_types import KvGroup, sequence_pages
from inpage.format.schema import Tensor

from ..kernels.shared.heads import PAGE
from ..ops.maxima import Maxima
from .arenas import Use, arenas_of, place

INPUTS = ("token_ids", "positions", "row_sequence", "block_tables", "logit_rows", "kv")
# Launches of so many elements at most are serial: one thread is done with them in a few microseconds, in which sharing
# them saves no more than the barrier costs that comes after what is shared.
SERIAL_ELEMENTS = 4096
# Weights of a share: with a thread's some GB/s about ten microseconds, beside which taking the next share is nothing.
SHARE_BYTES = 262144
_SIZES = {"int8": 1, "int16": 2, "float16": 2, "int32": 4, "uint32": 4, "float32": 4}


@dataclass
class LoweredPlan:
    """``json``: the content of plan.json. ``kernels``: PrimFuncs by symbol, in the order of the plan's kernels;
    ``signatures``: how many buffers and scalars each takes; ``shares``: into how many its work for one row is worth
    cutting (see step.c)."""

    json: dict[str, Any]
    kernels: dict[str, tirx.PrimFunc] = field(default_factory=dict)
    signatures: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def shares(self) -> dict[str, int]:
        return {name: int(f.attrs.get("inpage.weights", 0)) // SHARE_BYTES for name, f in self.kernels.items()}


@dataclass(frozen=True)
class Graph:
    """One of the plan's functions: ``mod["step"]``, for steps of up to ``rows`` rows."""

    name: str
    rows: int
    mod: tvm.IRModule


def make_plan(
    graphs: Sequence[Graph], weights: Sequence[str], tensors: Mapping[str, Tensor], target: str, maxima: Maxima,
    vocab: int, arenas: int = 1, groups: Sequence[KvGroup] = (), width: int | None = None,
) -> LoweredPlan:  # fmt: skip
    """The plan of ``graphs``, which have the same parameters. ``weights``: names of those after the inputs, a
    tensor's or ``tensor@i`` for slice i of one. ``arenas``: 2 where no launch may read the one that it writes.
    ``groups``: of layers, where they are several or have a window. ``width``: of what graphs without a KV cache leave
    for a sequence."""
    walk = _Walk((*(INPUTS if width is None else INPUTS[:-1]), *weights), tensors, maxima, width or vocab)
    functions = [walk.function(graph, arenas) for graph in graphs]
    content = {
        "version": VERSION,
        "target": target,
        "page_tokens": PAGE,
        **({"kv_groups": [{**asdict(group), "layers": list(group.layers)} for group in groups]} if groups else {}),
        "maxima": {
            "rows": maxima.rows,
            "sequences": maxima.sequences,
            "logit_rows": maxima.logit_rows,
            "context": maxima.context,
        },
        "blocks_per_sequence": ENCODER_COLUMNS if width else sequence_pages(maxima.context, PAGE, groups),
        "variables": ["rows", "sequences", "logit_rows"],
        "arenas": walk.arenas,
        "vocab": vocab,
        **({"width": width} if width else {}),
        "buffers": walk.buffers,
        "io": {name: walk.ids[name] for name in (*INPUTS[:-1], "logits")},
        "kernels": [{"name": name, **walk.described[name]} for name in walk.kernels],
        "alternatives": walk.alternatives,
        "functions": functions,
    }
    signatures = {name: (k["buffers"], k["scalars"]) for name, k in walk.described.items()}
    return LoweredPlan(content, dict(walk.kernels), signatures)


@dataclass(frozen=True)
class _Between:
    """A tensor between kernels, by number."""

    number: int


class _Walk:
    """Passes over functions' bindings. A value is a buffer id, a `_Between`, or a tuple of values."""

    def __init__(self, names: Sequence[str], tensors: Mapping[str, Tensor], maxima: Maxima, width: int) -> None:
        """``names``: of the functions' parameters; ``width``: columns of what they return."""
        self.names, self.tensors, self.maxima, self.width = names, tensors, maxima, width
        self.buffers: list[dict[str, Any]] = []
        self.ids: dict[str, int] = {}
        self.kernels: dict[str, tirx.PrimFunc] = {}
        self.described: dict[str, dict[str, Any]] = {}
        self.alternatives: list[list[int]] = []
        self.arenas: list[int] = []
        self._ends: dict[str, int] = {}

    def function(self, graph: Graph, arenas: int) -> dict[str, Any]:
        """The plan's entry of one function."""
        self.mod = relax.transform.CallTIRRewrite()(graph.mod)
        self.rows = graph.rows
        self.values: dict[Any, Any] = {}
        self.sizes: list[int] = []
        self.launches: list[dict[str, Any]] = []
        function = self.mod["step"]
        for name, param in zip(self.names, function.params, strict=True):
            self.values[param] = self._parameter(name, param)
        self.result = function.body.body
        self.bindings = {b.var: b.value for block in function.body.blocks for b in block.bindings}
        self.logits = self._origin(self.result)
        for var, value in self.bindings.items():
            self.values[var] = self._value(var, value)
        self._place_all(arenas)
        return {"name": graph.name, "max_rows": graph.rows, "launches": self.launches}

    def _parameter(self, name: str, param: relax.Var) -> Any:
        if name == "kv":
            shapes = getattr(param.ty, "fields", None)
            if shapes is None:
                return self._kv(name, param.ty)
            return tuple(self._kv(f"{name}.{i}", ty) for i, ty in enumerate(shapes))
        if name in INPUTS:
            shape = [self._dim(d) for d in param.ty.shape]
            size = 4 * self._count(param.ty.shape, self.maxima.rows)
            return self._buffer(name, {"kind": "input", "dtype": "int32", "shape": shape, "bytes": size})
        tensor, _, slice_ = name.partition("@")
        if int(slice_ or 0) == 0:
            self._ends[tensor] = 0
        start, size = self._ends[tensor], self._count(param.ty.shape, 0) * _SIZES[str(param.ty.dtype)]
        self._ends[tensor] += size
        if size < self.tensors[tensor].bytes:
            return self._buffer(name, {"kind": "weight", "tensor": tensor, "start": start, "bytes": size})
        return self._buffer(tensor, {"kind": "weight", "tensor": tensor, "bytes": size})

    def _kv(self, name: str, ty: Any) -> int:
        return self._buffer(name, {"kind": "kv", "page_bytes": int(ty.shape[1]) * _SIZES[str(ty.dtype)]})

    def _buffer(self, name: str, rest: dict[str, Any]) -> int:
        """The buffer's id, the same in every function."""
        if name not in self.ids:
            self.ids[name] = len(self.buffers)
            self.buffers.append({"name": name, **rest})
        return self.ids[name]

    def _value(self, var: Any, value: Any) -> Any:
        if isinstance(value, ir.Var):
            return self.values[value]
        if isinstance(value, relax.Tuple):
            return tuple(self._value(None, v) for v in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self.values[value.tuple_value][value.index]
        if not isinstance(value, ir.Call):
            raise ValueError(f"the plan has no room for {value}")
        if isinstance(value.op, ir.GlobalVar):
            return self._launch(self.mod[value.op], value.args)
        if value.op.name != "relax.builtin.alloc_tensor":
            raise ValueError(f"the plan has no room for {value.op.name}")
        if var is not None and var.same_as(self.logits):
            return self._buffer("logits", {"kind": "output", "bytes": 4 * self.maxima.logit_rows * self.width})
        self.sizes.append(self._count(value.args[0], self.rows) * _SIZES[str(value.args[1].value)])
        return _Between(len(self.sizes) - 1)

    def _origin(self, value: Any) -> Any:
        """The variable that was bound to the allocation of what the function returns first."""
        while True:
            bound = self.bindings[value] if isinstance(value, ir.Var) else value
            if isinstance(bound, ir.Call):
                return value
            if isinstance(bound, relax.TupleGetItem):
                bound = self.bindings[bound.tuple_value].fields[bound.index]
            value = bound.fields[0] if isinstance(bound, relax.Tuple) else bound

    def _kernel(self, func: tirx.PrimFunc, scalars: int) -> None:
        name, access = str(func.attrs["inpage.name"]), str(func.attrs["inpage.access"])
        self.kernels[name] = func
        self.described[name] = {"buffers": len(access), "scalars": scalars, "access": access}
        if "inpage.workgroup" in func.attrs:
            self.described[name]["workgroup"] = [int(func.attrs["inpage.workgroup"]), 1, 1]
        if "inpage.requires" in func.attrs:
            self.described[name]["requires"] = [str(feature) for feature in func.attrs["inpage.requires"]]

    def _launch(self, declared: tirx.PrimFunc, args: Sequence[Any]) -> None:
        func = declared.attrs.get("inpage.kernel", declared)
        name = str(func.attrs["inpage.name"])
        buffers = [self.values[arg] for arg in args if isinstance(arg, ir.Var) and arg in self.values]
        scalars = [self._dim(arg) for arg in args if not (isinstance(arg, ir.Var) and arg in self.values)]
        if name not in self.kernels:
            others = list(func.attrs.get("inpage.alternatives", []))
            for each in (func, *others):
                self._kernel(each, len(scalars))
            if others:
                first = len(self.kernels) - len(others) - 1
                self.alternatives.append(list(range(first, len(self.kernels))))
        elif not self.kernels[name].same_as(func):
            ir.assert_structural_equal(self.kernels[name], func)
        launch = {"kernel": list(self.kernels).index(name), "buffers": buffers, "scalars": scalars}
        if "inpage.grid" in func.attrs:
            names = [str(p.name) for p in func.params if not isinstance(p.ty, tirx.BufferType)]
            given = dict(zip(names, scalars, strict=True))
            same = [func, *func.attrs.get("inpage.alternatives", [])]
            grids = [[_replaced(extent, given) for extent in json.loads(str(f.attrs["inpage.grid"]))] for f in same]
            launch["grid"] = grids[0]
            if len(grids) > 1:
                launch["others"] = grids[1:]
        if self.launches and 0 < self.rows * int(func.attrs.get("inpage.elements", 0)) <= SERIAL_ELEMENTS:
            launch["serial"] = True
        self.launches.append(launch)

    def _place_all(self, arenas: int) -> None:
        """Gives every tensor between kernels its place, and the launches its buffer."""
        accesses = [self.described[list(self.kernels)[x["kernel"]]]["access"] for x in self.launches]
        uses = [
            Use(tuple((b.number, a) for b, a in zip(x["buffers"], access, strict=True) if isinstance(b, _Between)))
            for x, access in zip(self.launches, accesses, strict=True)
        ]
        arena = arenas_of(uses) if arenas == 2 else dict.fromkeys(range(len(self.sizes)), 0)
        offsets, totals = place(uses, dict(enumerate(self.sizes)), arena)
        totals += [0] * (arenas - len(totals))
        self.arenas = [max(a, b) for a, b in zip(totals, self.arenas or totals, strict=True)]
        for launch in self.launches:
            launch["buffers"] = [
                self._arena_buffer(arena[b.number], offsets[b.number], self.sizes[b.number])
                if isinstance(b, _Between)
                else b
                for b in launch["buffers"]
            ]

    def _arena_buffer(self, arena: int, offset: int, size: int) -> int:
        place = {"arena": arena, "offset": offset, "bytes": size}
        return self._buffer(f"arena{arena}.{offset}.{size}", {"kind": "arena", **place})

    def _dim(self, dim: Any) -> int | str:
        """A number, or the name of a variable."""
        if isinstance(dim, ir.Var):
            return str(dim.name)
        return int(getattr(dim, "value", dim))

    def _count(self, shape: Any, rows: int) -> int:
        """Elements at the maxima."""
        most = {"rows": rows, "sequences": self.maxima.sequences, "logit_rows": self.maxima.logit_rows}
        total = 1
        for dim in getattr(shape, "values", shape):
            d = self._dim(dim)
            total *= most[d] if isinstance(d, str) else d
        return total


def _replaced(extent: Any, given: Mapping[str, int | str]) -> Any:
    """A kernel's extent with what the launch passes for its scalars."""
    if isinstance(extent, list):
        return [extent[0], _replaced(extent[1], given), _replaced(extent[2], given)]
    return given[extent] if isinstance(extent, str) else extent


def trampolines(plan: LoweredPlan) -> str:
    """C source of the kernel table: each entry unpacks a launch's buffers and scalars for one kernel."""
    lines = ["/* The kernel table of one compiled model, in the order of its plan. */", '#include "abi.h"', ""]
    for name, (buffers, scalars) in plan.signatures.items():
        types = ["void *"] * buffers + ["int32_t"] * (scalars + 2)
        values = [f"buffers[{i}]" for i in range(buffers)] + [f"scalars[{i}]" for i in range(scalars)]
        lines += [
            f"void {name}({', '.join(types)});",
            f"static void launch_{name}(void *const *buffers, const int32_t *scalars, "
            "int32_t thread, int32_t threads) {",
            f"  {name}({', '.join([*values, 'thread', 'threads'])});",
            "}",
        ]
    table = ", ".join(f"launch_{name}" for name in plan.signatures)
    lines += ["", f"const inpage_kernel inpage_kernels[] = {{{table}}};"]
    lines += [f"const int32_t inpage_kernel_shares[] = {{{', '.join(map(str, plan.shares.values()))}}};"]
    lines += [f"const int32_t inpage_kernel_count = {len(plan.signatures)};", ""]
    return "\n".join(lines)
