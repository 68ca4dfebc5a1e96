"""Relax function → launch plan: what remains of a graph once memory is planned is a list of kernel calls.

Tensors that the planner placed become buffers in one arena; parameters become weights, inputs, KV; the first output is
the logits. A kernel is a plan kernel once, however often it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import ir, relax, tirx

from inpage.schema import ALIGN, Tensor

from .kernels.cpu.attention import PAGE
from .models.llama import Maxima

INPUTS = ("token_ids", "positions", "row_sequence", "block_tables", "logit_rows", "kv")
_SIZES = {"int8": 1, "int16": 2, "float16": 2, "int32": 4, "float32": 4}


@dataclass
class LoweredPlan:
    """``json``: the content of plan.json. ``kernels``: PrimFuncs by symbol, in the order of the plan's kernels;
    ``signatures``: how many buffers and scalars each takes."""

    json: dict[str, Any]
    kernels: dict[str, tirx.PrimFunc] = field(default_factory=dict)
    signatures: dict[str, tuple[int, int]] = field(default_factory=dict)


def lower(mod: tvm.IRModule) -> tvm.IRModule:
    """Destination-passing calls and statically planned memory."""
    passes = [relax.transform.CallTIRRewrite(), relax.transform.StaticPlanBlockMemory()]
    return tvm.ir.transform.Sequential(passes)(mod)


def make_plan(
    mod: tvm.IRModule, weights: Sequence[str], tensors: Mapping[str, Tensor], target: str, maxima: Maxima, vocab: int
) -> LoweredPlan:
    """The plan of ``mod["step"]``. ``weights``: tensor names of its parameters after the inputs."""
    walk = _Walk(lower(mod), weights, tensors, maxima, vocab)
    walk.run()
    buffers = walk.buffers
    json = {
        "version": 2,
        "target": target,
        "page_tokens": PAGE,
        "maxima": {
            "rows": maxima.rows,
            "sequences": maxima.sequences,
            "logit_rows": maxima.logit_rows,
            "context": maxima.context,
        },
        "blocks_per_sequence": maxima.blocks,
        "variables": ["rows", "sequences", "logit_rows"],
        "arenas": [walk.arena],
        "vocab": vocab,
        "buffers": buffers,
        "io": {name: walk.ids[name] for name in (*INPUTS[:-1], "logits")},
        "kernels": [
            {
                "name": name,
                "buffers": len(walk.access[name]),
                "scalars": walk.scalars[name],
                "access": walk.access[name],
            }
            for name in walk.kernels
        ],
        "functions": [{"name": "step", "max_rows": maxima.rows, "launches": walk.launches}],
    }
    signatures = {name: (len(walk.access[name]), walk.scalars[name]) for name in walk.kernels}
    return LoweredPlan(json, dict(walk.kernels), signatures)


class _Walk:
    """One pass over the function's bindings. A value is a buffer id, a tuple of values, or a (storage) record."""

    def __init__(
        self, mod: tvm.IRModule, weights: Sequence[str], tensors: Mapping[str, Tensor], maxima: Maxima, vocab: int
    ) -> None:
        self.mod, self.maxima, self.vocab = mod, maxima, vocab
        self.function = mod["step"]
        self.buffers: list[dict[str, Any]] = []
        self.launches: list[dict[str, Any]] = []
        self.ids: dict[str, int] = {}
        self.kernels: dict[str, tirx.PrimFunc] = {}
        self.access: dict[str, str] = {}
        self.scalars: dict[str, int] = {}
        self.arena = 0
        self.values: dict[Any, Any] = {}
        self._placed: dict[tuple[int, int], int] = {}
        for name, param in zip((*INPUTS, *weights), self.function.params, strict=True):
            self.values[param] = self._parameter(name, param, tensors)

    def _parameter(self, name: str, param: relax.Var, tensors: Mapping[str, Tensor]) -> int:
        if name == "kv":
            page_bytes = int(param.ty.shape[1]) * _SIZES[str(param.ty.dtype)]
            return self._buffer(name, {"kind": "kv", "page_bytes": page_bytes})
        if name in INPUTS:
            shape = [self._dim(d) for d in param.ty.shape]
            size = 4 * self._count(param.ty.shape)
            return self._buffer(name, {"kind": "input", "dtype": "int32", "shape": shape, "bytes": size})
        return self._buffer(name, {"kind": "weight", "tensor": name, "bytes": tensors[name].bytes})

    def _buffer(self, name: str, rest: dict[str, Any]) -> int:
        self.ids[name] = len(self.buffers)
        self.buffers.append({"name": name, **rest})
        return self.ids[name]

    def run(self) -> None:
        for block in self.function.body.blocks:
            for binding in block.bindings:
                self.values[binding.var] = self._value(binding.value)

    def _value(self, value: Any) -> Any:
        if isinstance(value, ir.Var):
            return self.values[value]
        if isinstance(value, relax.Tuple):
            return tuple(self._value(v) for v in value.fields)
        if isinstance(value, relax.TupleGetItem):
            return self.values[value.tuple_value][value.index]
        if not isinstance(value, ir.Call):
            raise ValueError(f"the plan has no room for {value}")
        if isinstance(value.op, ir.GlobalVar):
            return self._launch(value.op.name_hint, value.args)
        name = value.op.name
        if name == "relax.memory.alloc_storage":
            start = self.arena
            self.arena += -(-self._count(value.args[0]) // ALIGN) * ALIGN
            return start
        if name == "relax.memory.alloc_tensor":
            storage, offset, shape = value.args[:3]
            return self._place(self.values[storage] + int(offset.value), shape, value.args[3])
        if name == "relax.builtin.alloc_tensor":  # what the function returns: the logits
            return self._buffer("logits", {"kind": "output", "bytes": 4 * self.maxima.logit_rows * self.vocab})
        raise ValueError(f"the plan has no room for {name}")

    def _place(self, offset: int, shape: Any, dtype: Any) -> int:
        size = self._count(shape) * _SIZES[str(dtype.value)]
        at = (offset, size)
        if at not in self._placed:
            name = f"arena.{offset}.{size}"
            self._placed[at] = self._buffer(name, {"kind": "arena", "arena": 0, "offset": offset, "bytes": size})
        return self._placed[at]

    def _launch(self, symbol: str, args: Sequence[Any]) -> None:
        func = self.mod[symbol]
        buffers, scalars = [], []
        for arg in args:
            value = self.values.get(arg) if isinstance(arg, ir.Var) else None
            if value is not None:
                buffers.append(value)
            else:
                scalars.append(self._dim(arg))
        if symbol not in self.kernels:
            self.kernels[symbol] = func
            self.access[symbol] = str(func.attrs["inpage.access"])
            self.scalars[symbol] = len(scalars)
        kernel = list(self.kernels).index(symbol)
        self.launches.append({"kernel": kernel, "buffers": buffers, "scalars": scalars})

    def _dim(self, dim: Any) -> int | str:
        """A number, or the name of a variable."""
        if isinstance(dim, ir.Var):
            return str(dim.name)
        return int(getattr(dim, "value", dim))

    def _count(self, shape: Any) -> int:
        """Elements at the maxima."""
        total = 1
        for dim in getattr(shape, "values", shape):
            d = self._dim(dim)
            total *= getattr(self.maxima, d) if isinstance(d, str) else d
        return total


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
    lines += [f"const int32_t inpage_kernel_count = {len(plan.signatures)};", ""]
    return "\n".join(lines)
