"""How many examples of what is random are tried."""

from __future__ import annotations

import os


def some(slow: int) -> int:
    """``slow`` with INPAGE_SLOW=1, else half of them: other ones in each run."""
    return slow if "INPAGE_SLOW" in os.environ else slow // 2
