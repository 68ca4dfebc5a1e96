"""Several models under one roof: loaded when asked for, unloaded when nobody is there, within a memory budget.

Imports `router` and below.
"""

from .levels import Grant, Level
from .registry import Models, default_name
from .source import Source

__all__ = ["Grant", "Level", "Models", "Source", "default_name"]
