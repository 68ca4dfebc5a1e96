"""Which layers change what passes through them least, and a model without them.

A block's influence is 1 minus the mean cosine between the hidden state that it gets and the one that it leaves, over
the positions of a text. Source: ShortGPT (Men et al., 2024, arXiv:2403.03853). The hidden states are the native
engine's own, of the model as it would be compiled: a step is run launch by launch, and between layers its arena is
looked at.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inpage.engines import batch as flat
from inpage.engines.block_tables import pages_needed, tables_on
from inpage.engines.native import NativeEngine
from inpage.engines.native_library import check
from inpage.engines.protocol import SequenceInput
from inpage.errors import InvalidRequest, Unsupported
from inpage.format.plan_types import Function
from inpage.format.schema import Architecture
from inpage.router.router import SCORE_WINDOW

from ..artifact.checks import load_manifest
from ..quantize import FORMATS
from ..sources import Source, SourceTensor

FIELD = "drop_layers"
_WINDOWS = 8  # of a text that are looked at, at most
_States = list[npt.NDArray[np.float32]]


def check_count(architecture: Architecture, count: int) -> None:
    """Raises `InvalidRequest` for a number of layers that cannot be left out, `Unsupported` for a model without KV."""
    if architecture.encoder:
        raise Unsupported("layers of a model that answers with vectors are not left out", field=FIELD)
    if not 1 <= count < architecture.layers:
        raise InvalidRequest(
            f"{count} layers to leave out; must be 1 to {architecture.layers - 1} of the model's {architecture.layers}",
            field=FIELD,
        )


def least(influences: Sequence[float], count: int) -> list[int]:
    """The ``count`` layers of the least influence, ascending."""
    return sorted(sorted(range(len(influences)), key=lambda layer: influences[layer])[:count])


def lightest(source: Source, count: int) -> list[int]:
    """The ``count`` layers of the fewest bytes, ascending; one with attention always stays."""
    a = source.architecture
    sizes = [0.0] * a.layers
    for name, tensor in source.tensors.items():
        if (parts := _block(name)) is not None:
            sizes[parts[0]] += math.prod(tensor.shape) * FORMATS[tensor.format].bits
    order = sorted(range(a.layers), key=lambda layer: sizes[layer])
    order.remove(next(layer for layer in reversed(order) if layer not in a.conv_layers))
    return sorted(order[:count])


def _block(tensor: str) -> tuple[int, str] | None:
    """A tensor's layer and its name there; None for one of no layer."""
    block, _, rest = tensor.removeprefix("blk.").partition(".")
    return (int(block), rest) if tensor.startswith("blk.") else None


async def influences(folder: Path, ids: Sequence[int]) -> list[float]:
    """Of each layer of an artifact with a native variant, on a text. Kernels are this process's own: they are
    trusted."""
    manifest = load_manifest(folder)
    variant = next(v.name for v in manifest.variants if v.backend == "native")
    engine = await _Launches.load(folder, manifest, variant=variant, trust=True)
    assert isinstance(engine, _Launches)
    size = min(SCORE_WINDOW, engine.info.context)
    while size > 1 and pages_needed(engine.info, size) > engine.info.max_pages:
        size //= 2
    layers, hidden = manifest.architecture.layers, manifest.architecture.hidden
    cosines, positions = np.zeros(layers), 0
    try:
        await engine.reserve_pages(pages_needed(engine.info, size))
        for first in range(0, min(len(ids), size * _WINDOWS), size):
            states = await engine.states(ids[first : first + size], layers, hidden)
            cosines += [_cosines(a, b).sum() for a, b in pairwise(states)]
            positions += len(states[0])
    finally:
        await engine.unload()
    return [float(1 - cosine) for cosine in cosines / positions]


def _cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.einsum("ij,ij->i", a, b) / np.maximum(norms, np.finfo(np.float64).tiny))


class _Launches(NativeEngine):
    """Runs steps launch by launch."""

    async def states(self, ids: Sequence[int], layers: int, hidden: int) -> _States:
        """The hidden state before each layer and behind the last, float32 [ids, hidden] each."""
        info, parts = self.info, list[_States]()
        tables = tables_on(info, len(ids), range(pages_needed(info, len(ids))))
        for start in range(0, len(ids), info.max_rows):
            some = ids[start : start + info.max_rows]
            feed = SequenceInput(some, start, tables[0], tables=tables, want_logits=True)
            batch = flat.step_batch([feed], self._limits())
            parts.append(await self._call(partial(self._states, batch=batch, layers=layers, hidden=hidden)))
        return [np.concatenate(states) for states in zip(*parts, strict=True)]

    def _states(self, lib: ctypes.CDLL, batch: flat.StepBatch, layers: int, hidden: int) -> _States:
        self._place(batch)
        rows = len(batch.token_ids)
        function = next(f for f in self._plan.functions if rows <= f.max_rows)
        marks = [self._first(function, f"blk.{layer}.attn_norm") for layer in range(layers)]
        marks.append(self._first(function, "output_norm"))
        states, done = [], 0
        for launch, buffer in marks:
            for i in range(done, launch):
                check(lib.inpage_step_launch(rows, 1, len(batch.logit_rows), i))
            at, done = self._offsets[buffer], launch
            part = np.frombuffer(self._work, np.float32, rows * hidden, at)
            states.append(part.reshape(rows, hidden).copy())
        return states

    def _first(self, function: Function, tensor: str) -> tuple[int, int]:
        """The first launch that reads this norm's weights, and the buffer that it takes its hidden state from."""
        buffers = self._plan.buffers
        for i, launch in enumerate(function.launches):
            if any(buffers[b].tensor == tensor for b in launch.buffers):
                return i, next(b for b in launch.buffers if buffers[b].kind == "arena")
        raise Unsupported(f"no step of this model reads {tensor}: its layers cannot be told apart", field=FIELD)


def drop_layers(source: Source, dropped: Sequence[int]) -> Source:
    """Without these layers; those that stay keep what they are (whether they have a window, rotary positions)."""
    a = source.architecture
    kept = [layer for layer in range(a.layers) if layer not in dropped]
    new = {layer: i for i, layer in enumerate(kept)}

    def renumbered(layers: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(new[layer] for layer in layers if layer in new)

    whole, convolutions = renumbered(a.whole_layers), renumbered(a.conv_layers)
    if len(convolutions) == len(kept):
        raise Unsupported("every layer with attention would be left out", field=FIELD)
    architecture = replace(
        a,
        layers=len(kept),
        whole_layers=whole,
        plain_layers=renumbered(a.plain_layers),
        conv_layers=convolutions,
        conv_taps=a.conv_taps if convolutions else 0,
    )
    if a.window and len(whole) == len(kept):
        architecture = replace(architecture, window=0, whole_layers=(), local_rope=False)
    tensors: dict[str, SourceTensor] = {}
    for name, tensor in source.tensors.items():
        if (parts := _block(name)) is None:
            tensors[name] = tensor
        elif parts[0] in new:
            renamed = f"blk.{new[parts[0]]}.{parts[1]}"
            tensors[renamed] = replace(tensor, name=renamed)
    return replace(source, architecture=architecture, tensors=tensors)
