"""A site's snapshot of Python's memory: Pyodide with the package imported, so that a first visit restores it instead
of starting Python, where its line brings it sooner (web/router/snapshot.js).

Node.js makes it, in some seconds; it is named by what it is made of, and kept beside the vendored files, so that an
unchanged package makes it once. A site that was built without Node works all the same: its pages start Python plainly
and keep a snapshot of their own.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import Unsupported
from . import paths, vendor

# What pages read first: {"file", "packed", "bytes", "sha256"}, or {"file": null, "why"}.
RECORD = "python.json"
MAKER = "make_snapshot.mjs"
HOME = "/inpage.zip"  # as web/router/python.js has it
KEY_BYTES = 128  # as web/router/kept_memory.js has it
_PYODIDE = "pyodide"
_FILES = ("pyodide.js", "pyodide.asm.js", "pyodide.asm.wasm", "python_stdlib.zip", "pyodide-lock.json")
_LIMIT_S = 120


def files(package: bytes) -> dict[str, Path | bytes]:
    """Of a site with this package: the snapshot and what describes it, or why there is none."""
    try:
        record, path = ensure(package)
    except Unsupported as error:
        return {RECORD: _text({"file": None, "why": str(error)})}
    return {RECORD: _text(record), record["file"]: path}


def missing(site: dict[str, Path | bytes]) -> str:
    """Why a site has none; empty where it has one."""
    record = site.get(RECORD)
    return str(json.loads(record).get("why", "")) if isinstance(record, bytes) else ""


def ensure(package: bytes) -> tuple[dict[str, Any], Path]:
    """Its description and where it lies. Raises `Unsupported` where it cannot be made."""
    folder = kept()
    name = f"python-{_identity(package)[:16]}"
    path, described = folder / f"{name}.bin", folder / f"{name}.json"
    record = _recorded(described, path)
    if record is None:
        record = _make(package, path)
        packed_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        _replace(described, json.dumps({**record, "packed_sha256": packed_sha256}).encode())
        _tidy(folder, name)
    return record, path


def kept() -> Path:
    """The folder of what was made."""
    return paths.vendor() / "snapshot"


def _identity(package: bytes) -> str:
    digest = hashlib.sha256((paths.web() / MAKER).read_bytes())
    digest.update(Path(__file__).read_bytes())
    digest.update(json.dumps(_pyodide()["files"], sort_keys=True).encode())
    digest.update(package)
    return digest.hexdigest()


def _pyodide() -> dict[str, Any]:
    (found,) = (each for each in vendor.packages() if each["name"] == _PYODIDE)
    return found


def _recorded(described: Path, path: Path) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(described.read_bytes())
        return record if hashlib.sha256(path.read_bytes()).hexdigest() == record.pop("packed_sha256") else None
    except (OSError, ValueError, KeyError):
        return None


def _make(package: bytes, path: Path) -> dict[str, Any]:
    node = _node()
    key = f"{_pyodide()['version']} {hashlib.sha256(package).hexdigest()}".ljust(KEY_BYTES)
    with tempfile.TemporaryDirectory(prefix="inpage-snapshot-") as scratch, _modules(Path(scratch)) as folder:
        archive, made = Path(scratch) / "inpage.zip", Path(scratch) / "memory"
        archive.write_bytes(package)
        command = [node, str(paths.web() / MAKER), str(folder), str(archive), HOME, key, str(made)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unsupported(f"Node.js failed: {type(error).__name__}") from error
        if done.returncode:
            raise Unsupported(f"Node.js ({_version(node)}) failed: {_reason(done.stderr)}")
        memory = made.read_bytes()
    packed = gzip.compress(memory, 6, mtime=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, packed)
    sha256 = hashlib.sha256(memory).hexdigest()
    return {"file": path.name, "packed": len(packed), "bytes": len(memory), "sha256": sha256}


@contextmanager
def _modules(scratch: Path) -> Iterator[Path]:
    """Pyodide's files where Node takes them for modules, whatever is around the vendor folder."""
    folder = scratch / "pyodide"
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}\n', "utf-8")
    for name in _FILES:
        shutil.copyfile(paths.vendor() / _PYODIDE / name, folder / name)
    yield folder


def _node() -> str:
    found = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")
    if found is None:
        raise Unsupported("no Node.js was found")
    return found


def _version(node: str) -> str:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "of an unknown version"


def _reason(stderr: str) -> str:
    """The line that names the error; Node prints the source of the module, of megabytes, before it."""
    lines = [line.strip() for line in stderr.splitlines()]
    named = [line for line in lines if "Error" in line[:40]]
    return (named or lines or ["it said nothing"])[0][:200]


def _replace(path: Path, data: bytes) -> None:
    """As a whole: others may make or read it at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".snapshot-", delete=False) as scratch:
        scratch.write(data)
    Path(scratch.name).chmod(0o644)
    Path(scratch.name).replace(path)


def _tidy(folder: Path, name: str) -> None:
    """Those of other versions but the last few, which another build may be copying."""
    others = sorted((p for p in folder.glob("python-*") if p.stem != name), key=lambda p: p.stat().st_mtime)
    for old in others[:-4]:
        old.unlink(missing_ok=True)


def _text(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False) + "\n").encode()
