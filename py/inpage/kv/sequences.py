"""The KV cache of an engine that keeps it by sequence: nothing to hand out, share or swap, only sequences to name.

What a request loses its slot for is computed again from its tokens.
"""

from __future__ import annotations

from collections.abc import Callable

from ..engines.protocol import SequenceEngine
from ..requests.request import Request
from .blocks import Blocks
from .pages import PagePool
from .prefix import PrefixTree
from .swap import Swap


class SequenceKv:
    """The part of `KvManager` that such an engine needs, behind the same calls; its pool and its tree stay empty."""

    def __init__(self, engine: SequenceEngine, swap: Swap) -> None:
        self.engine, self.swap = engine, swap
        self.pool = PagePool(0)
        self.prefix = PrefixTree(self.pool, Blocks(1), 0)
        self.lent = 0
        self.on_return: Callable[[], None] = lambda: None
        self._held: set[Request] = set()

    def keep_bytes(self, prefix_bytes: int) -> None: ...

    @property
    def capacity(self) -> int:
        """Tokens that one request alone could have."""
        return self.engine.info.context

    async def obtain(self, count: int) -> list[int] | None:
        return [] if count == 0 else None

    async def admit(self, request: Request) -> bool:
        request.num_computed_tokens = 0
        self._held.add(request)
        return True

    def covers(self, request: Request, steps: int) -> bool:
        return True

    async def cover(self, request: Request, steps: int) -> bool:
        return True

    def skip(self, request: Request) -> None: ...

    def next_block(self, request: Request) -> tuple[int, tuple[int, ...]] | None:
        return None

    def keep(self, request: Request) -> None: ...

    async def suspend(self, request: Request) -> None:
        await self.swap.save(request, None)

    def release(self, request: Request) -> None:
        request.num_computed_tokens = 0
        if request in self._held:
            self._held.remove(request)
            self.engine.drop(request.name)
