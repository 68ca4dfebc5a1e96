"""What Python's kept memory (web/router/python.js) shall hold beyond what a start needs: what only some requests do.

To import jinja2 takes a third of a second, so where Python starts from the beginning, it starts without: it is
imported while weights arrive, or with the first chat; the compiler of schemas with the first schema. When a chat has
been answered, the memory is kept anew, with both: later visits pay nothing. A site's snapshot has both from the start.
"""

from __future__ import annotations

import asyncio
import importlib
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..engines import in_page  # noqa: F401 - every page runs it, and what is kept has it, as all that messages.py imports
from ..host.jobs import imported

_TEMPLATES = "inpage.text.template_sandbox"
_LATER = (_TEMPLATES, "inpage.json_schema")
_WORTH = 8 << 20  # bytes still to come that take longer than the import


def import_later() -> None:
    for name in _LATER:
        importlib.import_module(name)


def renew_chance() -> None:
    """For memory that was restored: all that are would go on from the same state. Whatever else draws (`secrets`,
    `uuid`, `os.urandom`, names of temporary files) asks the browser each time. Strings keep their hash seed."""
    random.seed()


class KeptMemory:
    """``keep`` has it kept as it was when Python had started, ``renew`` once more with the rest; None where nothing
    keeps it."""

    def __init__(self, keep: Callable[[], None] | None = None, renew: Callable[[], None] | None = None) -> None:
        self._keep = keep
        self._renew = None if sys.modules.keys() >= set(_LATER) else renew
        self._asked = self._renew is None

    def progress(self, event: Mapping[str, Any]) -> None:
        """Of a model that loads."""
        if self._asked or event.get("phase") != "weights":
            return
        left = event["total"] - event["loaded"]
        if left > max(_WORTH, event["loaded"]):
            self._asked = True
            asyncio.get_running_loop().call_soon(imported, _TEMPLATES)

    def loaded(self) -> None:
        """A load has ended: what else there is to do waited for it."""
        if self._keep is not None:
            self._keep()
            self._keep = None

    def idle(self) -> None:
        """Somebody was answered, and nobody waits: what takes a core for two seconds slows nobody down."""
        if self._renew is not None and self._keep is None:  # what is not kept yet cannot be renewed
            self._renew()
            self._renew = None
