"""Where things lie on this machine: in a checkout, or in an installed wheel that carries pages as ``inpage/_web``; and
the user's cache."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def checkout() -> Path | None:
    """The root of the checkout that this package runs from, if it does."""
    root = PACKAGE.parents[1]
    return root if (root / "pyproject.toml").is_file() and (root / "web").is_dir() else None


def web() -> Path:
    """The folder of what a browser loads, vendored files apart in an installed wheel."""
    root = checkout()
    return root / "web" if root else PACKAGE / "_web"


def vendor() -> Path:
    """Where the vendored npm files are or go: beside the web sources of a checkout, else in the user's cache."""
    root = checkout()
    return root / "web" / "vendor" if root else cache_folder() / "vendor"


def cache_folder() -> Path:
    """CPython's: ``$XDG_CACHE_HOME/inpage`` or the system's usual place."""
    usual = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / usual) / "inpage"
