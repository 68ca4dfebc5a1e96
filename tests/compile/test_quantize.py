"""GGML blocks → packed layout → float32 equals the `gguf` package's own dequantization, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType as Type

from inpage.errors import SourceInvalid
from inpage.format.schema import tensor_bytes
from inpage_compile.quantize import FORMATS, dequantize, format_of, pack, read_groups, unpack

TYPES = ["F32", "F16", "Q8_0", "Q4_0", "Q4_1"]
# f16 bit patterns: zero, minus zero, the smallest and largest denormals, smallest normal, largest, negatives, one.
EDGE_SCALES = np.array(
    [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00, 0x2E66], np.uint16
)


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(values).view(np.uint32)


def edge_blocks(kind: Type, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Random quant bytes (every nibble and int8 occurs, -128 too) under edge-case scales."""
    rng = np.random.default_rng(7)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    data = rng.integers(0, 256, (rows, columns // block, size), np.uint8)
    if kind in (Type.F32, Type.F16):
        dtype = np.float32 if kind == Type.F32 else np.float16
        return rng.standard_normal((rows, columns)).astype(dtype).view(np.uint8)
    halves = 2 if kind == Type.Q4_1 else 1
    data[:, :, : 2 * halves] = rng.choice(EDGE_SCALES, (rows, columns // block, halves)).view(np.uint8)
    data[0, 0, 2 * halves :] = 0xF0  # nibble extremes side by side
    data[0, -1] = 0  # a group of zeros
    return data.reshape(rows, -1)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 48])
@pytest.mark.parametrize("columns", [32, 96])
@pytest.mark.parametrize("ggml", TYPES)
def test_lossless(ggml: str, rows: int, columns: int) -> None:
    kind = Type[ggml]
    raw = edge_blocks(kind, rows, columns)
    with np.errstate(all="ignore"):
        witness = gguf.quants.dequantize(raw, kind).reshape(rows, columns)
    name = format_of(ggml, "t")
    groups = read_groups(raw, name, rows, columns)
    packed = pack(groups)
    back = unpack(packed, name, rows, columns)
    assert np.array_equal(bits(dequantize(raw, name, rows, columns)), bits(witness))
    assert np.array_equal(bits(back.to_float32()), bits(witness))
    assert packed.dtype == np.uint8
    assert packed.size == tensor_bytes(FORMATS[name], "rows16", (rows, columns))


def test_not_a_number_survives_packing() -> None:
    raw = edge_blocks(Type.Q8_0, 16, 32)
    raw[3, 0:2] = [0x01, 0x7E]  # a quiet NaN with a payload
    raw[4, 0:2] = [0x00, 0x7C]  # infinity
    back = unpack(pack(read_groups(raw, "q8_0", 16, 32)), "q8_0", 16, 32)
    assert back.d is not None
    assert back.d[3, 0] == 0x7E01
    assert back.d[4, 0] == 0x7C00


@pytest.mark.parametrize("ggml", ["Q4_0", "Q4_1", "Q8_0"])
def test_layout_is_the_documented_one(ggml: str) -> None:
    """Read the packed bytes element by element, as the layout's description says, and compare."""
    rows, columns, name = 20, 64, ggml.lower()
    groups = read_groups(edge_blocks(Type[ggml], rows, columns), name, rows, columns)
    data = pack(groups).tobytes()
    fmt = FORMATS[name]
    quants = 256 if fmt.bits == 4 else 512
    record = quants + 32 + (32 if fmt.min else 0)
    assert len(data) == 2 * (columns // 32) * record
    for row in range(rows):
        for column in range(columns):
            at = ((row // 16) * (columns // 32) + column // 32) * record
            k = column % 32
            if fmt.bits == 4:
                byte = data[at + k // 8 * 64 + row % 16 * 4 + k % 4]
                q = byte >> 4 if k % 8 >= 4 else byte & 15
            else:
                q = data[at + k // 4 * 64 + row % 16 * 4 + k % 4]
            assert q == int(groups.q[row, column]) & 0xFF
            scale_at = at + quants + 2 * (row % 16)
            assert groups.d is not None
            assert int.from_bytes(data[scale_at : scale_at + 2], "little") == groups.d[row, column // 32]
            if groups.m is not None:
                assert int.from_bytes(data[scale_at + 32 : scale_at + 34], "little") == groups.m[row, column // 32]


@pytest.mark.parametrize("ggml", TYPES)
def test_padding_rows_are_zero_bytes(ggml: str) -> None:
    kind, name = Type[ggml], ggml.lower()
    padded = unpack(pack(read_groups(edge_blocks(kind, 17, 32), name, 17, 32)), name, 32, 32)
    assert not padded.q[17:].any()
    assert padded.d is None or not padded.d[17:].any()


@pytest.mark.parametrize("ggml", ["Q6_K", "Q4_K", "IQ2_XXS", "BF16", "I32"])
def test_types_without_a_converter_are_named(ggml: str) -> None:
    with pytest.raises(SourceInvalid, match=ggml) as e:
        format_of(ggml, "blk.0.attn_q")
    assert e.value.field == "blk.0.attn_q"


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"])
def test_k_quants_fit_the_schema_at_their_own_size(name: str) -> None:
    """The artifact's size formula gives what GGUF itself uses: nothing is padded or widened."""
    block, size = gguf.GGML_QUANT_SIZES[Type[name.upper()]]
    assert tensor_bytes(FORMATS[name], "rows16", (32, 2 * block)) == 32 * 2 * size


def test_truncated_data_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        read_groups(edge_blocks(Type.Q4_0, 16, 64)[:, :-1], "q4_0", 16, 64)
