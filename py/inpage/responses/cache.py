"""The tiers as one cache: look up from the fastest on, promote what is found, expire, invalidate, count."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from .answer import Answer
from .bundle import Bundle
from .memory import MemoryTier

_FIRST = 3600.0  # seconds that an answer is kept while the hit rate says nothing, if that is within the bounds
_WINDOW = 200  # lookups that the hit rate is taken over
_ENOUGH = 20  # before so many lookups the hit rate says nothing


class Tier(Protocol):
    """Where answers are kept. ``name`` is what statistics call it."""

    name: str

    async def get(self, key: str) -> Answer | None: ...
    async def put(self, key: str, answer: Answer) -> None: ...
    async def remove(self, keys: Iterable[str]) -> None: ...
    async def invalidate(self, tag: str | None) -> int: ...
    async def close(self) -> None: ...


class AnswerCache:
    """``tiers``: fastest first; memory alone if not given. ``bundle``: read-only, asked last, never expires.
    ``clock``: Unix time. ``ttl_bounds``: the fewest and the most seconds that an answer is kept.

    A tier that fails (a full disk, a browser that forbids storage) counts as one that has nothing: a cache must never
    be the reason that a question goes unanswered. ``failures`` says how often that was so."""

    def __init__(
        self,
        tiers: Iterable[Tier] | None = None,
        bundle: Bundle | None = None,
        clock: Callable[[], float] = time.time,
        ttl_bounds: tuple[float, float] = (600.0, 7200.0),
    ) -> None:
        self.tiers: list[Tier] = [MemoryTier()] if tiers is None else list(tiers)
        self.bundle = bundle
        self.hits: Counter[str] = Counter()  # by tier
        self.misses = 0
        self.expired = 0
        self.failures: Counter[str] = Counter()  # by tier
        self._clock = clock
        self._shortest, self._longest = ttl_bounds
        self._recent: deque[bool] = deque(maxlen=_WINDOW)

    @property
    def hit_rate(self) -> float:
        """Of the last lookups, 0 to 1."""
        return sum(self._recent) / len(self._recent) if self._recent else 0.0

    @property
    def ttl(self) -> float:
        """Seconds that an answer put now will live: the longer, the more they are asked for again."""
        if len(self._recent) < _ENOUGH:
            return min(max(_FIRST, self._shortest), self._longest)
        return self._shortest + (self._longest - self._shortest) * self.hit_rate

    async def get(self, key: str) -> tuple[Answer, str] | None:
        """An answer and the name of the tier that had it; faster tiers have it from now on."""
        now = self._clock()
        for i, tier in enumerate(self.tiers):
            answer = await self._try(tier, tier.get(key))
            if answer is None:
                continue
            if answer.expires is not None and answer.expires <= now:
                self.expired += 1
                await self._try(tier, tier.remove([key]))
                continue
            return await self._found(key, answer, tier.name, self.tiers[:i])
        if self.bundle is not None:
            answer = await self.bundle.get(key)
            if answer is not None:
                return await self._found(key, answer, self.bundle.name, self.tiers[:1])
        self.misses += 1
        self._recent.append(False)
        return None

    async def put(self, key: str, answer: Answer) -> None:
        """Keep an answer in every tier, for `ttl` seconds from now."""
        answer = replace(answer, expires=self._clock() + self.ttl)
        for tier in self.tiers:
            await self._try(tier, tier.put(key, answer))

    async def invalidate(self, tag: str | None = None) -> int:
        """Forget what depends on ``tag``, or everything; returns how many answers the fullest tier forgot. The bundle
        is the site's own word and stays."""
        counts = [await self._try(tier, tier.invalidate(tag)) for tier in self.tiers]
        return max((count for count in counts if count is not None), default=0)

    async def close(self) -> None:
        for tier in self.tiers:
            await self._try(tier, tier.close())

    def stats(self) -> Mapping[str, Any]:
        """Hits by tier, misses, the recent hit rate and the current `ttl` in seconds."""
        return {
            "hits": dict(self.hits),
            "misses": self.misses,
            "expired": self.expired,
            "failures": dict(self.failures),
            "hit_rate": self.hit_rate,
            "ttl": self.ttl,
        }

    async def _found(self, key: str, answer: Answer, name: str, faster: list[Tier]) -> tuple[Answer, str]:
        self.hits[name] += 1
        self._recent.append(True)
        for tier in faster:
            await self._try(tier, tier.put(key, answer))
        return answer, name

    async def _try(self, tier: Tier, work: Any) -> Any:
        try:
            return await work
        except Exception:
            self.failures[tier.name] += 1
            return None
