"""Cases for the sampler on the GPU: ``python sampler_cases.py OUT`` writes cases.json and logits.bin.

Each group is one dispatch: rows of logits, an inpage_sequence for each, and what numpy chooses and keeps.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.engines import batch as flat
from inpage.engines.protocol import Sampling, SequenceInput
from support.runtime import Floats
from support.sampler_reference import EDGES, choose, clean, kept, modified, rows_of_logits

SMALL, PARTS, LARGE = 2003, 70_001, 600_000  # one part of a row, many, and parts longer than usual
SLACK = 3e-6  # of the total weight: what float32 sums may be off by
MASK_WORD = 25


class Cases:
    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self.logits = bytearray()

    def add(self, name: str, x: Floats, samplings: list[Sampling], histories: list[list[int]],
            masks: list[npt.NDArray[np.bool_] | None]) -> None:  # fmt: skip
        """One group; the tokens to choose get positions 100, 101, …"""
        words, bias, table, rows = array("i"), array("i"), [], []
        for i, (row, s, history, mask) in enumerate(zip(x, samplings, histories, masks, strict=True)):
            struct = flat._pack(SequenceInput([0], 99 + i, [], s, history), 99 + i, 0, bias)
            if mask is not None:
                struct[MASK_WORD] = len(table)
                bits = np.zeros((row.size + 31) // 32 * 32, np.bool_)
                bits[: row.size] = mask
                table += np.packbits(bits, bitorder="little").view(np.uint32).tolist()
            words.extend(struct)
            changed = modified(row, s, history[-flat.HISTORY :], mask)
            rows.append(self.expected(row, changed, s, 100 + i))
        self.groups.append({"name": name, "vocab": x.shape[1], "at": len(self.logits), "sequences": words.tolist(),
                            "bias": bias.tolist(), "mask": table, "rows": rows})  # fmt: skip
        self.logits += x.tobytes()

    def expected(self, row: Floats, changed: Floats, s: Sampling, position: int) -> dict[str, Any]:
        best = clean(row)
        if not np.isfinite(changed).any():
            return {"tokens": [0, 0], "kept": None, "best": None}
        near = [replace(s, top_p=min(s.top_p * (1 + shift), 1.0)) for shift in (-SLACK, 0.0, SLACK)]
        told = [choose(changed, n, position, shift) for n in near for shift in (-SLACK, 0.0, SLACK)]
        above = best.astype(np.float64) - best.max()
        # What stays, in order, is a prefix: how many, and the last of them.
        stay = [kept(changed, n.top_k, n.top_p, n.min_p) for n in near] if s.temperature > 0 else None
        last = stay and min(stay, key=len)[-1]
        return {
            "tokens": [min(told), max(told)],
            "kept": stay and {"count": [len(ids) for ids in stay], "last": last},
            "best": float(best.max()),
            "log_sum": float(np.log(np.exp(above).sum())),
            "changed": None if last is None else changed.view(np.uint32)[last].item(),
        }


def main(out: Path) -> None:
    rng = np.random.default_rng(17)
    cases = Cases()
    slow = "INPAGE_SLOW" in os.environ
    count = 10 if slow else 5  # rows: each shape once
    for temperature in (0.0, 0.7, 100.0) if slow else (0.0, 0.7):
        for edge in EDGES if temperature else EDGES[:1]:
            x = rows_of_logits(SMALL, rng, count)
            seeds = [int(rng.integers(2**63)) * 2 + 1 for _ in x]
            samplings = [Sampling(temperature=temperature, seed=seed, **edge) for seed in seeds]
            cases.add(f"{edge} at {temperature}", x, samplings, [[]] * count, [None] * count)
    for vocab, edges in ((PARTS, EDGES[3::4]), (LARGE, [EDGES[0], EDGES[17]])):
        x = rows_of_logits(vocab, rng, len(edges))
        samplings = [Sampling(temperature=0.9, seed=i, **edge) for i, edge in enumerate(edges)]
        cases.add(f"vocabulary of {vocab}", x, samplings, [[]] * len(edges), [None] * len(edges))
    for temperature in (0.0, 0.8):
        cases.add(f"bias, mask and penalties at {temperature}", *adjusted(rng, temperature))
    cases.add("ties", *ties())
    cases.add("ties in many parts", *ties_in_parts(rng))
    cases.add("no numbers", *no_numbers(rng))
    out.mkdir(parents=True, exist_ok=True)
    (out / "cases.json").write_text(json.dumps(cases.groups))
    (out / "logits.bin").write_bytes(cases.logits)


Group = tuple[Floats, list[Sampling], list[list[int]], list["npt.NDArray[np.bool_] | None"]]


def adjusted(rng: np.random.Generator, temperature: float) -> Group:
    n = 20
    samplings, histories, masks = [], [], []
    for i in range(n):
        ids = rng.integers(0, SMALL, 30).tolist()
        bias = tuple(zip(ids, rng.normal(0, 5, 30).tolist(), strict=True)) if i % 3 else ()
        twice = ((7, 3.0), (7, 4.0)) if i % 4 == 0 else ()
        repetition, presence, frequency = rng.uniform([0.5, -1, -1], 2).tolist()
        samplings.append(Sampling(temperature, 30, 0.95, 0.01, repetition, presence, frequency, i, bias + twice))
        histories.append(rng.integers(0, 60, (0, 5, 300)[i % 3]).tolist())  # empty, short, longer than the ring
        allowed = rng.random(SMALL) < (0.5 if i % 2 else 0.002)
        allowed[3 + i] = True
        masks.append(None if i % 5 == 0 else allowed)
    return rows_of_logits(SMALL, rng, n), samplings, histories, masks


def ties() -> Group:
    x = np.zeros((6, SMALL), np.float32)
    x[1:3, ::2] = -0.0  # equal to 0
    x[3, [500, 1500]] = 3
    samplings = [Sampling(1.0, **e) for e in ({"top_k": 7}, {"top_k": 7}, {"top_p": 0.5}, {"top_k": 1}, {"top_k": 4},
                                              {"top_k": 500, "top_p": 0.5, "min_p": 1.0})]  # fmt: skip
    return x, samplings, [[]] * 6, [None] * 6


def ties_in_parts(rng: np.random.Generator) -> Group:
    """Cuts that fall among equal logits, in the first, a middle and the last part; most tokens masked."""
    x = np.zeros((8, PARTS), np.float32)
    x[2:4] = np.round(rng.normal(0, 1, (2, PARTS)))
    x[4] = -np.inf
    x[4, -30:] = 2
    x[5, :-5] = -1e30  # no weight: their place in a top-p is behind all that have some
    x[6:] = -0.0
    masks: list[npt.NDArray[np.bool_] | None] = [None] * 7 + [np.arange(PARTS) % 5000 == 7]
    edges: list[dict[str, Any]] = [
        {"top_k": PARTS - 1}, {"top_p": 0.5}, {"top_k": 9000, "top_p": 0.7}, {"top_p": 0.3}, {"top_k": 7},
        {"top_k": 40, "top_p": 0.5}, {"top_k": PARTS, "top_p": 0.99999}, {"top_k": 14, "top_p": 0.6},
    ]  # fmt: skip
    return x, [Sampling(1.1, seed=i, **e) for i, e in enumerate(edges)], [[]] * 8, masks


def no_numbers(rng: np.random.Generator) -> Group:
    x = np.zeros((7, SMALL), np.float32)
    x[0] = np.nan
    x[1] = -np.inf
    x[2, ::3] = np.nan
    x[2, 1000] = 5
    x[3, 77] = np.inf
    x[4, [5, 6]] = [np.inf, np.inf]
    x[5] = rng.normal(0, 1, SMALL)
    masks: list[npt.NDArray[np.bool_] | None] = [None] * 5 + [np.zeros(SMALL, np.bool_), None]
    return x, [*[Sampling(0.9, top_p=0.9)] * 6, Sampling(0.9, top_p=-0.0)], [[]] * 7, masks


if __name__ == "__main__":
    main(Path(sys.argv[1]))
