"""GGML blocks → packed layout → float32 equals the `gguf` package's own dequantization, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType as Type

from inpage.errors import SourceInvalid
from inpage.format.schema import tensor_bytes
from inpage_compile.quantize import FORMATS, Groups, dequantize, format_of, pack, read_groups, unpack
from support.ggml_blocks import BEHIND

TYPES = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]
TYPES += ["IQ4_NL", "IQ4_XS", "MXFP4"]
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
    if kind == Type.BF16:
        return rng.choice(EDGE_SCALES, (rows, columns)).view(np.uint8)
    if kind in (Type.F32, Type.F16):
        dtype = np.float32 if kind == Type.F32 else np.float16
        return rng.standard_normal((rows, columns)).astype(dtype).view(np.uint8)
    if kind == Type.MXFP4:
        data[0, :, 0] = 0
        return data.reshape(rows, -1)
    if kind in BEHIND:
        at = BEHIND[kind]
        data[:, :, at:] = rng.choice(EDGE_SCALES, (rows, columns // block, (size - at) // 2)).view(np.uint8)
        return data.reshape(rows, -1)
    halves = 1 if kind in (Type.Q8_0, Type.Q4_0, Type.Q5_0, Type.IQ4_NL, Type.IQ4_XS) else 2
    data[:, :, : 2 * halves] = rng.choice(EDGE_SCALES, (rows, columns // block, halves)).view(np.uint8)
    data[0, 0, 2 * halves :] = 0xF0  # nibble extremes side by side
    data[0, -1] = 0  # a group of zeros
    return data.reshape(rows, -1)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 48])
@pytest.mark.parametrize("spans", [1, 3])
@pytest.mark.parametrize("ggml", TYPES)
def test_lossless(ggml: str, rows: int, spans: int) -> None:
    name = format_of(ggml, "t")
    columns = spans * max(32, FORMATS[name].span)
    raw = edge_blocks(Type[ggml], rows, columns)
    check_lossless(ggml, raw, rows, columns)


@pytest.mark.parametrize("ggml", TYPES)
def test_any_bytes_are_what_the_gguf_package_says(ggml: str) -> None:
    """Every bit is random: scales are infinite, denormal or not numbers as well."""
    rng = np.random.default_rng(11)
    block, size = gguf.GGML_QUANT_SIZES[Type[ggml]]
    columns = 512
    check_lossless(ggml, rng.integers(0, 256, (40, columns // block * size), np.uint8), 40, columns)


def check_lossless(ggml: str, raw: npt.NDArray[np.uint8], rows: int, columns: int) -> None:
    name = format_of(ggml, "t")
    with np.errstate(all="ignore"):
        witness = gguf.quants.dequantize(raw, Type[ggml]).reshape(rows, columns)
    packed = pack(read_groups(raw, name, rows, columns))
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


@pytest.mark.parametrize("ggml", [t for t in TYPES if not FORMATS[t.lower()].is_float])
def test_layout_is_the_documented_one(ggml: str) -> None:
    """Read the packed bytes element by element, as the layout's description says, and compare."""
    rows, name = 20, ggml.lower()
    fmt = FORMATS[name]
    span = fmt.span
    columns = 2 * span
    groups = read_groups(edge_blocks(Type[ggml], rows, columns), name, rows, columns)
    data = pack(groups).tobytes()
    record = len(data) // 4  # two blocks of two
    assert record * 8 == 128 * gguf.GGML_QUANT_SIZES[Type[ggml]][1]
    numbers = 0 if fmt.super is None else span // fmt.group * (2 if fmt.super.min else 1)
    header = 0 if fmt.super is None else (32 * (2 if fmt.super.min else 1) + numbers * 2 * fmt.super.scale_bits)
    quants = 16 * span * fmt.bits // 8
    for row in range(rows):
        for column in range(columns):
            at = ((row // 16) * 2 + column // span) * record
            r = row % 16
            group = column // fmt.group
            q = layout_quant(data, at + header + column % span // 32 * 64 * fmt.bits, fmt.bits, r, column % 32)
            assert q == int(groups.q[row, column]) & 0xFF
            scale_at = at + 2 * r + (quants if fmt.super is None else 0)
            for i, scales in enumerate((groups.d, groups.m)):
                if scales is None:
                    continue
                if fmt.scale == "e8m0":
                    assert data[at + quants + r] == scales[row, column // span]
                    continue
                half = data[scale_at + 32 * i : scale_at + 32 * i + 2]
                assert int.from_bytes(half, "little") == scales[row, column // span]
            if fmt.super is not None:
                assert groups.sub_d is not None
                subs = at + (64 if fmt.super.min else 32)
                own = group % (span // fmt.group)
                step = 1 if groups.sub_m is None else 2
                got = layout_sub_scale(data, subs, fmt.super.scale_bits, numbers, r, own * step)
                assert got == int(groups.sub_d[row, group]) & 0xFF
                if groups.sub_m is not None:
                    got = layout_sub_scale(data, subs, fmt.super.scale_bits, numbers, r, own * 2 + 1)
                    assert got == groups.sub_m[row, group]


def layout_quant(data: bytes, at: int, bits: int, row: int, k: int) -> int:
    """Column ``k`` of 32 whose planes begin at byte ``at``."""
    if bits == 8:
        return data[at + k // 4 * 64 + row * 4 + k % 4]
    if bits < 4:
        q = (data[at + k // 16 * 64 + row * 4 + k % 4] >> (2 * (k % 16 // 4))) & 3
        return q | ((data[at + 128 + row * 4 + k % 4] >> (k // 4) & 1) << 2) if bits == 3 else q
    q = (data[at + k // 8 * 64 + row * 4 + k % 4] >> (4 * (k % 8 // 4))) & 15
    if bits == 5:
        q |= (data[at + 256 + row * 4 + k % 4] >> (k // 4) & 1) << 4
    if bits == 6:
        q |= (data[at + 256 + k // 16 * 64 + row * 4 + k % 4] >> (2 * (k % 16 // 4)) & 3) << 4
    return q


def layout_sub_scale(data: bytes, at: int, bits: int, numbers: int, row: int, i: int) -> int:
    """Number ``i`` of a super-block's, which begin at byte ``at``."""
    if bits == 8:
        return data[at + i * 16 + row]
    low = (data[at + i // 2 * 16 + row] >> (4 * (i % 2))) & 15
    if bits == 4:
        return low
    pair = data[at + numbers * 8 + i // 2 * 8 + row % 8] >> (4 * (row // 8))
    return low | ((pair >> (2 * (i % 2)) & 3) << 4)


def test_tables_and_e8m0_scales_are_what_the_gguf_package_has() -> None:
    q = np.tile(np.arange(16, dtype=np.uint8), (1, 2))
    one = np.array([[0x3C00]], np.uint16)
    assert Groups("iq4_nl", q, one).to_float32()[0, :16].tolist() == list(gguf.quants.IQ4_NL.kvalues)
    for e in (0, 1, 2, 127, 128, 254, 255):
        block = np.concatenate([[e], q[0, :16] | (q[0, :16] << 4)]).astype(np.uint8)
        with np.errstate(over="ignore"):
            want = gguf.quants.dequantize(block.reshape(1, -1), Type.MXFP4)
        got = Groups("mxfp4", q, np.array([[e]], np.uint8)).to_float32()
        assert np.array_equal(got, want.reshape(1, -1))


@pytest.mark.parametrize("ggml", TYPES)
def test_padding_rows_are_zero_bytes(ggml: str) -> None:
    kind, name = Type[ggml], ggml.lower()
    padded = unpack(pack(read_groups(edge_blocks(kind, 17, 256), name, 17, 256)), name, 32, 256)
    for part in (padded.q, padded.d, padded.m, padded.sub_d, padded.sub_m):
        assert part is None or not part[17:].any()


@pytest.mark.parametrize("ggml", sorted({t.name for t in Type} - set(TYPES)))
def test_types_without_a_converter_are_named_and_what_to_take_instead(ggml: str) -> None:
    with pytest.raises(SourceInvalid, match=f"{ggml} is not supported") as e:
        format_of(ggml, "blk.0.attn_q")
    assert e.value.field == "blk.0.attn_q"
    plain = ggml in ("I8", "I16", "I32", "I64", "F64")  # no type of a matrix
    assert ("take the model's file in" in str(e.value)) is not plain


@pytest.mark.parametrize("name", [n for n in FORMATS if n.upper() in Type.__members__])
def test_every_format_has_the_size_that_gguf_gives_it(name: str) -> None:
    """The artifact's size formula gives what GGUF itself uses: nothing is padded or widened."""
    block, size = gguf.GGML_QUANT_SIZES[Type[name.upper()]]
    assert tensor_bytes(FORMATS[name], "rows16", (32, 2 * block)) == 32 * 2 * size
    assert {"mxfp4", "iq4_xs", "iq4_nl", "bf16", "q6_k"} <= set(FORMATS)


def test_columns_that_are_no_whole_super_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="288 columns are not a multiple of 256"):
        read_groups(np.zeros(144 * 9, np.uint8), "q4_k", 8, 288)


def test_the_bytes_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="a block of 176 bytes, expected 144"):
        read_groups(edge_blocks(Type.Q5_K, 2, 256), "q4_k", 2, 256)


def test_truncated_data_is_refused() -> None:
    with pytest.raises(ValueError, match="reshape"):
        read_groups(edge_blocks(Type.Q4_0, 16, 64)[:, :-1], "q4_0", 16, 64)
