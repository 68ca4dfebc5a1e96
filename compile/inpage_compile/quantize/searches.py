"""The scales of groups of numbers: what K-quants search before their two levels are rounded.

After llama.cpp's ggml-quants.c (``make_qkx2_quants``, ``make_qx_quants``); the code is our own. A group is a column:
arrays are float32 [size of a group, groups], so that sums over groups are sums of rows, which vectorise. Numbers are
scaled to at most 1 first, so that each candidate is one multiplication by a scalar, and the error of a least-squares
fit comes from its sums, without another look at the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_ZERO = np.float32(1e-15)  # groups of numbers that are all smaller count as zeros


def affine(
    x: Array, weights: Array, top: int, sweeps: Sequence[Sequence[float]], absolute: bool = False
) -> tuple[Array, Array]:
    """Scale and minimum (0 or less) of quants 0 to ``top``, float32 [groups] each: of the best of one candidate an
    offset, rounded as if quants went to ``top`` + offset, then fitted by weighted least squares. Each of ``sweeps``
    rounds from the best minimum that those before it found. ``absolute``: the best has the least weighted sum of
    absolute errors, not of squares."""
    high, low = x.max(axis=0), np.minimum(x.min(axis=0), 0)
    best = np.full(x.shape[1], np.inf, np.float32)
    scale = (high - low) / np.float32(top)  # of equal numbers, which no candidate fits better
    for later, offsets in enumerate(sweeps):
        span = high - low
        span[span <= 0] = 1
        v = (x - low) / span
        error, fitted, base = _sweep(v, weights, -low / span, top, offsets, 0 if later else None, absolute)
        error *= span if absolute else span * span
        better = error < best
        np.copyto(best, error, where=better)
        np.copyto(scale, fitted * span, where=better)
        low = np.where(better, np.minimum(low + base * span, 0), low)
    return scale, low


def _sweep(
    v: Array, weights: Array, zero: Array, top: int, offsets: Sequence[float], least: int | None, absolute: bool
) -> tuple[Array, Array, Array]:
    """Error, scale and minimum of the best candidate for numbers of at most 1. ``zero``: what 0 has become, above which
    no minimum lies; ``least``: the smallest quant, where any number would be rounded to less."""
    sum_w, sum_v, sum_vv = weights.sum(axis=0), _dot(weights, v), _dot(weights * v, v)
    q, qq, qv = np.empty((3, len(offsets), v.shape[1]), np.float32)
    t, wt = np.empty_like(v), np.empty_like(v)
    for i, offset in enumerate(offsets):
        _round(v, top + offset, least, top, t)
        np.multiply(weights, t, out=wt)
        np.add.reduce(wt, axis=0, out=q[i])
        _dot(wt, t, qq[i])
        _dot(wt, v, qv[i])
    determinant = sum_w * qq - q * q
    scale = (sum_w * qv - sum_v * q) / determinant
    base = (qq * sum_v - q * qv) / determinant
    above = base > zero
    scale, base = np.where(above, (qv - zero * q) / qq, scale), np.where(above, zero, base)
    if absolute:
        error = np.empty_like(q)
        for i, offset in enumerate(offsets):
            _round(v, top + offset, least, top, t)
            t *= scale[i]
            t += base[i]
            t -= v
            _dot(np.abs(t, out=t), weights, error[i])
    else:
        error = scale * (scale * qq + 2 * (base * q - qv)) + base * (base * sum_w - 2 * sum_v) + sum_vv
    error[~(determinant > 0)] = np.inf
    best = np.argmin(error, axis=0)[None]
    error, scale, base = (np.take_along_axis(each, best, axis=0)[0] for each in (error, scale, base))
    return error, scale, base


def symmetric(x: Array, top: int, offsets: Sequence[float]) -> Array:
    """The scale, of either sign, of quants -``top`` to ``top`` - 1, float32 [groups]: of the best of one candidate an
    offset, rounded as if the largest number became ``top`` + offset, then fitted by least squares weighted with the
    numbers' own squares."""
    high, low = x.max(axis=0), x.min(axis=0)
    largest = np.where(high >= -low, high, low)
    largest[np.abs(largest) < _ZERO] = 0
    u = x * np.divide(-1, largest, out=np.zeros_like(largest), where=largest != 0)
    squares = u * u
    xq, qq = np.empty((2, len(offsets), x.shape[1]), np.float32)
    t = np.empty_like(u)
    for i, offset in enumerate(offsets):
        _round(u, top + offset, -top, top - 1, t)
        t *= u
        _dot(t, squares, xq[i])
        _dot(t, t, qq[i])
    qq[qq == 0] = 1  # of zeros alone
    best = np.argmax(xq * xq / qq, axis=0)[None]
    xq, qq = (np.take_along_axis(each, best, axis=0)[0] for each in (xq, qq))
    scale: Array = -largest * xq / qq
    return scale


def _round(v: Array, factor: float, least: int | None, most: int, out: Array) -> None:
    """``v`` times ``factor`` as whole numbers of ``least`` to ``most``."""
    np.multiply(v, np.float32(factor), out=out)
    np.rint(out, out=out)
    if factor >= most + 0.5:
        np.minimum(out, most, out=out)
    if least is not None:
        np.maximum(out, least, out=out)


def _dot(a: Array, b: Array, out: Array | None = None) -> Array:
    """Sums of products over each group."""
    products: Array = np.einsum("ij,ij->j", a, b, out=out)
    return products
