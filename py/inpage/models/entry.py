"""One model of the registry, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..engines.protocol import Progress
from ..router import Router
from .levels import Grant
from .source import Source


@dataclass(frozen=True, slots=True)
class ModelState:
    """``bytes``: what it holds now; ``granted``: what it may hold, with a memory budget. ``idle``: seconds since its
    last request ended, where it has none. ``level``: the precision of several; ``lesser``: why it is not the best."""

    name: str
    state: str  # "loading", "loaded", "unloading"
    pinned: bool
    requests: int
    bytes: int
    granted: int | None
    variant: str
    context: int
    idle: float
    level: str = ""
    lesser: str = ""

    def __str__(self) -> str:
        size = self.bytes if self.granted is None else self.granted
        doing = f"{self.requests} requests" if self.requests else "pinned" if self.pinned else self.state
        return f"{self.name} ({size / 1e6:.0f} MB, {doing})"


@dataclass(slots=True, eq=False)
class Entry:
    """``uses``: callers that want it, ``serving``: those of them that have its router, ``waiters``: on its load.
    ``placed``: it counts, from before its load until it is gone."""

    name: str
    source: Source
    pinned: bool
    router: Router | None = None
    grant: Grant | None = None
    placed: bool = False
    uses: int = 0
    serving: int = 0
    waiters: int = 0
    used: float = 0.0  # when it was last wanted
    loading: asyncio.Task[object] | None = None
    leaving: asyncio.Task[None] | None = None
    failure: str = ""  # of its last load
    lesser: str = ""  # why not its best precision is loaded
    listeners: list[Progress] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Set aside for it."""
        return self.grant.total if self.grant is not None else 0

    @property
    def bounded(self) -> bool:
        """Whether it holds no more than was set aside."""
        return self.grant is not None and self.grant.kv is not None

    @property
    def longest(self) -> int:
        """Tokens for which a level must have room that goes on with what it answers."""
        return self.router.replicas.longest if self.router is not None else 0

    @contextmanager
    def listening(self, on_progress: Progress | None) -> Iterator[None]:
        """Hear of its load meanwhile."""
        if on_progress is not None:
            self.listeners.append(on_progress)
        try:
            yield
        finally:
            if on_progress is not None:
                self.listeners.remove(on_progress)

    def tell(self, event: dict[str, Any]) -> None:
        """Progress of its load, to all who wait for it."""
        for listener in list(self.listeners):
            listener(event)

    def state(self, now: float) -> ModelState:
        router = self.router
        doing = "unloading" if self.leaving else "loading" if router is None else "loaded"
        return ModelState(
            self.name,
            doing,
            self.pinned,
            self.uses,
            sum(router.held.values()) if router is not None else 0,
            None if self.grant is None else self.grant.total,
            router.engine.info.variant if router is not None else "",
            router.scheduler.capacity if router is not None else 0,
            0.0 if self.uses else now - self.used,
            router.manifest.level if router is not None else "",
            self.lesser,
        )
