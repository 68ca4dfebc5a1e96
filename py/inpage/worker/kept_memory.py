"""What Python's kept memory (web/router/python.js) shall hold beyond what a start needs: jinja2.

Its import takes a third of a second, so a first visit starts without it: it is imported while weights arrive, or with
the first chat. When that has been answered, the memory is kept anew, with it: later visits pay nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

TEMPLATES = "inpage.text.template_sandbox"
_WORTH = 8 << 20  # bytes still to come that take longer than the import


class KeptMemory:
    """``renew`` has it kept anew; None where nothing keeps it, or where it holds all already."""

    def __init__(self, renew: Callable[[], None] | None = None) -> None:
        self._renew = renew if TEMPLATES not in sys.modules else None
        self._asked = self._renew is None

    def progress(self, event: Mapping[str, Any]) -> None:
        """Of a model that loads."""
        if self._asked or event.get("phase") != "weights":
            return
        left = event["total"] - event["loaded"]
        if left > max(_WORTH, event["loaded"]):
            self._asked = True
            asyncio.get_running_loop().call_soon(importlib.import_module, TEMPLATES)

    def idle(self) -> None:
        """Somebody was answered, and nobody waits: what takes a core for two seconds slows nobody down."""
        if self._renew is not None:
            self._renew()
            self._renew = None
