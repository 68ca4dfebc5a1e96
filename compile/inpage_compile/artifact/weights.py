"""From a source's tensors to the artifact's weight space: what is fused, in which order, at which offset.

Order is the order of use in a forward pass, so that a reader who streams can start early: token embedding, rope
frequencies, each layer's tensors, the last norm, the head. Where an artifact carries several levels, a level's weight
space is a row of sections, each with shards of its own: what it shares with others, then what is its own.

Members of a fused tensor that differ in format stay apart under their own names, as do gate and up projections whose
rows are not a multiple of 16. The matrix after attention has zeros behind its last columns, up to whole groups, as
attention's result has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.format.limits import ALIGN, BLOCK_ROWS
from inpage.format.schema import Manifest, Tensor, tensor_bytes

from ..families import FAMILIES, EncoderFamily
from ..families.family import DENSE
from ..families.rope import TABLE
from ..kernels.shared.packed import GROUP
from ..quantize import FORMATS, Groups, joined, pack, unpack
from ..quantize.tensor import Mapped
from ..sources import Source, SourceTensor, dequantize
from . import encoder_weights
from .encoder_weights import of_heads, reordered
from .writer import ArtifactWriter

Make = Callable[[], npt.NDArray[Any]]

_AT_ONCE = 1 << 24  # numbers of a matrix that are converted at a time, if whole blocks of rows are no more


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """``entry``: where and how it lies in the weight space; ``make``: its bytes, uint8 [entry.bytes]."""

    entry: Tensor
    make: Make


def plan(source: Source) -> list[PlannedTensor]:
    """Every tensor of the artifact with its offset, nothing converted yet."""
    return _lay_out(_order(source))


def size(source: Source) -> int:
    """Bytes of its weights."""
    last = plan(source)[-1].entry
    return last.offset + last.bytes


def plan_and_write(source: Source, writer: ArtifactWriter) -> list[Tensor]:
    """Convert every tensor and stream it into the artifact's shards; returns the manifest's entries.

    Raises `StorageFull` before anything is written where the disk has no room."""
    return plan_and_write_levels({"": source}, writer)[""]


def plan_and_write_levels(sources: Mapping[str, Source], writer: ArtifactWriter) -> dict[str, list[Tensor]]:
    """As `plan_and_write`, of one model at several levels, the best first: tensors that levels have in common are
    written once. The entries of each, at their offsets in its own weight space."""
    held: dict[tuple[str, str], list[str]] = {}  # tensors, by the levels that have them
    made: dict[tuple[str, str], _Planned] = {}
    for level, source in sources.items():
        for planned in _order(source):
            key = planned[0], planned[2]
            held.setdefault(key, []).append(level)
            made[key] = planned
    sections: dict[tuple[str, ...], list[_Planned]] = {}
    for key, having in held.items():
        sections.setdefault(tuple(having), []).append(made[key])
    laid = {levels: _lay_out(tensors) for levels, tensors in sorted(sections.items(), key=lambda s: -len(s[0]))}
    total = sum(planned[-1].entry.offset + planned[-1].entry.bytes for planned in laid.values())
    writer.check_room(total)
    mapped = Mapped(t for source in sources.values() for t in source.tensors.values())
    done = 0
    for levels, section in laid.items():
        writer.begin_section(levels)
        for p in section:
            writer.add_tensor(p.entry, p.make())
            mapped.forget()
            writer.report("weights", done + p.entry.offset + p.entry.bytes, total)
        done += section[-1].entry.offset + section[-1].entry.bytes
    return writer.tensors


def _lay_out(tensors: Iterable[_Planned]) -> list[PlannedTensor]:
    out: list[PlannedTensor] = []
    end = 0
    for name, shape, fmt, layout, make in tensors:
        size = tensor_bytes(FORMATS[fmt], layout, shape)
        offset = -(-end // ALIGN) * ALIGN
        out.append(PlannedTensor(Tensor(name, shape, fmt, layout, offset, size), make))
        end = offset + size
    return out


def rope_frequencies(source: Source) -> npt.NDArray[np.float32]:
    """Radians a position, float32 [head_dim / 2]."""
    return source.rope.tables(source.architecture)[TABLE]


def load_tensor(folder: Path, manifest: Manifest, name: str) -> npt.NDArray[np.float32]:
    """One tensor of a written artifact, dequantized exactly: float32 in the manifest's shape."""
    t = manifest.tensor(name)
    data = np.empty(t.bytes, np.uint8)
    for shard in manifest.weights.shards:
        low, high = max(t.offset, shard.offset), min(t.offset + t.bytes, shard.offset + shard.bytes)
        if low < high:
            stored = np.memmap(folder / shard.file, mode="r")
            data[low - t.offset : high - t.offset] = stored[low - shard.offset : high - shard.offset]
    if t.layout == "raw":
        return data.view(np.float32)
    return unpack(data, t.format, t.shape[0], t.shape[1]).to_float32()


_Planned = tuple[str, tuple[int, ...], str, str, Make]


def _order(source: Source) -> Iterable[_Planned]:
    tensors, a = source.tensors, source.architecture
    family = FAMILIES[a.family]
    if isinstance(family, EncoderFamily):
        yield from encoder_weights.order(source, family, _matrix)
        return
    order = family.head_order(a.head_dim, source.rope.turning)
    yield _matrix("token_embd", [tensors["token_embd"]])
    for name, frequencies in source.rope.tables(a).items():
        yield (name, frequencies.shape, "f32", "raw", partial(frequencies.view, np.uint8))
    for i in range(a.layers):
        blk = f"blk.{i}."

        def some(*names: str, blk: str = blk) -> list[SourceTensor]:
            return [tensors[blk + n] for n in names]

        yield _norm(tensors[blk + "attn_norm"])
        if i in a.conv_layers:
            yield _matrix(blk + "conv_in", some("shortconv.in_proj"))
            yield _taps(blk + "conv_taps", tensors[blk + "shortconv.conv"], a.conv_taps)
            yield _matrix(blk + "conv_out", some("shortconv.out_proj"))
        else:
            q, k, v = some("attn_q", "attn_k", "attn_v")
            qkv = [reordered(q, order), reordered(k, order), v]
            yield from [_matrix(blk + "attn_qkv", qkv)] if _alike(qkv) else map(_own, qkv)
            if a.qkv_bias:
                q, k, v = some("attn_q.bias", "attn_k.bias", "attn_v.bias")
                yield _vector(blk + "attn_qkv_bias", [(q, order), (k, order), (v, None)])
            if a.qk_norm:
                yield _vector(blk + "attn_qk_norm", [(t, order) for t in some("attn_q_norm", "attn_k_norm")])
            yield _matrix(blk + "attn_out", some("attn_output"), fill=True)
        if a.post_norms:
            yield _norm(tensors[blk + "post_attention_norm"], blk + "attn_post_norm")
        yield _norm(tensors[blk + "ffn_norm"])
        pair = some("ffn_gate", "ffn_up")
        fused = _alike(pair) and a.ffn % BLOCK_ROWS == 0
        yield from [_matrix(blk + "ffn_gate_up", pair, interleave=True)] if fused else map(_own, pair)
        yield _own(tensors[blk + "ffn_down"])
        if a.post_norms:
            yield _norm(tensors[blk + "post_ffw_norm"], blk + "ffn_post_norm")
    yield _norm(tensors["output_norm"])
    if a.projected:
        yield _own(tensors[DENSE])
    if not a.tied:
        yield _own(tensors["output"])


def _alike(parts: Sequence[SourceTensor]) -> bool:
    return len({p.format for p in parts}) == 1


def _norm(t: SourceTensor, name: str = "") -> _Planned:
    return (name or t.name, t.shape, "f32", "raw", lambda: dequantize(t).view(np.uint8))


def _vector(name: str, parts: Sequence[tuple[SourceTensor, npt.NDArray[np.intp] | None]]) -> _Planned:
    """One-dimensional tensors behind one another, the elements of each head in another order."""

    def make() -> npt.NDArray[Any]:
        values = [dequantize(t) if order is None else dequantize(t)[of_heads(order, t.shape[0])] for t, order in parts]
        return np.concatenate(values).view(np.uint8)

    return (name, (sum(t.shape[0] for t, _ in parts),), "f32", "raw", make)


def _taps(name: str, t: SourceTensor, taps: int) -> _Planned:
    """A convolution's taps, which files hold channel by channel, tap by tap."""

    def make() -> npt.NDArray[Any]:
        return np.ascontiguousarray(dequantize(t).reshape(-1, taps).T).reshape(-1).view(np.uint8)

    return (name, t.shape, "f32", "raw", make)


def _own(t: SourceTensor) -> _Planned:
    return _matrix(t.name, [t])


def _matrix(name: str, parts: Sequence[SourceTensor], interleave: bool = False, fill: bool = False) -> _Planned:
    """Row-wise concatenation of ``parts``, or their rows interleaved by 16. ``fill``: with columns of zeros up to whole
    groups; only floats can lack any."""
    columns = parts[0].shape[1]
    missing = -columns % GROUP if fill and FORMATS[parts[0].format].is_float else 0
    shape = (sum(p.shape[0] for p in parts), columns + missing)

    def filled(groups: Groups) -> Groups:
        return replace(groups, q=np.pad(groups.q, ((0, 0), (0, missing)))) if missing else groups

    def make() -> npt.NDArray[Any]:
        # Blocks that several parts share, or repeats within a block.
        if any(p.stored_rows % BLOCK_ROWS or p.order is not None for p in parts):
            return pack(_join([filled(p.groups()) for p in parts], interleave))
        if interleave:
            return _repeat(_packed(parts, lambda some: _join(some, True)), parts[0].repeats)
        packed = [_repeat(_packed([p], lambda some: filled(some[0])), p.repeats) for p in parts]
        return packed[0] if len(packed) == 1 else np.concatenate(packed)

    return (name, shape, parts[0].format, "rows16", make)


def _packed(parts: Sequence[SourceTensor], join: Callable[[list[Groups]], Groups]) -> npt.NDArray[Any]:
    """The stored rows of ``parts`` joined and packed, some at a time: a large matrix is never whole in floats."""
    rows, columns = parts[0].stored_rows, parts[0].shape[1]
    step = max(_AT_ONCE // columns // BLOCK_ROWS, 1) * BLOCK_ROWS
    out, at = np.empty(0, np.uint8), 0
    for first in range(0, rows, step):
        packed = pack(join([p.rows(slice(first, min(first + step, rows))).stored() for p in parts]))
        if first == 0:
            if rows <= step:
                return packed
            out = np.empty(packed.nbytes // step * -(-rows // BLOCK_ROWS) * BLOCK_ROWS, np.uint8)
        out[at : at + packed.nbytes] = packed
        at += packed.nbytes
    return out


def _repeat(packed: npt.NDArray[Any], repeats: int) -> npt.NDArray[Any]:
    return np.tile(packed, repeats) if repeats > 1 else packed


def _join(parts: Sequence[Groups], interleave: bool) -> Groups:
    if len(parts) == 1:
        return parts[0]

    def rows(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        if not interleave:
            return np.concatenate(arrays)
        width = arrays[0].shape[1]
        return np.stack([x.reshape(-1, BLOCK_ROWS, width) for x in arrays], axis=1).reshape(-1, width)

    return joined(parts, rows)
