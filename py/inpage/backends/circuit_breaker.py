"""Circuit breaker: an engine that only fails is left alone for a while, so that nobody waits for what cannot work.

Closed, calls go through. Several faults within a window, without a token in between, make it doubtful: the next engine
must compute a token of its own before anybody's request gets it, so that a request that ends engines is not taken for
a broken engine. Where it cannot, the circuit is open and requests are refused at once; after a rest it is half-open:
the next request brings an engine back, which must pass the same probe.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable

from ..engines.block_tables import pages_needed, tables_on
from ..engines.protocol import Engine, SequenceInput, is_paged, is_sequential
from ..errors import DeviceLost, InpageError

_PROBE = "inpage:probe"  # the name of its sequence
_DOUBTFUL = 5  # faults in a row
_WINDOW_S = 60.0
_FIRST_REST_S, _LONGEST_REST_S, _GROWTH = 10.0, 600.0, 2.0


class Breaker:
    """Of one scheduler's engines, whichever variant they are. ``clock``: seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.opened = 0  # how often
        self._clock = clock
        self._faults: deque[float] = deque(maxlen=_DOUBTFUL)
        self._why = ""
        self._until: float | None = None  # None: closed
        self._times = 0  # opened in a row, without a token in between

    def failed(self, error: InpageError) -> None:
        """An engine died or ran out of memory."""
        self._faults.append(self._clock())
        self._why = f"{error.code}: {error}"

    def progressed(self) -> None:
        """Somebody's token came out."""
        if self._faults or self._times:
            self._faults.clear()
            self._times = 0

    @property
    def doubtful(self) -> bool:
        """Whether the next engine must prove itself."""
        full = len(self._faults) == _DOUBTFUL and self._faults[0] >= self._clock() - _WINDOW_S
        return full or self._until is not None

    @property
    def state(self) -> str:
        if self._until is None:
            return "closed"
        return "open" if self.rest else "half-open"

    @property
    def rest(self) -> float:
        """Seconds until an engine is tried again."""
        return 0.0 if self._until is None else max(0.0, self._until - self._clock())

    def open(self, error: Exception) -> None:
        """Nothing that could be tried works."""
        self.opened += 1
        self._times += 1
        self._why = f"{error.code}: {error}" if isinstance(error, InpageError) else str(error)
        self._until = self._clock() + min(_FIRST_REST_S * _GROWTH ** (self._times - 1), _LONGEST_REST_S)

    def close(self) -> None:
        """An engine has proved itself."""
        self._until = None
        self._faults.clear()

    @property
    def sentence(self) -> str:
        """For people; empty while it is closed."""
        if self._until is None:
            return ""
        again = f"in {self.rest:.0f} seconds" if self.rest else "with the next request"
        return f"the circuit is {self.state} ({self._why}); an engine is tried again {again}"


async def probe(engine: Engine) -> None:
    """Let a fresh engine compute a token; one that fails is unloaded. Raises what it failed with, or `DeviceLost`."""
    try:
        count = pages_needed(engine.info, 1) if is_paged(engine) else 0
        if is_paged(engine):
            await engine.reserve_pages(count)
        tables = tables_on(engine.info, 1, range(count))
        (out,) = await engine.step([SequenceInput([0], 0, tables[0], tables=tables, request=_PROBE, sample=True)])
        if is_sequential(engine):
            engine.drop(_PROBE)
        if out.token is None:
            raise DeviceLost("the engine computes no token")
    except BaseException:
        with contextlib.suppress(InpageError):
            await engine.unload()
        raise
