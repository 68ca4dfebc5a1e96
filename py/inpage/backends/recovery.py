"""When an engine is gone: another takes over, or all are left alone for a while, and then one is brought back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass

from ..engines.protocol import Engine
from ..errors import InpageError
from ..requests.request import Interruption, Request
from .circuit_breaker import Breaker, probe
from .failover import Backends


@dataclass(frozen=True, slots=True)
class Gap:
    """An engine's death: its variant, of what it died, and when (seconds of ``perf_counter``)."""

    before: str
    error: InpageError
    began: float

    def interrupts(self, requests: Iterable[Request], engine: Engine) -> None:
        """Tell those of them that it served, and whom ``engine`` serves now."""
        reason = f"{self.error.code}: {self.error}"
        for request in requests:
            if request.started is not None:
                request.interruptions.append(Interruption(self.before, engine.info.variant, reason, self.began))


class Recovery:
    """Of one scheduler. Both calls give None where `give_up` ended them, and raise what the last engine failed with."""

    def __init__(self, backends: Backends) -> None:
        self.backends = backends
        self.breaker = Breaker(backends.log.clock)
        self._task: asyncio.Task[Engine] | None = None
        self.given_up = False  # for good

    async def replace(self, engine: Engine, error: InpageError, *, innocent: Sequence[str] = ()) -> Engine | None:
        """``engine`` failed with ``error``; see `Backends.replace`."""
        self.breaker.failed(error)
        return await self._run(self.backends.replace(engine, error, innocent=innocent))

    async def revive(self) -> Engine | None:
        """After a rest."""
        return await self._run(self.backends.first())

    def give_up(self) -> None:
        """Nobody wants an engine any more, now or later."""
        self.given_up = True
        if self._task is not None:
            self._task.cancel()

    @property
    def may_revive(self) -> bool:
        return self.breaker.state == "half-open" and not self.given_up

    async def _run(self, loading: Awaitable[Engine]) -> Engine | None:
        self._task = asyncio.get_running_loop().create_task(self._proved(loading))
        try:
            return await self._task
        except asyncio.CancelledError:
            if not self.given_up:
                raise
            return None
        except Exception as error:
            self.breaker.open(error)
            raise
        finally:
            self._task = None

    async def _proved(self, loading: Awaitable[Engine]) -> Engine:
        engine = await loading
        if self.breaker.doubtful:
            await probe(engine)
            self.breaker.close()
        return engine
