"""What is made of a checked plan: the flat program for C, a dump for people, and whether WebGPU could bind it."""

from __future__ import annotations

from array import array

from ..errors import ArtifactInvalid, quoted
from .abi import IO, SCALAR_CONSTANT, SCALAR_VARIABLE, SERIAL, VARIABLES
from .limits import BINDING_BYTES, STORAGE_BUFFERS
from .plan_types import Buffer, Extent, Launch, Plan


def check_for_webgpu(plan: Plan) -> None:
    """Whether WebGPU's default limits could bind every launch, whatever target the plan was made for: at most 8
    storage buffers; of a plan that WebGPU runs also that no binding is larger than 128 MiB, and that no launch reads
    an arena that it writes. (Alignment and aliasing are checked in every plan.) Raises `ArtifactInvalid`."""
    for f, function in enumerate(plan.functions):
        for i, launch in enumerate(function.launches):
            where = f"plan.functions[{f}].launches[{i}]"
            name = plan.kernels[launch.kernel].name
            used = len(set(launch.buffers))
            if used > STORAGE_BUFFERS:
                raise _invalid(
                    f"{where}.buffers", f"{quoted(name)} binds {used} buffers, WebGPU allows {STORAGE_BUFFERS}"
                )
            if plan.kernels[launch.kernel].workgroup:
                _check_bindings(plan, launch, f"{where}.buffers", name)


def _check_bindings(plan: Plan, launch: Launch, where: str, name: str) -> None:
    kernel = plan.kernels[launch.kernel]
    read: set[int] = set()
    written: set[int] = set()
    for k, (i, access) in enumerate(zip(launch.buffers, kernel.access, strict=True)):
        b = plan.buffers[i]
        if b.bytes > BINDING_BYTES:
            raise _invalid(f"{where}[{k}]", f"{quoted(b.name)} has {b.bytes} bytes, WebGPU binds {BINDING_BYTES}")
        if b.kind == "arena":
            (read if access == "r" else written).add(b.arena)
    if read & written:
        raise _invalid(where, f"{quoted(name)} reads and writes arena {min(read & written)}")
    if len(set(launch.buffers)) != len(launch.buffers):
        raise _invalid(where, f"{quoted(name)} gets one buffer twice")


def _invalid(field: str, why: str) -> ArtifactInvalid:
    return ArtifactInvalid(f"{field}: {why}", field=field)


def encode_program(plan: Plan) -> array[int]:
    """The flat int32 program of abi.h."""
    words = array("i", [len(plan.functions)])
    for function in plan.functions:
        words.extend((function.max_rows, len(function.launches)))
        for launch in function.launches:
            kernel = launch.kernel + (SERIAL if launch.serial else 0)
            words.extend((kernel, len(launch.buffers), *launch.buffers, len(launch.scalars)))
            for scalar in launch.scalars:
                if isinstance(scalar, str):
                    words.extend((SCALAR_VARIABLE, VARIABLES.index(scalar)))
                else:
                    words.extend((SCALAR_CONSTANT, scalar))
    return words


def encode_io(plan: Plan) -> array[int]:
    """The words of inpage_io: ids of the buffers that the runtime itself reads or writes, and the sizes of the plan."""
    m = plan.maxima
    sizes = {
        "vocab": plan.vocab,
        "max_rows": m.rows,
        "max_sequences": m.sequences,
        "max_logit_rows": m.logit_rows,
        "blocks_per_sequence": plan.blocks_per_sequence,
    }
    words = {**sizes, **plan.io}
    return array("i", [words[name] for name in IO])


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
    for group in plan.kv_groups:
        layers = ", ".join(map(str, group.layers))
        seen = "all tokens" if group.window is None else f"{group.window} tokens"
        lines.append(f"layers {layers}: pages of {group.page_tokens} tokens, {seen} seen")
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
                + (f", grid {' x '.join(map(_show_extent, launch.grid))}" if launch.grid else "")
                + (", serial" if launch.serial else "")
            )
    return "\n".join(lines) + "\n"


def _show(b: Buffer) -> str:
    return f"{b.name}@{b.offset:#x}" if b.kind == "arena" else b.name


def _show_extent(value: Extent) -> str:
    if isinstance(value, tuple):
        return f"{value[0]}({_show_extent(value[1])}, {_show_extent(value[2])})"
    return str(value)
