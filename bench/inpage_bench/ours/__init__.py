"""Our own drivers: the router in a page, as users get it, and the native engine in a process of its own."""

from __future__ import annotations

from ..driver import Driver, Subject
from .in_page import PageDriver
from .native import NativeDriver


def drivers(subject: Subject, backends: list[str], threads: int, *, trust: bool = False) -> list[Driver]:
    """One for each of ``backends``: a backend ("wasm", "native") or a variant ("wasm-simd") of the model. ``trust``:
    see `Router.load`."""
    made: list[Driver] = []
    for name in backends:
        found = [v for v in subject.manifest.variants if name in (v.name, v.backend)]
        if found and found[0].backend == "native":
            made.append(NativeDriver(subject, name, threads, trust=trust))
        else:
            made.append(PageDriver(subject, name, found[0].backend if found else name, threads))
    return made
