"""plan.json: the list of kernel launches that every executor replays. Schema, checks, encoding, a readable dump.

A plan is untrusted input. After `parse_plan` every id is in range and every buffer lies inside its region, so that
nothing a plan says can make an executor read or write elsewhere, and two executors with different rules (the flat C
runtime; WebGPU, which binds ranges) can both run it.

Sizes are planned for the maxima: a launch's *variables* (rows, sequences, logit rows) say how much of them a step uses.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ._checks import LIMIT, Reader
from .errors import ArtifactInvalid
from .schema import ALIGN, Tensor

VERSION = 1
PLAN_BYTES = 32 * 1024 * 1024  # a plan larger than this is refused unread
VARIABLES = ("rows", "sequences", "logit_rows")
KINDS = ("input", "weight", "arena", "kv", "output")
IO = ("token_ids", "positions", "row_sequence", "block_tables", "logit_rows", "logits")
WEBGPU_STORAGE_BUFFERS = 8  # a stage, in WebGPU's default limits

# Capacities of the C runtime (runtime.h).
MAX_FUNCTIONS, MAX_LAUNCHES, MAX_BINDINGS, MAX_SCALARS, LAUNCH_SCALARS = 16, 8192, 32768, 16384, 16

_DTYPES = {"int32": 4, "float32": 4}


@dataclass(frozen=True, slots=True)
class Maxima:
    """What one step, and the model, can take: the sizes that every buffer is planned for."""

    rows: int
    sequences: int
    logit_rows: int
    context: int


@dataclass(frozen=True, slots=True)
class Buffer:
    """One entry of the address table. ``offset`` lies in the arena, or in the weight space; ``bytes`` of kv is 0, it
    grows by pages. Inputs have a ``dtype`` and a ``shape`` of numbers and variables."""

    name: str
    kind: str
    bytes: int = 0
    offset: int = 0
    tensor: str | None = None
    dtype: str | None = None
    shape: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kernel:
    """``access`` has a letter a buffer: r reads, w writes, x both (in place)."""

    name: str
    buffers: int
    scalars: int
    access: str


@dataclass(frozen=True, slots=True)
class Launch:
    """``buffers``: ids, in the kernel's order. ``scalars``: constants, or names of variables."""

    kernel: int
    buffers: tuple[int, ...]
    scalars: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """The launches of a step of up to ``max_rows`` rows that does not fit the function before it."""

    name: str
    max_rows: int
    launches: tuple[Launch, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    target: str
    page_tokens: int
    maxima: Maxima
    blocks_per_sequence: int
    arena_bytes: int
    page_bytes: int
    vocab: int
    buffers: tuple[Buffer, ...]
    io: Mapping[str, int]
    kernels: tuple[Kernel, ...]
    functions: tuple[Function, ...]


def parse_plan(data: bytes | str | Mapping[str, Any], tensors: Iterable[Tensor]) -> Plan:
    """Check a plan against the tensors of its artifact. Raises `ArtifactInvalid` naming the field
    (``plan.functions[0].launches[3].buffers[1]``)."""
    if isinstance(data, bytes | str):
        if len(data) > PLAN_BYTES:
            raise ArtifactInvalid(f"plan.json is larger than {PLAN_BYTES} bytes", field="plan")
        try:
            data = json.loads(data)
        except (ValueError, RecursionError) as e:
            raise ArtifactInvalid(f"plan.json is not JSON: {e}", field="plan") from e
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
    arena_bytes = r.integer("arena_bytes", 0, LIMIT)
    buffers = _buffers(r.items("buffers"), arena_bytes, {t.name: t for t in tensors}, maxima)
    kernels = tuple(_kernel(k) for k in _children(r, "kernels"))
    functions = _functions(r, kernels, buffers)
    if functions[-1].max_rows != maxima.rows:
        raise r.wrong("functions", f"the last one takes {functions[-1].max_rows} rows, the maximum is {maxima.rows}")
    return Plan(
        target=r.text("target"),
        page_tokens=page_tokens,
        maxima=maxima,
        blocks_per_sequence=blocks,
        arena_bytes=arena_bytes,
        page_bytes=r.child("kv").integer("page_bytes", 1, LIMIT),
        vocab=vocab,
        buffers=buffers,
        io=_io(r.child("io"), buffers, maxima, blocks, vocab),
        kernels=kernels,
        functions=functions,
    )


def _children(r: Reader, key: str) -> list[Reader]:
    items = r.items(key)
    return [items.child(i) for i in items.indices()]


def _buffers(items: Reader, arena_bytes: int, tensors: Mapping[str, Tensor], maxima: Maxima) -> tuple[Buffer, ...]:
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
            offset = r.integer("offset", 0, arena_bytes)
            if offset % ALIGN:
                raise r.wrong("offset", f"{offset} is not a multiple of {ALIGN}")
            if offset + size > arena_bytes:
                raise r.wrong("bytes", f"ends at {offset + size}, outside the arena of {arena_bytes}")
            out.append(Buffer(name, kind, size, offset))
        elif kind == "weight":
            tensor = tensors.get(r.text("tensor"))
            if tensor is None:
                raise r.wrong("tensor", f"the manifest has no tensor {r.text('tensor')[:80]!r}")
            if size != tensor.bytes:
                raise r.wrong("bytes", f"{size}, but the tensor has {tensor.bytes}")
            out.append(Buffer(name, kind, size, tensor.offset, tensor.name))
        elif kind == "input":
            out.append(_input(r, name, size, maxima))
        else:
            out.append(Buffer(name, kind, size))
    if sum(b.kind == "kv" for b in out) > 1:
        raise ArtifactInvalid(f"{items.path}: more than one kv", field=items.path)
    return tuple(out)


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
    k = Kernel(r.text("name"), r.integer("buffers", 0, 64), r.integer("scalars", 0, LAUNCH_SCALARS), r.text("access"))
    if len(k.access) != k.buffers or set(k.access) - set("rwx"):
        raise r.wrong("access", f"{k.access[:80]!r} must have one of r, w, x for each of {k.buffers} buffers")
    return k


def _functions(root: Reader, kernels: tuple[Kernel, ...], buffers: tuple[Buffer, ...]) -> tuple[Function, ...]:
    out: list[Function] = []
    for r in _children(root, "functions"):
        f = Function(
            name=r.text("name"),
            max_rows=r.integer("max_rows", 1, 65536),
            launches=tuple(_launch(launch, kernels, buffers) for launch in _children(r, "launches")),
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


def _launch(r: Reader, kernels: tuple[Kernel, ...], buffers: tuple[Buffer, ...]) -> Launch:
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


def _overlap(a: int, b: int, buffers: tuple[Buffer, ...]) -> bool:
    """Whether a write to one can be seen through the other. Only arena buffers share bytes under two names (weights
    may too, but nobody writes them)."""
    x, y = buffers[a], buffers[b]
    if a == b:
        return True
    if x.kind != "arena" or y.kind != "arena":
        return False
    return x.offset < y.offset + y.bytes and y.offset < x.offset + x.bytes


def check_for_webgpu(plan: Plan) -> None:
    """Whether WebGPU's default limits could bind every launch, whatever target the plan was made for: at most 8
    storage buffers. (Alignment and aliasing are checked in every plan.) Raises `ArtifactInvalid`."""
    for f, function in enumerate(plan.functions):
        for i, launch in enumerate(function.launches):
            used = len(set(launch.buffers))
            if used > WEBGPU_STORAGE_BUFFERS:
                name = plan.kernels[launch.kernel].name
                where = f"plan.functions[{f}].launches[{i}].buffers"
                raise ArtifactInvalid(
                    f"{where}: {name!r} binds {used} buffers, WebGPU allows {WEBGPU_STORAGE_BUFFERS}", field=where
                )


def encode_program(plan: Plan) -> array[int]:
    """The flat int32 program of abi.h."""
    words = array("i", [len(plan.functions)])
    for function in plan.functions:
        words.extend((function.max_rows, len(function.launches)))
        for launch in function.launches:
            words.extend((launch.kernel, len(launch.buffers), *launch.buffers, len(launch.scalars)))
            for scalar in launch.scalars:
                words.extend((1, VARIABLES.index(scalar)) if isinstance(scalar, str) else (0, scalar))
    return words


def describe(plan: Plan) -> str:
    """A dump for people: regions, then every launch with its kernel, buffers, scalars and the bytes it can touch at
    the maxima (weights apart, as they decide the speed of decoding)."""
    m = plan.maxima
    weights = sum(b.bytes for b in plan.buffers if b.kind == "weight")
    lines = [
        f"target {plan.target}: rows <= {m.rows}, sequences <= {m.sequences}, logit rows <= {m.logit_rows}, "
        f"context {m.context}, vocabulary {plan.vocab}",
        f"pages of {plan.page_tokens} tokens, {plan.page_bytes:,} bytes; arena {plan.arena_bytes:,} bytes; "
        f"weights {weights:,} bytes",
    ]
    for function in plan.functions:
        lines += ["", f"{function.name}: up to {function.max_rows} rows, {len(function.launches)} launches"]
        for i, launch in enumerate(function.launches):
            kernel = plan.kernels[launch.kernel]
            bound = [plan.buffers[b] for b in launch.buffers]
            shown = [f"{a} {_show(b)}" for a, b in zip(kernel.access, bound, strict=True)]
            read = sum(b.bytes for b in bound if b.kind == "weight")
            other = sum(b.bytes for b in bound if b.kind != "weight")
            scalars = ", ".join(map(str, launch.scalars))
            lines.append(
                f"{i:5}  {kernel.name}({scalars})  [{'; '.join(shown)}]  weights {read:,} B, other {other:,} B"
            )
    return "\n".join(lines) + "\n"


def _show(b: Buffer) -> str:
    return f"{b.name}@{b.offset:#x}" if b.kind == "arena" else b.name
