"""The formats an artifact can describe, by name, and which GGML tensor types map into which of them: all of GGUF's
affine types but the ternary ones, and those with a table of 16 whole numbers."""

from __future__ import annotations

from inpage.errors import SourceInvalid
from inpage.format.schema import Format, SuperBlock


def _k(bits: int, group: int, scale_bits: int, min_bits: int = 0, zero: int = 0, *, sub_zero: int = 0,
       signed: bool = False, table: tuple[int, ...] | None = None) -> Format:  # fmt: skip
    sup = SuperBlock(256, scale_bits, min_bits, "f16", "f16" if min_bits else None, sub_zero, signed)
    return Format("uint", bits, group, zero=zero, super=sup, table=table)


_IQ4 = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_E2M1 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # twice its values


FORMATS: dict[str, Format] = {
    "f32": Format("float", 32),
    "f16": Format("float", 16),
    "bf16": Format("bfloat", 16),
    "q8_0": Format("int", 8, 32, "f16"),
    "q4_0": Format("uint", 4, 32, "f16", zero=8),
    "q4_1": Format("uint", 4, 32, "f16", "f16"),
    "q5_0": Format("uint", 5, 32, "f16", zero=16),
    "q5_1": Format("uint", 5, 32, "f16", "f16"),
    "q2_k": _k(2, 16, 4, 4),
    "q3_k": _k(3, 16, 6, zero=4, sub_zero=32),
    "q4_k": _k(4, 32, 6, 6),
    "q5_k": _k(5, 32, 6, 6),
    "q6_k": _k(6, 16, 8, zero=32, signed=True),
    "iq4_nl": Format("uint", 4, 32, "f16", table=_IQ4),
    "iq4_xs": _k(4, 32, 6, sub_zero=32, table=_IQ4),
    "mxfp4": Format("uint", 4, 32, "e8m0", table=_E2M1),
}

NAMES: dict[Format, str] = {format: name for name, format in FORMATS.items()}

# GGML type name -> format name: the types that can be read.
GGML_FORMATS = {name.upper(): name for name in FORMATS}
# What a person whose file has another type can take in its place, by how such types' names begin: about as many bits.
_INSTEAD = {
    "IQ1": "Q2_K", "IQ2": "Q2_K", "IQ3": "Q3_K", "TQ": "Q2_K", "Q1": "Q2_K", "Q8": "Q8_0", "NVFP4": "MXFP4 or Q4_K",
}  # fmt: skip


def format_of(ggml_type: str, tensor: str) -> str:
    """The format that holds a GGML type. Raises `SourceInvalid` naming ``tensor`` where none does, and what to take."""
    name = GGML_FORMATS.get(ggml_type)
    if name is None:
        near = next((instead for start, instead in _INSTEAD.items() if ggml_type.startswith(start)), None)
        take = f"take the model's file in {near}; " if near else ""
        known = ", ".join(GGML_FORMATS)
        raise SourceInvalid(
            f"{tensor}: tensor type {ggml_type} is not supported; {take}supported are {known}", field=tensor
        )
    return name
