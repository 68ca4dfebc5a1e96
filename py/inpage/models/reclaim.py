"""After an unload: what Python and the C library still keep for later goes back to the system."""

from __future__ import annotations

import ctypes
import gc

from ..host.browser import IN_PAGE


def reclaim() -> None:
    """A router's objects refer to each other, and glibc keeps what is freed: of SmolLM2, 40 MB after its unload."""
    gc.collect()
    if IN_PAGE:
        return  # its heap never shrinks, but the space is used again
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
