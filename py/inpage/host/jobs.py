"""Work that nothing can interrupt, told to the page's main thread before it begins.

The main thread ends a router that does not answer (web/client/watch.js). To build a tokenizer may take long on a slow
phone, a prompt's regular expression for ever: each job has a limit of its own there, and where the router dies over
one, the request that it was for is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_request: ContextVar[int | None] = ContextVar("request", default=None)
_post: Callable[[dict[str, Any]], None] | None = None


def announce_to(post: Callable[[dict[str, Any]], None]) -> None:
    global _post
    _post = post


def for_request(number: int) -> None:
    """Jobs of the running task, from now on, are for this one."""
    _request.set(number)


@contextmanager
def job(name: str, characters: int = 0) -> Iterator[None]:
    """Around code that awaits nothing and begins no other job."""
    if _post is None:
        yield
        return
    _post({"job": {"name": name, "id": _request.get(), "characters": characters}})
    try:
        yield
    finally:
        _post({"job": None})
