"""Layout "rows16": 16 rows interleaved so that one SIMD load holds the same columns of neighbouring rows.

Rows are padded with zeros to a multiple of 16. A block of 16 rows is a run of records, one for each group of 32
columns, or for each super-block; blocks follow one another. Everything is little-endian, and every part of a record
is a multiple of 16 bytes.

Quants of 32 columns lie in planes, the lowest bits first: 4 bits in one of 4; 5 bits in one of 4 and one of 1; 6 bits
in one of 4 and one of 2; 7 in all three; 8 in one of 8 (int8 where the format is signed). A plane of width w is a run
of pieces of 64 bytes, each for 32/w columns k0, k0+1, …. A piece is 16 words of 32 bits, word r for row r: bits w·s to
w·s + w - 1 of byte j are column k0 + 4·s + j. So:

- width 4: 4 pieces, each for 8 columns: byte j's low nibble is column k0+j, its high nibble column k0+4+j.
- width 8: 8 pieces, each for 4 columns: byte j is column k0+j.
- width 2: 2 pieces, each for 16 columns: bits 0-1 of byte j are column k0+j, bits 2-3 column k0+4+j, and so on.
- width 1: 1 piece for all 32 columns: bit s of byte j is column 4·s + j.

A record without super-block: the planes of its 32 columns; 16 f16 scales, one a row (of e8m0: 16 bytes); then, where
the format has a minimum, 16 f16 minima.

A record with super-block (256 columns):

- 16 f16 scales d; then, where the format has minima, 16 f16 scales dmin of theirs;
- the sub-scales. With minima they are the row of numbers scale 0, minimum 0, scale 1, minimum 1, …; without, scale 0,
  scale 1, …. Of 8 bits: each number's 16 bytes, byte r for row r. Of 4 or 6 bits: by pairs of neighbours (a, b), each
  pair's 16 bytes, byte r for row r: a's lowest four bits in the low nibble, b's in the high one. Then, where there are
  6 bits, the two upper ones of every pair, 8 bytes a pair: the low nibble of byte i is row i's, the high one row 8+i's;
  in it a's two bits are the lower ones, b's the upper ones;
- the planes of columns 0-31, those of columns 32-63, and so on.

Float formats have no groups: for each column, 16 values, one a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.format.limits import BLOCK_ROWS
from inpage.format.schema import Format

from .formats import FORMATS
from .groups import Groups

Array = npt.NDArray[Any]
STEP = 32  # columns whose planes lie together


def pack(groups: Groups) -> Array:
    """The matrix in layout rows16, uint8, `inpage.format.schema.tensor_bytes` long."""
    fmt = FORMATS[groups.format]
    rows, columns = groups.q.shape
    blocks = -(-rows // BLOCK_ROWS)
    if fmt.is_float:
        q = _pad(groups.q, blocks).reshape(blocks, BLOCK_ROWS, columns)
        return np.ascontiguousarray(q.transpose(0, 2, 1)).reshape(-1).view(np.uint8)
    n = columns // fmt.span
    q = _pad(groups.q.view(np.uint8), blocks).reshape(blocks, BLOCK_ROWS, n, -1, min(STEP, fmt.span))
    shift, planes = 0, []
    for width in fmt.planes:
        planes.append(_plane(q >> shift, width))
        shift += width
    quants = np.concatenate(planes, axis=3).reshape(blocks, n, -1)
    scales = [
        np.ascontiguousarray(_pad(part, blocks).reshape(blocks, BLOCK_ROWS, n).transpose(0, 2, 1)).view(np.uint8)
        for part in (groups.d, groups.m)
        if part is not None
    ]
    if fmt.super is None:
        return np.concatenate([quants, *scales], axis=2).reshape(-1)
    subs = [_pad(part.view(np.uint8), blocks) for part in (groups.sub_d, groups.sub_m) if part is not None]
    row = np.stack(subs, axis=2).reshape(blocks, BLOCK_ROWS, n, -1).transpose(0, 2, 3, 1)
    return np.concatenate([*scales, *_sub_scales(row, fmt.super.scale_bits), quants], axis=2).reshape(-1)


def _plane(q: Array, width: int) -> Array:
    """[blocks, 16, records, steps, columns] → [blocks, records, steps, bytes], of each quant its lowest bits."""
    columns = 32 // width
    if q.shape[-1] % columns:
        raise ValueError(f"layout rows16 has no piece of {q.shape[-1]} columns by {width} bits")
    parts = (q & ((1 << width) - 1)).reshape(*q.shape[:4], -1, 8 // width, 4)
    words = parts[..., 0, :]
    for s in range(1, 8 // width):
        words = words | (parts[..., s, :] << (width * s))
    return words.transpose(0, 2, 3, 4, 1, 5).reshape(q.shape[0], q.shape[2], q.shape[3], -1)


def _sub_scales(row: Array, bits: int) -> list[Array]:
    """[blocks, records, numbers, 16] → the parts of a record that hold them."""
    blocks, n = row.shape[:2]
    if bits == 8:
        return [row.reshape(blocks, n, -1)]
    first, second = row[:, :, ::2], row[:, :, 1::2]
    parts = [((first & 15) | (second << 4)).reshape(blocks, n, -1)]
    if bits == 6:
        upper = (first >> 4) | (second >> 4 << 2)
        parts.append((upper[..., :8] | (upper[..., 8:] << 4)).reshape(blocks, n, -1))
    return parts


def unpack(data: Array, format: str, rows: int, columns: int) -> Groups:
    """The inverse of `pack`: ``data`` is uint8. Raises ValueError where the size does not fit."""
    fmt = FORMATS[format]
    blocks = -(-rows // BLOCK_ROWS)
    if fmt.is_float:
        values = data.view(np.uint32 if fmt.bits == 32 else np.uint16)
        matrix = values.reshape(blocks, columns, BLOCK_ROWS).transpose(0, 2, 1)
        return Groups(format, np.ascontiguousarray(matrix.reshape(-1, columns)[:rows]))
    take = _Taken(data.reshape(blocks, columns // fmt.span, -1), rows)
    if fmt.super is None:
        q = take.quants(fmt)
        scales = [take.scales(1 if fmt.scale == "e8m0" else 2), take.scales() if fmt.min else None]
        return Groups(format, q, *scales)
    d, m = take.scales(), take.scales() if fmt.super.min else None
    row = take.numbers(fmt.super.scale_bits, fmt.super.size // fmt.group * (1 if m is None else 2))
    q = take.quants(fmt)
    if m is not None:
        return Groups(format, q, d, m, row[:, ::2], row[:, 1::2])
    return Groups(format, q, d, sub_d=row.view(np.int8) if fmt.super.signed else row)


class _Taken:
    """Records [blocks, records, bytes], read part after part."""

    def __init__(self, records: Array, rows: int) -> None:
        self.records, self.rows, self.at = records, rows, 0

    def _bytes(self, size: int) -> Array:
        part = np.ascontiguousarray(self.records[:, :, self.at : self.at + size])
        if part.shape[2] != size:
            raise ValueError(f"a record of {self.records.shape[2]} bytes is too short")
        self.at += size
        return part

    def _by_row(self, parts: Array) -> Array:
        """[blocks, records, x, 16] → [rows, records · x]"""
        return np.ascontiguousarray(parts.transpose(0, 3, 1, 2)).reshape(-1, parts.shape[1] * parts.shape[2])[
            : self.rows
        ]

    def scales(self, size: int = 2) -> Array:
        part = self._bytes(size * BLOCK_ROWS)
        return self._by_row((part.view(np.uint16) if size == 2 else part)[:, :, None])

    def numbers(self, bits: int, count: int) -> Array:
        shape = (*self.records.shape[:2], -1)
        if bits == 8:
            return self._by_row(self._bytes(count * BLOCK_ROWS).reshape(*shape, BLOCK_ROWS))
        low = self._bytes(count // 2 * BLOCK_ROWS).reshape(*shape, BLOCK_ROWS)
        first, second = low & 15, low >> 4
        if bits == 6:
            high = self._bytes(count // 2 * 8).reshape(*shape, 8)
            upper = np.concatenate([high & 15, high >> 4], axis=3)
            first, second = first | ((upper & 3) << 4), second | (upper >> 2 << 4)
        return self._by_row(np.stack([first, second], axis=3).reshape(*shape, BLOCK_ROWS))

    def quants(self, fmt: Format) -> Array:
        step = min(STEP, fmt.span)
        steps = fmt.span // step
        shape = (*self.records.shape[:2], steps)
        size = step * fmt.bits * BLOCK_ROWS // 8
        all_planes = self._bytes(size * steps).reshape(*shape, size)
        q: Array | None = None
        at = shift = 0
        for width in fmt.planes:
            size = step * width * BLOCK_ROWS // 8
            words = all_planes[..., at : at + size].reshape(*shape, -1, BLOCK_ROWS, 4)
            parts = np.stack([(words >> (width * s)) & ((1 << width) - 1) for s in range(8 // width)], axis=5)
            plane = parts.transpose(0, 4, 1, 2, 3, 5, 6).reshape(-1, shape[1] * fmt.span)[: self.rows]
            q = plane if q is None else q | (plane << shift)
            at, shift = at + size, shift + width
        assert q is not None
        q = np.ascontiguousarray(q)
        return q.view(np.int8) if fmt.type == "int" else q


def _pad(matrix: Array, blocks: int) -> Array:
    """``matrix`` with zero rows added to ``blocks`` * 16."""
    missing = blocks * BLOCK_ROWS - matrix.shape[0]
    return np.ascontiguousarray(np.pad(matrix, ((0, missing), (0, 0))) if missing else matrix)
