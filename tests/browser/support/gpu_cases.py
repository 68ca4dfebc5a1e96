"""Write what a page needs to try every kernel for WebGPU: ``python gpu_cases.py OUT``

- ``float32.wgsl``: all kernels of `gpu_content` and `gpu_int8`, as an artifact has them;
- ``float32.json``: the cases, with offsets into
- ``float32.bin``: what buffers hold before, and float64 expectations and tolerances;

and ``emulated.*``, the same of `gpu_units`, its matrix units emulated. ``python gpu_cases.py OUT --halves``: for
adapters that have float16 and matrix units, ``float16.*`` and ``matrix-<units>.*``. What was written stays until the
compiler or the tests' code changes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gpu_content import SLOW, Case, Content
from gpu_int8 import Int8Content
from gpu_units import FORMAT_NAMES, UnitsContent, emulated
from kernel_cases import Blob, once

from inpage.format.plan_types import Extent, extent
from inpage_compile.targets.variants import UNITS
from inpage_compile.targets.webgpu import shaders


def describe(case: Case, names: dict[int, str], blob: Blob) -> dict[str, Any]:
    buffers = {}
    for name, held in case.buffers.items():
        if held is not None:
            buffers[name] = {"bytes": held.nbytes, "input": blob.put(held)}
        else:
            out = case.outputs.get(name)
            size = case.sizes.get(name) or (out.want.size * np.dtype(out.dtype).itemsize if out else 0)
            buffers[name] = {"bytes": -(-size // 4) * 4}
    outputs = [
        {"buffer": name, "dtype": e.dtype, "count": e.want.size, "want": blob.put(e.want.astype(np.float64)),
         "tolerance": blob.put(e.tolerance.astype(np.float64))}
        for name, e in case.outputs.items()
    ]  # fmt: skip
    launches = []
    for func, bound, scalars in case.launches:
        params = [p.name for p in func.params][len(bound) - (str(func.attrs["inpage.access"]).count("w")) :]
        given = dict(
            zip([p for p in params if p in ("rows", "logit_rows", "first", "window", "group")], scalars, strict=True)
        )
        grid = [extent(_tuples(e), given) for e in json.loads(str(func.attrs["inpage.grid"]))]
        launches.append({"kernel": names[id(func)], "buffers": bound, "scalars": scalars, "grid": grid,
                         "access": str(func.attrs["inpage.access"])})  # fmt: skip
    return {"family": case.family, "name": case.name, "buffers": buffers, "launches": launches, "outputs": outputs,
            "like": case.like}  # fmt: skip


def _tuples(value: Any) -> Extent:
    return (value[0], _tuples(value[1]), _tuples(value[2])) if isinstance(value, list) else value


def write(name: str, cases: Sequence[Case], out: Path) -> None:
    blob = Blob()
    functions = {id(f): f for case in cases for f, _, _ in case.launches}
    names = {key: f"{f.attrs['inpage.name']}_{i}" for i, (key, f) in enumerate(functions.items())}
    described = [describe(case, names, blob) for case in cases]
    text = shaders({names[key]: f for key, f in functions.items()})
    if name == "emulated":
        text = "".join(f"//: {emulated(kernel)}" for kernel in text.split("//: ")[1:])
    (out / f"{name}.wgsl").write_text(text)
    (out / f"{name}.bin").write_bytes(blob.data)
    (out / f"{name}.json").write_text(json.dumps(described))


def main(out: Path, halves: bool) -> None:
    def make() -> None:
        if halves:
            write("float16", list(Content("float16").cases()), out)
            for units in UNITS:
                write(f"matrix-{units}", list(UnitsContent([units], "float16", FORMAT_NAMES).cases()), out)
            return
        write("float32", [*Content("float32").cases(), *Int8Content().cases()], out)
        write("emulated", list(UnitsContent(UNITS if SLOW else UNITS[:1], "float32", ["q6_k"]).cases()), out)

    once(out, make, "gpu_content.py", "gpu_int8.py", "gpu_units.py")


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--halves" in sys.argv)
