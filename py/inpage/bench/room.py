"""Whether this machine can hold an engine, asked before a browser starts or anything is fetched."""

from __future__ import annotations

from ..engines.native import available_bytes
from ..errors import OutOfMemory
from .driver import Subject

PAGE_BYTES = 400_000_000  # Chromium with an engine's code: Pyodide and the router, or a peer's


def check_page(subject: Subject) -> None:
    """Raise `OutOfMemory` where the weights and a page are more than the memory that is available. A native engine asks
    itself, with its arena and its KV pages."""
    weights, free = subject.record.weight_bytes, available_bytes()
    if weights + PAGE_BYTES > free:
        raise OutOfMemory(
            f"needs {weights + PAGE_BYTES} bytes ({weights} of weights, {PAGE_BYTES} of a page); "
            f"{free} bytes of this machine's memory are available",
            field="weights",
        )
