"""Requests straight to a scheduler: what they ask, and how they end."""

from __future__ import annotations

import random

from inpage.requests.request import Request


def prompt(seed: int, length: int) -> list[int]:
    """Ids of the strict double's vocabulary, the same for the same seed."""
    rng = random.Random(seed)
    return [rng.randrange(3, 900) for _ in range(length)]


async def finish(request: Request) -> str:
    """Read a request to its end; its tokens must be what its bursts brought."""
    tokens: list[int] = []
    while True:
        event = await request.events.get()
        if isinstance(event, BaseException):
            raise event
        tokens += event.tokens
        if event.finish:
            assert tokens == request.tokens
            return event.finish
