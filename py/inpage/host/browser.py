"""The way from Python in the page to its JavaScript side: web/router/host.js, which the router worker registers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import from_wire
from ..format import bounded

IN_PAGE = sys.platform == "emscripten"


def host() -> Any:
    """The JavaScript module. Only in the page (`IN_PAGE`). PyScript keeps such modules, named in its configuration,
    in a module of its own."""
    try:
        return importlib.import_module("inpage_host")
    except ModuleNotFoundError:
        return importlib.import_module("pyscript.js_modules").inpage_host


async def settle(promise: Awaitable[Any]) -> Any:
    """Await a JavaScript promise; an error that it rejects with becomes the typed one of `inpage.errors`."""
    with typed():
        return await promise


@contextmanager
def typed() -> Iterator[None]:
    """An error that JavaScript raises within becomes the typed one of `inpage.errors`."""
    from pyodide.ffi import JsException

    try:
        yield
    except JsException as error:
        raise from_wire(bounded.read(host().describeError(error))) from error
