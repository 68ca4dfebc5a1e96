"""Who goes into the next step: prompt tokens shared evenly, decode steps together."""

from __future__ import annotations

import time
from collections.abc import Iterable

from ..engines.protocol import EngineInfo, SequenceInput
from ..kv import Kv
from ..requests.request import Request
from .fair_queue import FairQueue

_BURST, _ROWS_A_BURST = 16, 256  # steps at least, and how many tokens a longer one may bring
_FILLING = 32  # rows that other clients may add to a step, or as many as its own
_BURST_BESIDE_PREFILL = 4  # while a prompt is being read, nobody waits long for their turn


def prefill_batch(
    requests: Iterable[Request], info: EngineInfo, kv: Kv, queue: FairQueue, most: int
) -> list[tuple[Request, SequenceInput]]:
    """One step of prompt tokens, at most ``most``. The client whose turn it is comes first, its rows shared evenly:
    a short prompt does not wait for a long. The others fill the step up without making it much longer."""
    reading = _readers(requests, kv, queue)
    rows, choices = most, info.max_logit_rows
    batch: list[tuple[Request, SequenceInput]] = []
    ours = sum(r.client == reading[0].client for r in reading) if reading else 0
    for place, request in enumerate(reading):
        if place == ours:
            rows = min(rows, max(most - rows, _FILLING))
            ours = len(reading)
        count = min(request.to_prefill, rows // (ours - place))
        if request.embeds:  # whole, or in another step
            count = request.to_prefill if request.to_prefill <= rows else 0
        if request.targets is not None:
            # Every scored position takes a row of logits, and only the last of a step says what is likeliest.
            count = min(count, choices if request.top is None else 1)
        if count == 0:
            continue
        feed = request.prefill_input(count)
        cost = count if request.targets is not None else int(feed.sample or feed.want_logits)
        if cost > choices:
            continue
        rows, choices = rows - count, choices - cost
        request.started = request.started or time.perf_counter()
        batch.append((request, feed))
    return batch


def _readers(requests: Iterable[Request], kv: Kv, queue: FairQueue) -> list[Request]:
    """Those with a prompt to read, by client, the shortest rest first. Of several that would compute the same block
    now, only the first: the others take it from there in the next step."""
    reading = [r for r in requests if r.to_prefill]
    for request in reading:
        kv.skip(request)

    def turn(r: Request) -> tuple[int, float, str, int, int]:
        rest = 0 if r.embeds else r.to_prefill  # a long text, which fits an empty step only, has its turn too
        return -r.priority, queue.served(r.client), r.client, rest, r.serial

    blocks: set[object] = set()
    first = []
    for request in sorted((r for r in reading if r.to_prefill), key=turn):
        block = kv.next_block(request)
        if block is None or block not in blocks:
            blocks.add(block)
            first.append(request)
    return first


MOST_STEPS = max(_BURST, _ROWS_A_BURST // 2)  # of a burst


def burst_steps(decoding: int, prefilling: bool) -> int:
    """How many steps the next burst of so many requests may take. Its tokens are told while it runs, and an arrival or
    a cancel ends it: a long one costs nobody time, only the pages that are reserved for it."""
    return _BURST_BESIDE_PREFILL if prefilling else max(_BURST, _ROWS_A_BURST // (decoding + 1))
