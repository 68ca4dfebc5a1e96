"""Twenty conversations of 400 tokens with KV pages for less than three of them: ``python -m support.conversations
ARTIFACT FOLDER PAGE_BYTES PROMPTS`` prints each piece as JSON, ``[conversation, ids, pages loaded from the file]``, and
goes on until it is killed or all are told."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from inpage.router import Router

COUNT, LENGTH, PROMPT, PAGES = 20, 400, 24, 64


def asked() -> list[list[int]]:
    """Prompts that all differ."""
    return [[3 + (number * 37 + i * 11) % 250 for i in range(PROMPT)] for number in range(COUNT)]


async def continue_all(
    router: Router, prompts: Sequence[Sequence[int]], tokens: Sequence[list[int]], on_tokens: Callable[[int], None]
) -> None:
    """Continue all of them at once. ``tokens``: of each so far, extended in place; ``on_tokens``: called with the
    one that continues."""

    async def one(i: int) -> None:
        params: dict[str, Any] = {"temperature": 0.8, "seed": i, "max_tokens": LENGTH - PROMPT}
        eos = {str(token): -100 for token in router.manifest.tokenizer.eos}
        async for delta in router.complete(prompts[i], resume=list(tokens[i]), logit_bias=eos, **params):
            tokens[i].extend(delta.token_ids)
            on_tokens(i)

    await asyncio.gather(*(one(i) for i in range(COUNT)))


def settings(page_bytes: int, folder: Path | None) -> dict[str, Any]:
    """``folder``: None for memory without a bound. A quarter of what is swapped has room in memory."""
    kv: dict[str, Any] = {}
    if folder is not None:
        kv = {
            "memory_bytes": PAGES * page_bytes,
            "prefix_bytes": 0,
            "swap_bytes": 8 * page_bytes,
            "swap_path": str(folder),
        }
    return {"kv": kv, "scheduler": {"timeout": None}}


def copies_are_free(router: Router) -> None:
    """Whatever the disk: a tiny model computes its tokens as fast as some disks read."""
    swap = router.scheduler.kv.swap
    swap.clock = lambda: 0.0
    swap.prefill.add(1, 1.0)


async def main(artifact: str, folder: str, page_bytes: str, prompts: str) -> None:
    tokens: list[list[int]] = [[] for _ in range(COUNT)]
    sent = [0] * COUNT

    def on_tokens(i: int) -> None:
        loaded = router.scheduler.metrics.swapped.value(tier="file", way="loaded")
        print(json.dumps([i, tokens[i][sent[i] :], loaded]), flush=True)
        sent[i] = len(tokens[i])

    async with await Router.load(artifact, settings=settings(int(page_bytes), Path(folder))) as router:
        copies_are_free(router)
        await continue_all(router, json.loads(prompts), tokens, on_tokens)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
