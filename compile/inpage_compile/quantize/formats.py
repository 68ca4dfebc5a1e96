"""The formats an artifact can describe, by name, and which GGML tensor types map into which of them.

All of GGUF's affine types are described, so that the artifact need not change when their converters come;
`GGML_FORMATS` holds those that have one.
"""

from __future__ import annotations

from inpage.errors import SourceInvalid
from inpage.format.schema import Format, SuperBlock


def _k(kind: str, bits: int, group: int, scale_bits: int, min_bits: int = 0, zero: int = 0) -> Format:
    sup = SuperBlock(256, scale_bits, min_bits, "f16", "f16" if min_bits else None)
    return Format(kind, bits, group, zero=zero, super=sup)


FORMATS: dict[str, Format] = {
    "f32": Format("float", 32),
    "f16": Format("float", 16),
    "q8_0": Format("int", 8, 32, "f16"),
    "q4_0": Format("uint", 4, 32, "f16", zero=8),
    "q4_1": Format("uint", 4, 32, "f16", "f16"),
    "q5_0": Format("uint", 5, 32, "f16", zero=16),
    "q5_1": Format("uint", 5, 32, "f16", "f16"),
    "q2_k": _k("uint", 2, 16, 4, 4),
    "q3_k": _k("uint", 3, 16, 6, zero=4),
    "q4_k": _k("uint", 4, 32, 6, 6),
    "q5_k": _k("uint", 5, 32, 6, 6),
    "q6_k": _k("uint", 6, 16, 8, zero=32),
}

NAMES: dict[Format, str] = {format: name for name, format in FORMATS.items()}

# GGML type name -> format name: the types that can be read.
GGML_FORMATS = {"F32": "f32", "F16": "f16", "Q8_0": "q8_0", "Q4_0": "q4_0", "Q4_1": "q4_1"}


def format_of(ggml_type: str, tensor: str) -> str:
    """The format that holds a GGML type. Raises `SourceInvalid` naming ``tensor`` where none does yet."""
    name = GGML_FORMATS.get(ggml_type)
    if name is None:
        known = ", ".join(GGML_FORMATS)
        raise SourceInvalid(f"{tensor}: tensor type {ggml_type} is not supported; supported are {known}", field=tensor)
    return name
