"""Runs readers on mutated documents. What may come of one: a result, or an error of inpage's own that is short."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import re
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from inpage.errors import InpageError

from .mutate import Mutator

SECONDS = 5
KILOBYTES = 64 << 10
_MESSAGE, _FIELD = 4000, 200
_QUOTED = re.compile(r"([^\\])\1{80}")  # of the fillers that mutations put in; escapes are doubled


@dataclass(frozen=True)
class Reader:
    """``make``: a document from the seed; ``run`` reads it (and may be a coroutine); ``typed``: what it may raise.
    ``share``: of a usual run's documents, relative to other readers."""

    name: str
    make: Callable[[Mutator], Any]
    run: Callable[[Any], Any]
    typed: tuple[type[Exception], ...] = (InpageError,)
    wild: bool = False
    share: float = 1.0


class Fault(AssertionError):
    """A reader did what it must not."""


class _Hang(BaseException):
    pass


class Runner:
    """Documents of one reader, by number. The same seed and number give the same document."""

    def __init__(self, reader: Reader, seed: int = 0) -> None:
        self.reader, self.seed = reader, seed
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def document(self, number: int) -> Any:
        rng = random.Random(f"{self.reader.name} {self.seed} {number}")
        return self.reader.make(Mutator(rng, self.reader.wild))

    def one(self, number: int) -> None:
        """Raises `Fault`."""
        document = self.document(number)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            with _limited():
                asyncio.set_event_loop(self._loop)
                made = self.reader.run(document)
                if inspect.isawaitable(made):
                    self._loop.run_until_complete(_awaited(made))
        except self.reader.typed as error:
            check_error(error)
        except (KeyboardInterrupt, SystemExit, Fault):
            raise
        except BaseException as error:  # PanicException of Rust's libraries is one
            what = "".join(traceback.format_exception(error)[-12:])
            kind = f"no end within {SECONDS} s" if isinstance(error, _Hang) else "untyped"
            raise Fault(f"{kind}: {type(error).__name__}\n{what[-4000:]}") from error
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if number and grown > KILOBYTES:  # the first one imports
            raise Fault(f"took {grown >> 10} MB of memory")

    def reproducer(self, number: int) -> str:
        return f"python -m fuzz --reader {self.reader.name} --seed {self.seed} --number {number}"


async def _awaited(made: Any) -> Any:
    return await made


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Seconds of computing, so that a busy machine changes nothing; of waiting many more."""

    def over(_: int, frame: FrameType | None) -> None:
        raise _Hang("".join(traceback.format_stack(frame)[-6:]))

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, SECONDS), (signal.SIGALRM, signal.ITIMER_REAL, 12 * SECONDS))
    before = [signal.signal(number, over) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def check_error(error: Exception) -> None:
    """It can be shown and sent, and repeats little of what it was given."""
    message, field = str(error), getattr(error, "field", None)
    if not isinstance(field, str | None):
        raise Fault(f"field is {type(field).__name__}")
    for what, text, most in (("message", message, _MESSAGE), ("field", field or "", _FIELD)):
        if len(text) > most or _QUOTED.search(text):
            where = traceback.format_exception(error)[-3:]
            raise Fault(f"the {what} quotes too much ({len(text)} characters): {text[:300]!r}\n{''.join(where)[:1500]}")
