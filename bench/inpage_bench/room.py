"""Whether this machine, and a WebAssembly memory, can hold an engine: asked before a browser starts or anything is
fetched, and answered with the numbers."""

from __future__ import annotations

from inpage.engines.mapping import available_bytes
from inpage.errors import OutOfMemory

from .driver import Subject
from .results import Engine, Model
from .scenarios import Scenario

WASM_BYTES = 1 << 32  # what addresses of 32 bits reach
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


def lacking(engine: Engine, model: Model, scenario: Scenario) -> str | None:
    """Why an engine cannot hold what a scenario asks of it, in words; None where it may (its buffers come on top)."""
    sequences = scenario.requests if scenario.together else 1
    tokens, weights = scenario.tokens * sequences, model.weight_bytes
    if scenario.tokens > model.context:
        return f"unsupported: needs {scenario.tokens} tokens; the model's context is {model.context}"
    if engine.kind == "inpage" and engine.backend == "wasm" and weights + tokens * model.kv_token_bytes > WASM_BYTES:
        most = max(0, WASM_BYTES - weights) // max(1, model.kv_token_bytes)
        return (
            f"unsupported: a WebAssembly memory ends at {WASM_BYTES / 1e6:,.0f} MB, and the weights take "
            f"{weights / 1e6:,.0f} MB of it: {most:,} tokens of context are left, {tokens:,} are needed"
        )
    return None
