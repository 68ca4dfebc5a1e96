"""Show what a model's WebGPU kernels move and compute in a step, and how long a GPU of a given speed would take.

Two steps: one row, and a chunk of a prompt, both after --context tokens. Bytes, operations and workgroups come from the
launch plan and the shapes of the weights; a dispatch is taken to read and write each byte once. What the workgroups of
a matrix ask for, their weights and activations over and over, is "loaded".
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest
from ..format.manifest import parse_manifest
from ..format.plan import parse_plan
from ..format.plan_types import Plan
from ..format.schema import Manifest
from . import paths
from .plan_costs import Cost, Machine, Step, costs, dispatches_of_a_layer

_HEAD: tuple[str, ...] = (
    "kernel", "dispatches", "workgroups", "loads", "MB loaded", "MB read", "MB written", "GFLOP", "µs",
)  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a compiled model's folder or id")
    parser.add_argument("--variant", metavar="NAME", help="default: the first of WebGPU")
    parser.add_argument("--context", type=int, default=1024, metavar="N", help="tokens before (default: %(default)s)")
    parser.add_argument("--rows", type=int, metavar="N", help="of the chunk (default: as many as a step takes)")
    parser.add_argument("--bandwidth", type=float, default=3.0, metavar="TB/s", help="default: %(default)s")
    parser.add_argument("--speed", type=float, default=30.0, metavar="TFLOP/s", help="default: %(default)s")
    parser.add_argument(
        "--dispatch", type=float, default=4.0, metavar="µs", help="what an empty dispatch takes (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one object")


def run(args: argparse.Namespace) -> int:
    for name in ("bandwidth", "speed"):
        if not getattr(args, name) > 0:
            raise InvalidRequest(f"--{name} {getattr(args, name)} is not above 0", field=name)
    if not args.dispatch >= 0:
        raise InvalidRequest(f"--dispatch {args.dispatch} is below 0", field="dispatch")
    folder = paths.artifact(args.model)
    manifest = parse_manifest((folder / "manifest.json").read_bytes())
    name, plan = _plan(folder, manifest, args.variant)
    most = plan.maxima.rows
    rows = most if args.rows is None else args.rows
    if not 1 <= rows <= most:
        raise InvalidRequest(f"--rows {rows} is not in 1..{most}, which a step of {name} takes", field="rows")
    room = plan.maxima.context - rows
    if not 0 <= args.context <= room:
        raise InvalidRequest(f"--context {args.context} is not in 0..{room}, with {rows} rows behind", field="context")
    machine = Machine(args.bandwidth * 1e12, args.speed * 1e12, args.dispatch * 1e-6)
    steps = [Step(count, args.context) for count in dict.fromkeys((1, rows))]
    layers = manifest.architecture.layers
    if args.json:
        print(json.dumps({"variant": name, "steps": [_object(plan, manifest, s, machine) for s in steps]}))
        return 0
    print(f"{manifest.name}, {name}: {args.bandwidth:g} TB/s, {args.speed:g} TFLOP/s, {args.dispatch:g} µs a dispatch")
    for step in steps:
        print(f"\n{step.rows} row{'s' * (step.rows > 1)} after {step.before:,} tokens")
        print(table(costs(plan, manifest, step), machine))
        print(f"{dispatches_of_a_layer(plan, layers, step):.1f} dispatches a layer")
    return 0


def _plan(folder: Path, manifest: Manifest, name: str | None) -> tuple[str, Plan]:
    """Raises `InvalidRequest` where there is no plan of a WebGPU variant with a KV cache."""
    fit = [v.name for v in manifest.variants if v.backend == "webgpu"]
    if name is not None and name not in fit:
        raise InvalidRequest(f"no WebGPU variant {name!r}; there are: {', '.join(fit) or 'none'}", field="variant")
    if not fit:
        raise InvalidRequest(
            f"{folder} has no WebGPU variant; inpage compile --variants webgpu-f32 makes one", field="variant"
        )
    variant = manifest.variant(name or fit[0])
    plan = parse_plan((folder / variant.files["plan"].file).read_bytes(), manifest.tensors)
    if not plan.paged:
        raise InvalidRequest(f"{manifest.id} has no KV cache: the table is for language models", field="model")
    return variant.name, plan


def _object(plan: Plan, manifest: Manifest, step: Step, machine: Machine) -> dict[str, Any]:
    kernels = [{**asdict(cost), "seconds": machine.seconds(cost)} for cost in costs(plan, manifest, step)]
    a_layer = dispatches_of_a_layer(plan, manifest.architecture.layers, step)
    return {"rows": step.rows, "before": step.before, "dispatches_a_layer": a_layer, "kernels": kernels}


def table(found: list[Cost], machine: Machine) -> str:
    """A line a kernel, and one for all."""
    whole = Cost("all")
    for cost in found:
        whole.add(cost)
    rows: list[tuple[str, ...]] = [_HEAD]
    for cost in found:
        rows.append(_row(cost, f"{cost.workgroups:,}", f"×{cost.loads}" if cost.loads else "", machine.seconds(cost)))
    rows.append(_row(whole, "", "", sum(machine.seconds(cost) for cost in found)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def _row(cost: Cost, workgroups: str, loads: str, seconds: float) -> tuple[str, ...]:
    loaded = f"{cost.loaded / 1e6:.3f}" if cost.loaded else ""
    sizes = (loaded, f"{cost.read / 1e6:.3f}", f"{cost.written / 1e6:.3f}", f"{cost.operations / 1e9:.3f}")
    return (cost.kernel, str(cost.dispatches), workgroups, loads, *sizes, f"{seconds * 1e6:.1f}")
