"""Where things are: in a checkout, or in a wheel that carries them as ``inpage/_web``, ``inpage/_models`` and
``inpage/_examples``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import InvalidRequest, Unsupported
from ..host.folders import PACKAGE, cache_folder, checkout, vendor, web

__all__ = [
    "DEFAULT_MODEL",
    "PACKAGE",
    "artifact",
    "cache_folder",
    "checkout",
    "chromium",
    "examples",
    "models",
    "vendor",
    "web",
]

DEFAULT_MODEL = "smollm2-135m-instruct"

_BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def examples() -> Path:
    """The folder of example pages."""
    root = checkout()
    return root / "examples" if root else PACKAGE / "_examples"


def models() -> Path:
    """Where `compile` puts models and everything else looks for them: ``build/models`` of the checkout, or of the
    current folder."""
    return (checkout() or Path.cwd()) / "build" / "models"


def compiled() -> list[Path]:
    """The folders of all compiled models; hidden ones hold what is not finished."""
    found = (path.parent for path in models().glob("*/manifest.json"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def artifact(given: str | None) -> Path:
    """The folder of a compiled model: ``given`` is a folder or a model's id; None is the only one compiled, or the
    default. Raises `InvalidRequest` that says how to make it."""
    if given is not None:
        for folder in (Path(given), models() / given):
            if (folder / "manifest.json").is_file():
                return folder
        raise InvalidRequest(f"no compiled model at {given}; inpage compile makes one", field="model")
    made = compiled()
    if models() / DEFAULT_MODEL in made:
        return models() / DEFAULT_MODEL
    if len(made) == 1:
        return made[0]
    if made:
        names = ", ".join(folder.name for folder in made)
        raise InvalidRequest(f"several compiled models; choose one with --model: {names}", field="model")
    raise InvalidRequest(f"no compiled model in {models()}; make one: inpage compile {DEFAULT_MODEL}", field="model")


def chromium() -> Path:
    """The browser to run headless: $INPAGE_CHROMIUM, or the first of the usual names. Raises `Unsupported`."""
    override = os.environ.get("INPAGE_CHROMIUM")
    if override:
        found = shutil.which(override)
        if found:
            return Path(found)
        raise Unsupported(f"INPAGE_CHROMIUM is {override}, which is no program")
    for name in _BROWSERS:
        found = shutil.which(name)
        if found:
            return Path(found)
    raise Unsupported(
        "no Chromium found; install one (Debian: apt-get install chromium) or set INPAGE_CHROMIUM, "
        "or use --backend native"
    )
