"""Layout "rows16": 16 rows interleaved so that one SIMD load holds the same columns of neighbouring rows.

Rows are padded with zeros to a multiple of 16. A block of 16 rows is a run of records, one for each group of 32
columns; blocks follow one another. One record:

- 4 bits: 4 pieces of 64 bytes, each for 8 columns k0..k0+7. A piece is 16 little-endian 32-bit words, word r for
  row r: byte j's low nibble is column k0+j, its high nibble column k0+4+j.
- 8 bits: 8 pieces of 64 bytes, each for 4 columns: word r's byte j is column k0+j, int8.
- then 16 f16 scales, one a row; then, where the format has a minimum, 16 f16 minima.

Float formats have no groups: for each column, 16 values, one a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.format.limits import BLOCK_ROWS

from .formats import FORMATS
from .ggml import Groups

Array = npt.NDArray[Any]


def pack(groups: Groups) -> Array:
    """The matrix in layout rows16, uint8, `inpage.format.schema.tensor_bytes` long."""
    fmt = FORMATS[groups.format]
    rows, columns = groups.q.shape
    blocks = -(-rows // BLOCK_ROWS)
    if fmt.type == "float":
        q = _pad(groups.q, blocks).reshape(blocks, BLOCK_ROWS, columns)
        return np.ascontiguousarray(q.transpose(0, 2, 1)).reshape(-1).view(np.uint8)
    n = columns // fmt.group
    q = _pad(groups.q.view(np.uint8), blocks)
    if fmt.bits == 4:
        parts = q.reshape(blocks, BLOCK_ROWS, n, fmt.group // 8, 2, 4)
        words = parts[..., 0, :] | (parts[..., 1, :] << 4)
    elif fmt.bits == 8:
        words = q.reshape(blocks, BLOCK_ROWS, n, fmt.group // 4, 4)
    else:
        raise ValueError(f"layout rows16 is not defined for {fmt.bits} bits")
    fields = [words.transpose(0, 2, 3, 1, 4).reshape(blocks, n, -1)]
    for scale in (groups.d, groups.m):
        if scale is not None:
            by_group = _pad(scale, blocks).reshape(blocks, BLOCK_ROWS, n).transpose(0, 2, 1)
            fields.append(np.ascontiguousarray(by_group).view(np.uint8))
    return np.concatenate(fields, axis=2).reshape(-1)


def unpack(data: Array, format: str, rows: int, columns: int) -> Groups:
    """The inverse of `pack`: ``data`` is uint8. Raises ValueError where the size does not fit."""
    fmt = FORMATS[format]
    blocks = -(-rows // BLOCK_ROWS)
    if fmt.type == "float":
        values = data.view(np.uint32 if fmt.bits == 32 else np.uint16)
        matrix = values.reshape(blocks, columns, BLOCK_ROWS).transpose(0, 2, 1)
        return Groups(format, np.ascontiguousarray(matrix.reshape(-1, columns)[:rows]))
    n = columns // fmt.group
    records = data.reshape(blocks, n, -1)
    size = BLOCK_ROWS * fmt.group * fmt.bits // 8
    pieces = fmt.group * fmt.bits // 32
    words = records[:, :, :size].reshape(blocks, n, pieces, BLOCK_ROWS, 4).transpose(0, 3, 1, 2, 4)
    if fmt.bits == 4:
        words = np.stack([words & 15, words >> 4], axis=4)
    q = np.ascontiguousarray(words).reshape(-1, columns)[:rows]

    def scales(index: int) -> Array:
        at = size + 2 * BLOCK_ROWS * index
        bits = np.ascontiguousarray(records[:, :, at : at + 2 * BLOCK_ROWS]).view(np.uint16)
        return np.ascontiguousarray(bits.transpose(0, 2, 1).reshape(-1, n)[:rows])

    return Groups(format, q.view(np.int8) if fmt.type == "int" else q, scales(0), scales(1) if fmt.min else None)


def _pad(matrix: Array, blocks: int) -> Array:
    """``matrix`` with zero rows added to ``blocks`` * 16."""
    missing = blocks * BLOCK_ROWS - matrix.shape[0]
    return np.ascontiguousarray(np.pad(matrix, ((0, missing), (0, 0))) if missing else matrix)
