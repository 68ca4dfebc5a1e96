"""What the cells say together: ours against each peer, where answers differ, one line a cell for the table."""

from __future__ import annotations

import math
from operator import mul

from .results import Cell, Difference, Pair, Results

# What is compared with peers, most telling first.
_PAIRED = (
    "decode_tps", "prefill_tps", "ttft_ms", "e2e_ms", "aggregate_tps", "sentences_per_s", "requests_per_s", "ready_ms",
    "first_token_ms", "bytes_fetched", "process_bytes",
)  # fmt: skip


_SAID = {"decode_tps": "tokens/s", "ttft_ms": "ms", "aggregate_tps": "tokens/s", "sentences_per_s": "sentences/s"}


def pairs(results: Results) -> list[Pair]:
    """Every engine of ours against every peer, by scenario and metric."""
    found = []
    for ours, theirs in _matches(results, "peer"):
        for name in _PAIRED:
            if name not in ours.metrics or name not in theirs.metrics or _unlike(ours, theirs, name):
                continue
            a, b = ours.metrics[name].median, theirs.metrics[name].median
            if a > 0 and b > 0:
                ratio = a / b if ours.metrics[name].better == "higher" else b / a
                found.append(Pair(ours.scenario, ours.model, name, ours.engine, theirs.engine, a, b, round(ratio, 4)))
    return found


def _unlike(a: Cell, b: Cell, metric: str) -> bool:
    """One of the two was asked for less, so that these are times of different things."""
    fewer = a.params.get("requests") != b.params.get("requests")
    return (metric == "e2e_ms" and a.params != b.params) or (metric == "ttft_ms" and fewer)


def differences(results: Results) -> list[Difference]:
    """Ours with each peer, and our engines with each other, on the first prompt of a scenario."""
    found = []
    for a, b in [*_matches(results, "inpage"), *_matches(results, "peer")]:
        if not a.output_ids or not b.output_ids:
            continue
        both = list(zip(a.output_ids, b.output_ids, strict=False))  # as far as both went
        first = next((i for i, (x, y) in enumerate(both) if x != y), None)
        found.append(Difference(a.scenario, a.model, a.engine, b.engine, first, len(both)))
    return found


def note_cosines(results: Results) -> None:
    """Of the first text's vector with our first engine's: whether all computed the same."""
    for ours in reversed([cell for cell in results.cells if results.engines[cell.engine].kind == "inpage"]):
        for cell in results.cells:
            a, b = ours.series.get("vector"), cell.series.get("vector")
            if a and b and len(a) == len(b) and (cell.model, cell.scenario) == (ours.model, ours.scenario):
                cell.counts["cosine_with_ours"] = round(math.fsum(map(mul, a, b)) / math.hypot(*a) / math.hypot(*b), 5)


def _matches(results: Results, kind: str) -> list[tuple[Cell, Cell]]:
    """Cells of ours with cells of the other kind, or of ours further down the list, in the same scenario."""
    kinds = [engine.kind for engine in results.engines]
    return [
        (a, b)
        for a in results.cells
        for b in results.cells
        if kinds[a.engine] == "inpage"
        and kinds[b.engine] == kind
        and (a.model, a.scenario, a.shard) == (b.model, b.scenario, b.shard)
        and (kind == "peer" or a.engine < b.engine)
    ]


def headline(cell: Cell) -> str:
    """A cell in some twelve characters."""
    if cell.error is not None:
        return cell.error.partition(":")[0] if ":" in cell.error[:20] else "error"

    def middle(name: str) -> float | None:
        return cell.metrics[name].median if name in cell.metrics else None

    if (ready := middle("ready_ms")) is not None:
        return f"{ready / 1e3:.2f} s"
    if (first := middle("first_ttft_ms")) is not None:
        return f"{first:.0f}→{middle('ttft_ms') or 0:.0f} ms"
    if (speed := middle("decode_tps")) is not None:
        return f"{middle('ttft_ms') or 0:.0f} ms {speed:.4g}/s"
    if (speed := middle("aggregate_tps")) is not None:
        return f"{speed:.4g}/s"
    if (speed := middle("sentences_per_s")) is not None:
        return f"{speed:.4g} texts/s"
    if (held := middle("wasm_bytes") or middle("gpu_bytes")) is not None:
        return f"{held / 1e6:,.0f} MB"
    return "…" if cell.iterations == 0 else "no answer"


def against_peers(results: Results, most: int = 12) -> list[str]:
    """Lines such as "prompt-short: decode_tps 118 tokens/s, 5.9 times wllama Q4_0 (20)"."""
    lines = []
    for pair in results.pairs:
        first = next(i for i, engine in enumerate(results.engines) if engine.kind == "inpage" and engine.error is None)
        if pair.ours != first or pair.metric not in _SAID:
            continue
        unit = _SAID[pair.metric]
        lines.append(
            f"{pair.scenario}: {pair.metric} {pair.ours_value:.4g} {unit}, {pair.ratio:.2f} times "
            f"{results.engines[pair.theirs].name} ({pair.theirs_value:.4g})"
        )
    return lines[:most]
