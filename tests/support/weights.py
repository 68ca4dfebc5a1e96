"""Random packed weights for tests of kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inpage_compile.quantize import FORMATS, Groups, pack

Array = npt.NDArray[Any]


def columns_of(format: str) -> int:
    """A width for tests: three groups, or two super-blocks."""
    sup = FORMATS[format].super
    return 96 if sup is None else 2 * sup.size


def random_weights(rng: np.random.Generator, format: str, rows: int, columns: int) -> Groups:
    """Any quants and sub-scales; scales of both signs and many sizes, zero and f16 denormals among them."""
    fmt = FORMATS[format]
    if fmt.is_float:
        values = rng.standard_normal((rows, columns)).astype(np.float32)
        if fmt.bits == 32:
            return Groups(format, values.view(np.uint32))
        if fmt.type == "bfloat":
            return Groups(format, (values.view(np.uint32) >> 16).astype(np.uint16))
        return Groups(format, values.astype(np.float16).view(np.uint16))
    q: Array = rng.integers(0, 1 << fmt.bits, (rows, columns)).astype(np.uint8)
    groups = columns // fmt.span
    sup = fmt.super

    def scales() -> Array:
        d = rng.standard_normal((rows, groups)) * 10.0 ** rng.integers(-4, 1, (rows, groups))
        d.flat[0], d.flat[-1] = 0, 3e-7
        return d.astype(np.float16).view(np.uint16)

    if fmt.scale == "e8m0":
        exponents = rng.integers(110, 130, (rows, groups))
        exponents.flat[0], exponents.flat[-1] = 0, 1  # float32 denormals
        return Groups(format, q, exponents.astype(np.uint8))

    def subs(bits: int) -> Array:
        return rng.integers(0, 1 << bits, (rows, columns // fmt.group)).astype(np.uint8)

    if sup is None:
        return Groups(format, q.view(np.int8) if fmt.type == "int" else q, scales(), scales() if fmt.min else None)
    if sup.min is None:
        own = subs(sup.scale_bits)
        return Groups(format, q, scales(), sub_d=own.view(np.int8) if sup.signed else own)
    return Groups(format, q, scales(), scales(), subs(sup.scale_bits), subs(sup.min_bits))


def random_quants(rng: np.random.Generator, rows: int, columns: int) -> tuple[Array, Array]:
    """Activations in 8 bits: quants [rows, columns] and their scales [rows, groups], a zero group among them."""
    quants = rng.integers(-127, 128, (rows, columns))
    quants[:1, :32] = 0
    return quants, rng.uniform(1e-3, 0.1, (rows, columns // 32)).astype(np.float32)


def packed(groups: Groups) -> Array:
    """The weight buffer of a kernel, int32 words."""
    return np.ascontiguousarray(pack(groups)).view(np.int32)
