"""How fast an engine is here: some decode steps and one prefill step with the model's own kernels, on scratch pages.

It takes some tens of milliseconds. An engine whose steps take longer than a tenth of a second, such as WebGPU on a
software adapter, is known after three of them.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from ..engines import block_tables
from ..engines.protocol import Engine, EngineInfo, SequenceInput, is_sequential

_SLOW_S = 0.1  # a step this slow says enough
_STEPS = 8
_PREFILL_ROWS = 32
_NAME = "inpage:measure"  # of the sequence
_PROMPT, _ANSWER = 128, 128  # tokens of a typical request, by which variants are compared


@dataclass(frozen=True, slots=True)
class Measurement:
    """``decode_tps`` and ``prefill_tps``: tokens a second, alone, in a short context; ``at``: seconds since 1970."""

    decode_tps: float
    prefill_tps: float
    threads: int
    at: float

    @property
    def typical_s(self) -> float:
        """Seconds that a typical request takes."""
        return _PROMPT / self.prefill_tps + _ANSWER / self.decode_tps


def pages_needed(info: EngineInfo) -> int:
    """KV pages that `measure` writes to."""
    if not info.paged:
        return 0
    return block_tables.pages_needed(info, _rows(info) + _STEPS)


async def measure(engine: Engine, pages: Sequence[int]) -> Measurement:
    """``pages``: `pages_needed` of them, reserved, which nobody else uses meanwhile."""
    info = engine.info
    if info.embeds:
        return await _embedded(engine)
    token = min(17, info.vocab - 1)
    tables = block_tables.tables_on(info, _rows(info) + _STEPS, pages)
    prompt = SequenceInput([token] * _rows(info), 0, tables[0], tables=tables, request=_NAME)

    async def decode(steps: int) -> float:
        """Seconds a step."""
        feed = replace(prompt, tokens=[token], max_new_tokens=steps)
        began = time.perf_counter()
        (out,) = await engine.run([feed], steps)
        return (time.perf_counter() - began) / max(len(out.tokens), 1)

    try:
        return await _measured(engine, decode, prompt)
    finally:
        if is_sequential(engine):
            engine.drop(_NAME)


async def _embedded(engine: Engine) -> Measurement:
    """Of an encoder: tokens of a text a second, by both numbers."""
    info = engine.info
    text = SequenceInput([min(17, info.vocab - 1)] * _rows(info), 0, (), want_logits=True, request=_NAME)
    times = [await _step_s(engine, text) for _ in range(3)]
    rate = len(text.tokens) / min(times[1:])
    return Measurement(rate, rate, info.threads, time.time())


async def _measured(engine: Engine, decode: Callable[[int], Awaitable[float]], prompt: SequenceInput) -> Measurement:
    info = engine.info
    await decode(1)  # warms up
    step = await decode(1)
    if step >= _SLOW_S:
        step = min(step, await decode(1))  # something else may have had the device
        if step >= _SLOW_S:
            return Measurement(1 / step, 1 / step, info.threads, time.time())
    step = min(step, await decode(_STEPS))
    prefill = min([await _step_s(engine, prompt) for _ in range(2)])  # the first may be compiled on the way
    return Measurement(1 / step, len(prompt.tokens) / prefill, info.threads, time.time())


async def _step_s(engine: Engine, feed: SequenceInput) -> float:
    began = time.perf_counter()
    await engine.step([feed])
    return time.perf_counter() - began


def _rows(info: EngineInfo) -> int:
    return min(_PREFILL_ROWS, info.max_rows, info.context // 2)
