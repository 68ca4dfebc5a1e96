"""Several models in one router: loaded on request, unloaded when idle, within a memory budget.

Imports `router` and below.
"""

from .levels import Grant, Level
from .registry import Models, default_name
from .source import Source

__all__ = ["Grant", "Level", "Models", "Source", "default_name"]
