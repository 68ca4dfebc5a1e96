"""plan.json: the list of kernel launches that every executor replays. The format, its checks, its dataclasses.

A plan is untrusted input. After `parse_plan` every id is in range and every buffer lies inside its region, so that
nothing a plan says can make an executor read or write elsewhere, and two executors with different rules (the flat C
runtime; WebGPU, which binds ranges) can both run it.

Sizes are planned for the maxima: a launch's *variables* (rows, sequences, logit rows) say how much of them a step uses.

The document::

    version, target          2; the variant's name
    page_tokens              tokens of a KV page
    kv_groups                {"layers", "page_tokens", "window"}: layers whose keys and values, or whose inputs of a
                             short convolution, lie in the same pages, ``page_tokens`` tokens a page, by a block table
                             of their own. A token sees the last ``window`` of them, itself included, or all before it
                             (null). Each layer stands in one group. Default: one group of all layers, without a window
    maxima                   {rows, sequences, logit_rows, context}: what a step, and the model, can take
    blocks_per_sequence      columns of the block table: a sequence's row has one group's pages behind the other's, as
                             many of each as a whole context has. Pages of all groups are from one pool; of one that
                             fell out of its group's window the number means nothing. Without kv buffers there are
                             ENCODER_COLUMNS: a step has whole sequences, and the row says which of the step's rows are
                             the sequence's: the first, how many, and how many of them before the second segment
    variables                ["rows", "sequences", "logit_rows"]
    arenas                   bytes of each region for what passes from launch to launch: one, or two for WebGPU
    vocab                    how many tokens there are, and columns of the logits where ``width`` does not say it
    width                    columns of the logits of a plan without kv buffers: what an encoder gives for a sequence
    buffers                  {"name", "kind", …}; a buffer's id is its place in this list:
        input                "dtype", "shape" (numbers and variables), "bytes" at the maxima; written before each step
        weight               "tensor", "bytes", and "start" (default 0): a slice of the tensor that begins there
        arena                "arena" (0 or 1), "offset" in it, a multiple of 256, "bytes"; ranges are used again, and
                             two buffers may overlap
        kv                   "page_bytes": page p of it lies at p · page_bytes. Executors for CPUs take one, with all
                             layers; WebGPU gets one a layer, so that a binding holds many pages. All of them grow
                             together and share the block table. None: an encoder, which keeps nothing between steps
        output               "bytes"
    io                       ids of token_ids, positions, row_sequence, block_tables, logit_rows (int32 inputs), and of
                             logits (output, float32 [logit_rows, width])
    kernels                  {"name", "buffers", "scalars", "access"}: how many of each it takes, and a letter a buffer,
                             r reads, w writes, x both. For WebGPU also "workgroup": [x, y, z], and "requires" (default:
                             nothing): features of the device, only of kernels that run in another's place. Devices
                             without them neither compile nor time it
    alternatives             lists of kernels that do the same and leave the same bits (default: none). Launches name
                             the first of a list; the device may run any of it in its place
    functions                {"name", "max_rows", "launches"}, by rising max_rows: a step runs the first one that holds
                             its rows
    launches                 {"kernel", "buffers", "scalars"}: buffer ids in the kernel's order; each scalar a number or
                             a variable's name. For WebGPU also "grid": [x, y, z], the workgroups to dispatch, each an
                             int, a variable's name, or ["*" | "+" | "ceildiv", a, b] of such; 0 of them: no dispatch;
                             and "others": the grids of its kernel's alternatives behind the first, in their order.
                             For CPUs "serial" (default false): too small to share, so that one thread does it while the
                             others wait at the barrier before it; there is one after every launch that is shared. A
                             function's first launch must not be serial

WebGPU (``workgroup`` and ``grid`` are there). ``kernels.wgsl`` holds every kernel behind a line ``//: <name>``; each is
a shader module of its own whose entry point has the kernel's name. Group 0, binding i is the launch's buffer i, whole
(offset and bytes of the plan), ``read`` where access is r and ``read_write`` otherwise; the binding after the last one
is a uniform block of 32-bit integers: the launch's scalars in order, then the grid's x minus 1. The grid's x never
depends on a variable, so the blocks of a step that differ are few. No launch reads one arena and writes the same one
(one binding ``read``, another ``read_write`` of one GPU buffer is refused even for ranges apart), and a buffer stands
once in a launch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import quoted
from . import limits, structure
from .abi import MAX_BINDINGS, MAX_LAUNCHES, MAX_SCALARS
from .limits import ALIGN
from .plan_types import Buffer, Extent, Function, Kernel, KvGroup, Launch, Maxima, Plan, extent, sequence_pages
from .schema import Tensor
from .schemas import PLAN
from .structure import read_json, wrong

ENCODER_COLUMNS = 3
VERSION = PLAN["plan"]["version"]["low"]
PLAN_BYTES = limits.FILE_BYTES["plan"]  # a plan larger than this is refused unread

_DTYPES = {"int32": 4, "float32": 4}


def parse_plan(data: bytes | str | Mapping[str, Any], tensors: Iterable[Tensor]) -> Plan:
    """Check a plan against the tensors of its artifact. Raises `ArtifactInvalid` naming the field
    (``plan.functions[0].launches[3].buffers[1]``)."""
    if isinstance(data, bytes | str):
        data = read_json(data, PLAN_BYTES, "plan.json is", "plan")
    p = structure.read(data, PLAN, "plan", "plan")
    maxima = Maxima(**p["maxima"])
    blocks, vocab, arenas = p["blocks_per_sequence"], p["vocab"], tuple(p["arenas"])
    groups = _kv_groups(p["kv_groups"] or [], p["page_tokens"], maxima.context)
    buffers = _buffers(p["buffers"], arenas, {t.name: t for t in tensors}, maxima)
    width = _check_kind(p, buffers, groups, maxima)
    kernels = tuple(_kernel(k, f"plan.kernels[{i}]") for i, k in enumerate(p["kernels"]))
    alternatives = _alternatives(p["alternatives"] or [], kernels)
    functions = _functions(p["functions"], kernels, buffers, maxima)
    _check_first_of_alternatives(functions, alternatives)
    if functions[-1].max_rows != maxima.rows:
        raise wrong("plan.functions", f"the last one takes {functions[-1].max_rows} rows, the maximum is {maxima.rows}")
    return Plan(
        target=p["target"],
        page_tokens=p["page_tokens"],
        maxima=maxima,
        blocks_per_sequence=blocks,
        arenas=arenas,
        vocab=vocab,
        buffers=buffers,
        io=_io(p["io"], buffers, maxima, blocks, width),
        kernels=kernels,
        alternatives=alternatives,
        functions=functions,
        kv_groups=groups,
        width=width,
    )


def _check_kind(p: dict[str, Any], buffers: tuple[Buffer, ...], groups: tuple[KvGroup, ...], maxima: Maxima) -> int:
    """What depends on whether there is a KV cache. Columns of the logits."""
    blocks = p["blocks_per_sequence"]
    if any(b.kind == "kv" for b in buffers):
        need = sequence_pages(maxima.context, p["page_tokens"], groups)
        if blocks < need:
            raise wrong("plan.blocks_per_sequence", f"{blocks} pages; {maxima.context} tokens need {need}")
        if p["width"] is not None and p["width"] != p["vocab"]:
            raise wrong(
                "plan.width", f"{p['width']}, but what has a KV cache gives logits for a vocabulary of {p['vocab']}"
            )
        return int(p["vocab"])
    if p["width"] is None:
        raise wrong("plan.buffers", "no kv, and no width as an encoder's plan has")
    if p["kv_groups"] is not None:
        raise wrong("plan.kv_groups", "there is no kv")
    if blocks != ENCODER_COLUMNS:
        raise wrong("plan.blocks_per_sequence", f"{blocks}; without kv there are {ENCODER_COLUMNS}")
    if maxima.context > maxima.rows:
        why = f"{maxima.rows}; without kv a step has to take a whole context of {maxima.context} tokens"
        raise wrong("plan.maxima.rows", why)
    return int(p["width"])


def _kv_groups(items: list[dict[str, Any]], page_tokens: int, context: int) -> tuple[KvGroup, ...]:
    seen: set[int] = set()
    for i, group in enumerate(items):
        for k, layer in enumerate(group["layers"]):
            if layer in seen:
                raise wrong(f"plan.kv_groups[{i}].layers[{k}]", f"layer {layer} stands twice")
            seen.add(layer)
        window = group["window"]
        if window is not None and window >= context:
            why = f"a window of {window} tokens in a context of {context}; null is all of it"
            raise wrong(f"plan.kv_groups[{i}].window", why)
    if seen and max(seen) >= len(seen):
        missing = min(set(range(len(seen))) - seen)
        raise wrong("plan.kv_groups", f"there is a layer {max(seen)}, but none {missing}")
    if items and items[0]["page_tokens"] != page_tokens:
        why = f"{items[0]['page_tokens']}, but the plan's page_tokens, which is the first group's, is {page_tokens}"
        raise wrong("plan.kv_groups[0].page_tokens", why)
    if len(items) == 1 and items[0]["window"] is None:
        return ()  # as if it were not said
    return tuple(KvGroup(tuple(g["layers"]), g["page_tokens"], g["window"]) for g in items)


def _buffers(
    items: list[dict[str, Any]], arenas: tuple[int, ...], tensors: Mapping[str, Tensor], maxima: Maxima
) -> tuple[Buffer, ...]:
    out: list[Buffer] = []
    names: set[str] = set()
    for i, b in enumerate(items):
        at, name, kind, size = f"plan.buffers[{i}]", b["name"], b["kind"], b.get("bytes", 0)
        if name in names:
            raise wrong(f"{at}.name", f"{quoted(name)} stands twice")
        names.add(name)
        if kind == "arena":
            arena, offset = b["arena"], b["offset"]
            if arena >= len(arenas):
                raise wrong(f"{at}.arena", f"there is no arena {arena}")
            if offset % ALIGN or offset > arenas[arena]:
                raise wrong(f"{at}.offset", f"{offset} is no multiple of {ALIGN} in the arena of {arenas[arena]}")
            if offset + size > arenas[arena]:
                raise wrong(f"{at}.bytes", f"ends at {offset + size}, outside the arena of {arenas[arena]}")
            out.append(Buffer(name, kind, size, offset, arena=arena))
        elif kind == "kv":
            out.append(Buffer(name, kind, page_bytes=b["page_bytes"]))
        elif kind == "weight":
            tensor, start = tensors.get(b["tensor"]), b["start"] or 0
            if tensor is None:
                raise wrong(f"{at}.tensor", f"the manifest has no tensor {quoted(b['tensor'])}")
            if start % ALIGN or start > tensor.bytes:
                raise wrong(f"{at}.start", f"{start} is no multiple of {ALIGN} in the tensor's {tensor.bytes} bytes")
            if start + size > tensor.bytes:
                raise wrong(f"{at}.bytes", f"ends at {start + size}, but the tensor has {tensor.bytes}")
            out.append(Buffer(name, kind, size, tensor.offset + start, tensor.name))
        elif kind == "input":
            shape = tuple(b["shape"])
            need = _DTYPES[b["dtype"]] * math.prod(getattr(maxima, d) if isinstance(d, str) else d for d in shape)
            if size < need:
                raise wrong(f"{at}.bytes", f"{size}, but this shape needs {need} at the maxima")
            out.append(Buffer(name, kind, size, dtype=b["dtype"], shape=shape))
        else:
            out.append(Buffer(name, kind, size))
    return tuple(out)


def _io(ids: dict[str, int], buffers: tuple[Buffer, ...], maxima: Maxima, blocks: int, width: int) -> dict[str, int]:
    words = dict.fromkeys(("token_ids", "positions", "row_sequence"), maxima.rows)
    words |= {"block_tables": maxima.sequences * blocks, "logit_rows": maxima.logit_rows}
    words["logits"] = maxima.logit_rows * width
    io: dict[str, int] = {}
    for name, i in ids.items():
        at, wanted = f"plan.io.{name}", "output" if name == "logits" else "input"
        if i >= len(buffers):
            raise wrong(at, f"there is no buffer {i}")
        if buffers[i].kind != wanted or (wanted == "input" and buffers[i].dtype != "int32"):
            raise wrong(at, f"buffer {i} is no {'int32 ' if wanted == 'input' else ''}{wanted}")
        if buffers[i].bytes < 4 * words[name]:
            raise wrong(at, f"buffer {i} has {buffers[i].bytes} bytes, the maxima need {4 * words[name]}")
        if i in io.values():
            raise wrong(at, f"buffer {i} stands twice")
        io[name] = i
    for i, b in enumerate(buffers):
        if b.kind in ("input", "output") and i not in io.values():
            raise wrong("plan.io", f"unused {b.kind} buffer {quoted(b.name)}")
    return io


def _kernel(k: dict[str, Any], at: str) -> Kernel:
    workgroup = tuple(k["workgroup"] or ())
    if workgroup and workgroup[2] > limits.WORKGROUP_Z:
        raise wrong(f"{at}.workgroup[2]", f"{workgroup[2]}; WebGPU allows {limits.WORKGROUP_Z}")
    if workgroup and math.prod(workgroup) > limits.INVOCATIONS:
        raise wrong(f"{at}.workgroup", f"{math.prod(workgroup)} invocations; WebGPU allows {limits.INVOCATIONS}")
    if len(k["access"]) != k["buffers"]:
        raise wrong(
            f"{at}.access", f"{quoted(k['access'])} must have one of r, w, x for each of {k['buffers']} buffers"
        )
    return Kernel(k["name"], k["buffers"], k["scalars"], k["access"], workgroup, tuple(k["requires"] or ()))


def _alternatives(groups: list[list[int]], kernels: tuple[Kernel, ...]) -> tuple[tuple[int, ...], ...]:
    seen: set[int] = set()
    for i, group in enumerate(groups):
        for k, number in enumerate(group):
            at = f"plan.alternatives[{i}][{k}]"
            if number >= len(kernels):
                raise wrong(at, f"there is no kernel {number}")
            if number in seen:
                raise wrong(at, f"kernel {number} stands twice")
            seen.add(number)
            one, first = kernels[number], kernels[group[0]]
            if (one.buffers, one.scalars, one.access, not one.workgroup) != (
                first.buffers, first.scalars, first.access, not first.workgroup,
            ):  # fmt: skip
                raise wrong(at, f"{quoted(one.name)} does not take what {quoted(first.name)} takes")
    others = {number for group in groups for number in group[1:]}
    for k, kernel in enumerate(kernels):
        if kernel.requires and k not in others:
            raise wrong(f"plan.kernels[{k}].requires", f"no other kernel runs where {quoted(kernel.name)} cannot")
    return tuple(map(tuple, groups))


def _check_first_of_alternatives(functions: tuple[Function, ...], alternatives: tuple[tuple[int, ...], ...]) -> None:
    others = {k for group in alternatives for k in group[1:]}
    counts = {group[0]: len(group) - 1 for group in alternatives}
    for f, function in enumerate(functions):
        for i, launch in enumerate(function.launches):
            if launch.kernel in others:
                at = f"plan.functions[{f}].launches[{i}].kernel"
                raise wrong(at, f"{launch.kernel} is not the first of its alternatives")
            if launch.grid and len(launch.others) != counts.get(launch.kernel, 0):
                at, want = f"plan.functions[{f}].launches[{i}].others", counts.get(launch.kernel, 0)
                raise wrong(at, f"{len(launch.others)} grids; its kernel has {want} alternatives")


def _functions(
    items: list[dict[str, Any]], kernels: tuple[Kernel, ...], buffers: tuple[Buffer, ...], maxima: Maxima
) -> tuple[Function, ...]:
    out: list[Function] = []
    for i, f in enumerate(items):
        at, rows = f"plan.functions[{i}]", f["max_rows"]
        if out and rows <= out[-1].max_rows:
            raise wrong(f"{at}.max_rows", "functions stand by rising max_rows")
        most = {"rows": rows, "sequences": maxima.sequences, "logit_rows": maxima.logit_rows}
        launches = enumerate(f["launches"])
        made = tuple(_launch(launch, kernels, buffers, most, f"{at}.launches[{j}]") for j, launch in launches)
        if made and made[0].serial:
            raise wrong(f"{at}.launches[0].serial", "there is no barrier before a function's first launch")
        out.append(Function(f["name"], rows, made))
    launched = [launch for f in out for launch in f.launches]
    for what, count, limit in (
        ("launches", len(launched), MAX_LAUNCHES),
        ("bound buffers", sum(len(launch.buffers) for launch in launched), MAX_BINDINGS),
        ("scalars", sum(len(launch.scalars) for launch in launched), MAX_SCALARS),
    ):
        if count > limit:
            raise wrong("plan.functions", f"{count} {what}; the runtime takes at most {limit}")
    return tuple(out)


def _launch(
    item: dict[str, Any], kernels: tuple[Kernel, ...], buffers: tuple[Buffer, ...], most: Mapping[str, int], at: str
) -> Launch:
    if item["kernel"] >= len(kernels):
        raise wrong(f"{at}.kernel", f"there is no kernel {item['kernel']}")
    kernel, ids = kernels[item["kernel"]], item["buffers"]
    for what, want in (("buffers", kernel.buffers), ("scalars", kernel.scalars)):
        if len(item[what]) != want:
            raise wrong(f"{at}.{what}", f"kernel {quoted(kernel.name)} takes {want}")
    for i, (b, access) in enumerate(zip(ids, kernel.access, strict=True)):
        where = f"{at}.buffers[{i}]"
        if b >= len(buffers):
            raise wrong(where, f"there is no buffer {b}")
        if access != "r" and buffers[b].kind in ("weight", "input"):
            raise wrong(where, f"{buffers[b].kind} {quoted(buffers[b].name)} is written")
        for j in range(i):
            writes = access != "r" or kernel.access[j] != "r"
            if writes and _overlap(ids[j], b, buffers):
                other = buffers[ids[j]].name
                raise wrong(
                    where, f"{quoted(buffers[b].name)} shares bytes with {quoted(other)} and one of them is written"
                )
    serial = bool(item["serial"])
    if not kernel.workgroup:
        return Launch(item["kernel"], tuple(ids), tuple(item["scalars"]), serial=serial)
    if serial:
        raise wrong(f"{at}.serial", f"kernel {quoted(kernel.name)} has a workgroup; threads wait for no dispatch")
    grid, others = _grid(item["grid"], most, f"{at}.grid"), item["others"] or []
    grids = tuple(_grid(other, most, f"{at}.others[{i}]") for i, other in enumerate(others))
    return Launch(item["kernel"], tuple(ids), tuple(item["scalars"]), grid, grids)


def _grid(grid: list[Extent] | None, most: Mapping[str, int], at: str) -> tuple[Extent, ...]:
    if grid is None:
        raise wrong(at, "is missing")
    for i, value in enumerate(grid):
        count = extent(value, most)
        if count > limits.WORKGROUPS:
            raise wrong(f"{at}[{i}]", f"{count} workgroups at the maxima; WebGPU allows {limits.WORKGROUPS}")
    if extent(grid[0], most) != extent(grid[0], dict.fromkeys(most, 0)):
        raise wrong(f"{at}[0]", "the grid's x depends on a variable")
    return tuple(grid)


def _overlap(a: int, b: int, buffers: tuple[Buffer, ...]) -> bool:
    """Whether a write to one can be seen through the other. Only arena buffers share bytes under two names (weights
    may too, but nobody writes them)."""
    x, y = buffers[a], buffers[b]
    if a == b:
        return True
    if x.kind != "arena" or y.kind != "arena" or x.arena != y.arena:
        return False
    return x.offset < y.offset + y.bytes and y.offset < x.offset + x.bytes
