"""What a variant's kernels look like, for people who measure them: TVMScript in, the target's assembly out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import tvm

from inpage.format.schema import Architecture, Tensor

from .pipeline import lower_variant
from .targets.codegen import _quiet as quiet
from .targets.codegen import lower
from .targets.variants import VariantSpec

# Debug records, labels that only they use, and section bookkeeping.
_NOISE = re.compile(r"\s*\.(loc|file|cfi_\w+|section|p2align|size|ident|type|hidden|globl|int8|int32|asciz)\b|\.L\w+:")


@dataclass(frozen=True, slots=True)
class Listing:
    """``script``: the kernel as TVM has it before code generation. ``assembly``: LLVM's text, stripped of debugging."""

    script: str
    assembly: str


def list_kernels(spec: VariantSpec, architecture: Architecture, tensors: Mapping[str, Tensor]) -> dict[str, Listing]:
    """Every kernel of a variant by its name in the plan. Takes as long as compiling them."""
    kernels = lower_variant(spec, architecture, tensors).kernels
    target = spec.target()
    build = tvm.get_global_func("target.build.llvm")
    with quiet():
        return {
            name: Listing(str(func.script()), _clean(build(lower({name: func}, target), target).inspect_source("asm")))
            for name, func in kernels.items()
        }


def _clean(assembly: str) -> str:
    lines = [line.rstrip() for line in assembly.splitlines()]
    kept = [line.expandtabs(8) for line in lines if line and not _NOISE.match(line)]
    end = next((i for i, line in enumerate(kept) if line.strip() == "end_function"), len(kept) - 1)
    return "\n".join(kept[: end + 1])
