"""An engine beside the one that runs, for requests that need what that one cannot do: a grammar, logprobs. It is loaded
when such a request first comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..backends.failover import Backends
from ..backends.selection import Candidate
from ..engines.protocol import Engine
from ..errors import InpageError, only_faults
from ..requests.request import Burst, Request
from ..scheduling.scheduler import Scheduler


class Specialists:
    """``backends``: of the model; ``room``: whether such an engine fits into memory; ``start``: a scheduler for an
    engine that was loaded by such backends; ``submit``: what is then done with a request."""

    def __init__(
        self,
        backends: Backends,
        room: Callable[[Candidate], bool],
        start: Callable[[Engine, Backends], Scheduler],
        submit: Callable[[Request], None],
    ) -> None:
        self.schedulers: list[Scheduler] = []
        self._backends, self._room, self._start, self._submit = backends, room, start, submit
        self._opening = asyncio.Lock()
        self._tasks: dict[Request, asyncio.Task[None]] = {}

    @property
    def requests(self) -> list[Request]:
        """Those that wait for an engine."""
        return list(self._tasks)

    def candidates(self, needs: Sequence[str]) -> list[Candidate]:
        """Those whose engine can do all of it."""
        return [c for c in self._backends.ranked if all(map(c.kind.able.has, needs)) and self._room(c)]

    def open_for(self, request: Request) -> None:
        """Load one, then submit the request; what fails comes by its ``events``."""
        self._tasks[request] = asyncio.get_running_loop().create_task(self._open_for(request))

    def cancel(self, request: Request) -> bool:
        """End it as "cancelled", if it waits here."""
        task = self._tasks.pop(request, None)
        if task is None:
            return False
        task.cancel()
        request.cancelled = request.done = True
        request.events.put_nowait(Burst([], "cancelled"))
        return True

    async def close(self, reason: InpageError) -> None:
        """End all that wait with ``reason``."""
        for request in await self.hand_over():
            _fail(request, reason)

    async def hand_over(self) -> list[Request]:
        """Give all away that wait."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        return list(tasks)

    async def _open_for(self, request: Request) -> None:
        try:
            async with self._opening:
                if all(request.unmet(s.info) is not None for s in self.schedulers):
                    await self._open(request)
            unmet = [request.unmet(s.info) for s in self.schedulers]
            if None not in unmet:
                raise unmet[-1] or InpageError("no engine can do what was asked")
            self._submit(request)
        except BaseException as error:  # a bug here must reach the caller
            only_faults(error)
            _fail(request, error)
        finally:
            self._tasks.pop(request, None)

    async def _open(self, request: Request) -> None:
        own = self._backends.beside(self.candidates(request.needs))
        self.schedulers.append(self._start(await own.first(), own))


def _fail(request: Request, error: BaseException) -> None:
    request.done = True
    request.events.put_nowait(error)
