"""How our engines are set under test."""

from __future__ import annotations

from typing import Any

# Repeated prompts are to be answered from memory, and only within one load: what storage kept would make the first
# token after a second load look like a miracle. Whoever waits in a crowd waits to the end, so that all times are seen.
SETTINGS: dict[str, Any] = {
    "answers": {"enabled": True, "storage_bytes": 0},
    "scheduler": {"timeout": None},
}

# Kernels are timed for good after two seconds without a request; a large model's take some seconds.
SETTLING_S = 20.0
