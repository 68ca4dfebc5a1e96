"""Work that nothing can interrupt, told to the page's main thread before it begins.

The main thread ends a router that does not answer (web/client/watch.js). To build a tokenizer may take long on a slow
phone, a prompt's regular expression for ever: each job has a limit of its own there, and where the router dies over
one, the request that it was for is known.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_request: ContextVar[int | None] = ContextVar("request", default=None)
_post: Callable[[dict[str, Any]], None] | None = None
_under_way: list[dict[str, Any]] = []


def announce_to(post: Callable[[dict[str, Any]], None]) -> None:
    global _post
    _post = post


def tell_page(message: dict[str, Any]) -> bool:
    """Give the main thread a message that belongs to no request. Whether there is a page."""
    if _post is not None:
        _post(message)
    return _post is not None


def for_request(number: int) -> None:
    """Jobs of the running task, from now on, are for this one."""
    _request.set(number)


@contextmanager
def job(name: str, characters: int = 0) -> Iterator[None]:
    """Around code that awaits nothing. A job within another has its own limit while it lasts."""
    if _post is None:
        yield
        return
    _under_way.append({"name": name, "id": _request.get(), "characters": characters})
    _post({"job": _under_way[-1]})
    try:
        yield
    finally:
        _under_way.pop()
        _post({"job": _under_way[-1] if _under_way else None})


def imported(name: str) -> Any:
    """A module that only some requests need. Python compiles it first, for seconds where the processor is busy."""
    if name in sys.modules:
        return sys.modules[name]
    with job("import"):
        return importlib.import_module(name)
