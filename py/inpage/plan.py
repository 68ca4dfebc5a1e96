"""plan.json: the list of kernel launches that every executor replays. The format, its checks, its dataclasses.

A plan is untrusted input. After `parse_plan` every id is in range and every buffer lies inside its region, so that
nothing a plan says can make an executor read or write elsewhere, and two executors with different rules (the flat C
runtime; WebGPU, which binds ranges) can both run it.

Sizes are planned for the maxima: a launch's *variables* (rows, sequences, logit rows) say how much of them a step uses.

The document::

    version, target          2; the variant's name
    page_tokens              tokens of a KV page
    maxima                   {rows, sequences, logit_rows, context}: what a step, and the model, can take
    blocks_per_sequence      columns of the block table
    variables                ["rows", "sequences", "logit_rows"]
    arenas                   bytes of each region for what passes from launch to launch: one, or two for WebGPU
    vocab                    columns of the logits
    buffers                  {"name", "kind", …}; a buffer's id is its place in this list:
        input                "dtype", "shape" (numbers and variables), "bytes" at the maxima; written before each step
        weight               "tensor", "bytes", and "start" (default 0): a slice of the tensor that begins there
        arena                "arena" (0 or 1), "offset" in it, a multiple of 256, "bytes"; ranges are used again, and
                             two buffers may overlap
        kv                   "page_bytes": page p of it lies at p · page_bytes. Executors for CPUs take one, with all
                             layers; WebGPU gets one a layer, so that a binding holds many pages. All of them grow
                             together and share the block table
        output               "bytes"
    io                       ids of token_ids, positions, row_sequence, block_tables, logit_rows (int32 inputs), and of
                             logits (output, float32 [logit_rows, vocab])
    kernels                  {"name", "buffers", "scalars", "access"}: how many of each it takes, and a letter a buffer,
                             r reads, w writes, x both. For WebGPU also "workgroup": [x, y, z]
    alternatives             lists of kernels that do the same and leave the same bits (default: none). Launches name
                             the first of a list; the device may run any of it in its place
    functions                {"name", "max_rows", "launches"}, by rising max_rows: a step runs the first one that holds
                             its rows
    launches                 {"kernel", "buffers", "scalars"}: buffer ids in the kernel's order; each scalar a number or
                             a variable's name. For WebGPU also "grid": [x, y, z], the workgroups to dispatch, each an
                             int, a variable's name, or ["*" | "+" | "ceildiv", a, b] of such; 0 of them: no dispatch

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

from ._checks import LIMIT, Reader, read_json
from .errors import ArtifactInvalid
from .limits import FILE_BYTES
from .plan_types import VARIABLES, Buffer, Extent, Function, Kernel, Launch, Maxima, Plan, extent
from .schema import ALIGN, Tensor

VERSION = 2
PLAN_BYTES = FILE_BYTES["plan"]  # a plan larger than this is refused unread
KINDS = ("input", "weight", "arena", "kv", "output")
IO = ("token_ids", "positions", "row_sequence", "block_tables", "logit_rows", "logits")

# Capacities of the C runtime (runtime.h).
MAX_FUNCTIONS, MAX_LAUNCHES, MAX_BINDINGS, MAX_SCALARS, LAUNCH_SCALARS = 16, 8192, 32768, 16384, 16
MAX_ALTERNATIVES = 16
# WebGPU's default limits.
MAX_WORKGROUPS, MAX_INVOCATIONS, MAX_WORKGROUP_Z = 65535, 256, 64

_DTYPES = {"int32": 4, "float32": 4}
_OPERATORS = ("*", "+", "ceildiv")


def parse_plan(data: bytes | str | Mapping[str, Any], tensors: Iterable[Tensor]) -> Plan:
    """Check a plan against the tensors of its artifact. Raises `ArtifactInvalid` naming the field
    (``plan.functions[0].launches[3].buffers[1]``)."""
    if isinstance(data, bytes | str):
        data = read_json(data, PLAN_BYTES, "plan.json is", "plan")
    r = Reader(data, "plan")
    version = r.integer("version")
    if version != VERSION:
        raise r.wrong("version", f"{version} is not the supported {VERSION}: compile the model again")
    names = r.items("variables")
    if names.value != list(VARIABLES):
        raise r.wrong("variables", f"must be {', '.join(VARIABLES)}")
    m = r.child("maxima")
    maxima = Maxima(
        rows=m.integer("rows", 1, 65536),
        sequences=m.integer("sequences", 1, 4096),
        logit_rows=m.integer("logit_rows", 1, 65536),
        context=m.integer("context", 1, 1 << 24),
    )
    page_tokens = r.integer("page_tokens", 1, 4096)
    blocks = r.integer("blocks_per_sequence", 1, 1 << 20)
    if blocks * page_tokens < maxima.context:
        raise r.wrong("blocks_per_sequence", f"{blocks} pages of {page_tokens} do not hold {maxima.context} tokens")
    vocab = r.integer("vocab", 1, 1 << 24)
    sizes = r.items("arenas")
    if not 1 <= len(sizes.value) <= 2:
        raise r.wrong("arenas", f"{len(sizes.value)} arenas; there are one or two")
    arenas = tuple(sizes.integer(i, 0, LIMIT) for i in sizes.indices())
    buffers = _buffers(r.items("buffers"), arenas, {t.name: t for t in tensors}, maxima)
    kernels = tuple(_kernel(k) for k in _children(r, "kernels"))
    alternatives = _alternatives(r.items("alternatives"), kernels) if "alternatives" in r.value else ()
    functions = _functions(r, kernels, buffers, maxima)
    others = {k for group in alternatives for k in group[1:]}
    for f, function in enumerate(functions):
        for i, launch in enumerate(function.launches):
            if launch.kernel in others:
                field = f"plan.functions[{f}].launches[{i}].kernel"
                raise ArtifactInvalid(f"{field}: {launch.kernel} is not the first of its alternatives", field=field)
    if functions[-1].max_rows != maxima.rows:
        raise r.wrong("functions", f"the last one takes {functions[-1].max_rows} rows, the maximum is {maxima.rows}")
    return Plan(
        target=r.text("target"),
        page_tokens=page_tokens,
        maxima=maxima,
        blocks_per_sequence=blocks,
        arenas=arenas,
        vocab=vocab,
        buffers=buffers,
        io=_io(r.child("io"), buffers, maxima, blocks, vocab),
        kernels=kernels,
        alternatives=alternatives,
        functions=functions,
    )


def _children(r: Reader, key: str) -> list[Reader]:
    items = r.items(key)
    return [items.child(i) for i in items.indices()]


def _buffers(
    items: Reader, arenas: tuple[int, ...], tensors: Mapping[str, Tensor], maxima: Maxima
) -> tuple[Buffer, ...]:
    out: list[Buffer] = []
    names: set[str] = set()
    for i in items.indices():
        r = items.child(i)
        name, kind = r.text("name"), r.choice("kind", KINDS)
        if name in names:
            raise r.wrong("name", f"{name!r} stands twice")
        names.add(name)
        size = 0 if kind == "kv" else r.integer("bytes", 1, LIMIT)
        if kind == "arena":
            arena = r.integer("arena", 0, len(arenas) - 1)
            offset = _aligned(r, "offset", arenas[arena])
            if offset + size > arenas[arena]:
                raise r.wrong("bytes", f"ends at {offset + size}, outside the arena of {arenas[arena]}")
            out.append(Buffer(name, kind, size, offset, arena=arena))
        elif kind == "kv":
            out.append(Buffer(name, kind, page_bytes=r.integer("page_bytes", 1, LIMIT)))
        elif kind == "weight":
            tensor = tensors.get(r.text("tensor"))
            if tensor is None:
                raise r.wrong("tensor", f"the manifest has no tensor {r.text('tensor')[:80]!r}")
            start = _aligned(r, "start", tensor.bytes) if "start" in r.value else 0
            if start + size > tensor.bytes:
                raise r.wrong("bytes", f"ends at {start + size}, but the tensor has {tensor.bytes}")
            out.append(Buffer(name, kind, size, tensor.offset + start, tensor.name))
        elif kind == "input":
            out.append(_input(r, name, size, maxima))
        else:
            out.append(Buffer(name, kind, size))
    if not any(b.kind == "kv" for b in out):
        raise ArtifactInvalid(f"{items.path}: no kv", field=items.path)
    return tuple(out)


def _aligned(r: Reader, key: str, most: int) -> int:
    offset = r.integer(key, 0, most)
    if offset % ALIGN:
        raise r.wrong(key, f"{offset} is not a multiple of {ALIGN}")
    return offset


def _input(r: Reader, name: str, size: int, maxima: Maxima) -> Buffer:
    dtype = r.choice("dtype", tuple(_DTYPES))
    items = r.items("shape")
    shape: list[int | str] = []
    need = _DTYPES[dtype]
    for i in items.indices():
        dim = items.choice(i, VARIABLES) if isinstance(items.get(i), str) else items.integer(i, 1, 1 << 24)
        shape.append(dim)
        need *= getattr(maxima, dim) if isinstance(dim, str) else dim
    if size < need:
        raise r.wrong("bytes", f"{size}, but this shape needs {need} at the maxima")
    return Buffer(name, "input", size, dtype=dtype, shape=tuple(shape))


def _io(r: Reader, buffers: tuple[Buffer, ...], maxima: Maxima, blocks: int, vocab: int) -> dict[str, int]:
    words = dict.fromkeys(("token_ids", "positions", "row_sequence"), maxima.rows)
    words |= {"block_tables": maxima.sequences * blocks, "logit_rows": maxima.logit_rows}
    words["logits"] = maxima.logit_rows * vocab
    io: dict[str, int] = {}
    for name in IO:
        i = r.integer(name, 0, len(buffers) - 1)
        wanted = "output" if name == "logits" else "input"
        if buffers[i].kind != wanted or (wanted == "input" and buffers[i].dtype != "int32"):
            raise r.wrong(name, f"buffer {i} is no {'int32 ' if wanted == 'input' else ''}{wanted}")
        if buffers[i].bytes < 4 * words[name]:
            raise r.wrong(name, f"buffer {i} has {buffers[i].bytes} bytes, the maxima need {4 * words[name]}")
        if i in io.values():
            raise r.wrong(name, f"buffer {i} stands twice")
        io[name] = i
    for i, b in enumerate(buffers):
        if b.kind in ("input", "output") and i not in io.values():
            raise ArtifactInvalid(f"{r.path}: nobody knows what {b.kind} {b.name!r} is for", field=r.path)
    return io


def _kernel(r: Reader) -> Kernel:
    workgroup: tuple[int, ...] = ()
    if "workgroup" in r.value:
        sizes = _three(r, "workgroup")
        most = (MAX_INVOCATIONS, MAX_INVOCATIONS, MAX_WORKGROUP_Z)
        workgroup = tuple(sizes.integer(i, 1, most[i]) for i in range(3))
        if math.prod(workgroup) > MAX_INVOCATIONS:
            raise r.wrong("workgroup", f"{math.prod(workgroup)} invocations; WebGPU allows {MAX_INVOCATIONS}")
    buffers, scalars = r.integer("buffers", 0, 64), r.integer("scalars", 0, LAUNCH_SCALARS)
    k = Kernel(r.text("name"), buffers, scalars, r.text("access"), workgroup)
    if len(k.access) != k.buffers or set(k.access) - set("rwx"):
        raise r.wrong("access", f"{k.access[:80]!r} must have one of r, w, x for each of {k.buffers} buffers")
    return k


def _alternatives(items: Reader, kernels: tuple[Kernel, ...]) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    seen: set[int] = set()
    for i in items.indices():
        r = items.items(i)
        group = tuple(r.integer(k, 0, len(kernels) - 1) for k in r.indices())
        if not 2 <= len(group) <= MAX_ALTERNATIVES:
            raise items.wrong(i, f"{len(group)} kernels; there must be 2 to {MAX_ALTERNATIVES}")
        first = kernels[group[0]]
        for k, number in enumerate(group):
            if number in seen:
                raise r.wrong(k, f"kernel {number} stands twice")
            seen.add(number)
            one = kernels[number]
            if (one.buffers, one.scalars, one.access, one.workgroup) != (
                first.buffers, first.scalars, first.access, first.workgroup,
            ):  # fmt: skip
                raise r.wrong(k, f"{one.name!r} does not take what {first.name!r} takes")
        found.append(group)
    return tuple(found)


def _three(r: Reader, key: str) -> Reader:
    items = r.items(key)
    if len(items.value) != 3:
        raise r.wrong(key, "must be x, y and z")
    return items


def _functions(
    root: Reader, kernels: tuple[Kernel, ...], buffers: tuple[Buffer, ...], maxima: Maxima
) -> tuple[Function, ...]:
    out: list[Function] = []
    for r in _children(root, "functions"):
        max_rows = r.integer("max_rows", 1, 65536)
        bounds = {"rows": max_rows, "sequences": maxima.sequences, "logit_rows": maxima.logit_rows}
        f = Function(
            name=r.text("name"),
            max_rows=max_rows,
            launches=tuple(_launch(launch, kernels, buffers, bounds) for launch in _children(r, "launches")),
        )
        if out and f.max_rows <= out[-1].max_rows:
            raise r.wrong("max_rows", "functions stand by rising max_rows")
        out.append(f)
    launches = [launch for f in out for launch in f.launches]
    for what, count, most in (
        ("functions", len(out), MAX_FUNCTIONS),
        ("launches", len(launches), MAX_LAUNCHES),
        ("bound buffers", sum(len(launch.buffers) for launch in launches), MAX_BINDINGS),
        ("scalars", sum(len(launch.scalars) for launch in launches), MAX_SCALARS),
    ):
        if count > most or not out:
            raise root.wrong("functions", f"{count} {what}; the runtime takes at most {most}")
    return tuple(out)


def _launch(r: Reader, kernels: tuple[Kernel, ...], buffers: tuple[Buffer, ...], most: Mapping[str, int]) -> Launch:
    k = r.integer("kernel", 0, len(kernels) - 1)
    ids, scalars = r.items("buffers"), r.items("scalars")
    for items, want in ((ids, kernels[k].buffers), (scalars, kernels[k].scalars)):
        if len(items.value) != want:
            raise ArtifactInvalid(f"{items.path}: kernel {kernels[k].name!r} takes {want}", field=items.path)
    launch = Launch(
        kernel=k,
        buffers=tuple(ids.integer(i, 0, len(buffers) - 1) for i in ids.indices()),
        scalars=tuple(
            scalars.choice(i, VARIABLES) if isinstance(scalars.get(i), str) else scalars.integer(i, -(2**31), 2**31 - 1)
            for i in scalars.indices()
        ),
        grid=_grid(r, most) if kernels[k].workgroup else (),
    )
    for i, (a, access) in enumerate(zip(launch.buffers, kernels[k].access, strict=True)):
        if access != "r" and buffers[a].kind in ("weight", "input"):
            raise ids.wrong(i, f"{buffers[a].kind} {buffers[a].name!r} is written")
        for j in range(i):
            writes = access != "r" or kernels[k].access[j] != "r"
            if writes and _overlap(launch.buffers[j], a, buffers):
                other = buffers[launch.buffers[j]].name
                raise ids.wrong(i, f"{buffers[a].name!r} shares bytes with {other!r} and one of them is written")
    return launch


def _grid(r: Reader, most: Mapping[str, int]) -> tuple[Extent, ...]:
    items = _three(r, "grid")
    out = tuple(_extent(items, i) for i in range(3))
    for i, value in enumerate(out):
        count = extent(value, most)
        if count > MAX_WORKGROUPS:
            raise items.wrong(i, f"{count} workgroups at the maxima; WebGPU allows {MAX_WORKGROUPS}")
    if extent(out[0], most) != extent(out[0], dict.fromkeys(most, 0)):
        raise items.wrong(0, "the grid's x depends on a variable")
    return out


def _extent(items: Reader, i: int, depth: int = 0) -> Extent:
    value = items.get(i)
    if isinstance(value, str):
        return items.choice(i, VARIABLES)
    if not isinstance(value, list):
        return items.integer(i, 0 if depth == 0 else 1, 1 << 24)
    parts = items.items(i)
    if len(parts.value) != 3 or depth > 4:
        raise items.wrong(i, "must be an operator and two extents")
    operator = parts.choice(0, _OPERATORS)
    if operator == "ceildiv" and not isinstance(parts.get(2), int):
        raise parts.wrong(2, "must be a whole number")
    return (operator, _extent(parts, 1, depth + 1), _extent(parts, 2, depth + 1))


def _overlap(a: int, b: int, buffers: tuple[Buffer, ...]) -> bool:
    """Whether a write to one can be seen through the other. Only arena buffers share bytes under two names (weights
    may too, but nobody writes them)."""
    x, y = buffers[a], buffers[b]
    if a == b:
        return True
    if x.kind != "arena" or y.kind != "arena" or x.arena != y.arena:
        return False
    return x.offset < y.offset + y.bytes and y.offset < x.offset + x.bytes
