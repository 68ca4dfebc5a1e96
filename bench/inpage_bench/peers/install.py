"""What peers are made of, put into a cache folder when a run first needs it: npm packages, the `onnx` package, and the
C driver of llama.cpp, compiled. Versions and hashes are pinned beside this file; no install script of theirs runs.

transformers.js asks npm for `onnxruntime-node` and `sharp` (250 MB, and downloads of their own), which its browser
build never loads: package.json lets a tiny package stand in for both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from inpage.errors import NetworkError, Unsupported

Say = Callable[[str], None]

_HERE = Path(__file__).parent
_FLAGS = ("-std=gnu11", "-O3", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=undefined", "-pthread", "-ldl")
_PLATFORMS = {
    ("linux", "x86_64"): "linux-x64",
    ("linux", "aarch64"): "linux-arm64",
    ("darwin", "arm64"): "mac-arm64-metal",
    ("darwin", "x86_64"): "mac-x64",
}


def npm(folder: Path, say: Say) -> Path:
    """``node_modules`` with the peers that run in a page, and llama.cpp's libraries for this machine."""
    pins = [_HERE / "package.json", _HERE / "package-lock.json"]
    target = folder / f"npm-{_digest(*pins)}"
    if not (target / ".complete").is_file():
        program = shutil.which("npm")
        if program is None:
            raise Unsupported("npm is needed once, to fetch the peers; install Node.js")
        say("fetching the peers from npm (360 MB on disk)")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for pin in pins:
            shutil.copy(pin, target)
        _run([program, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], "npm ci", cwd=target)
        (target / ".complete").touch()
    return target / "node_modules"


def python_path(folder: Path, say: Say) -> Path:
    """A folder for ``PYTHONPATH`` with the `onnx` package, apart from everything else's."""
    pins = _HERE / "requirements-peers.txt"
    target = folder / f"python{sys.version_info[0]}.{sys.version_info[1]}-{_digest(pins)}"
    if not (target / ".complete").is_file():
        say("fetching the onnx package with pip")
        shutil.rmtree(target, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--no-input", "--quiet", "--disable-pip-version-check"]
        command += ["--only-binary=:all:", "--require-hashes", "--target", str(target), "-r", str(pins)]
        _run(command, "pip install")
        (target / ".complete").touch()
    return target


@cache
def version(node_modules: Path, package: str) -> str:
    """What package.json of an installed npm package says."""
    return str(json.loads((node_modules / package / "package.json").read_text("utf-8"))["version"])


def llama_libraries(node_modules: Path) -> Path:
    """The folder of llama.cpp's libraries for this machine. Raises `Unsupported` where npm has none."""
    machine = platform.machine().lower()
    name = _PLATFORMS.get((sys.platform, machine))
    folder = node_modules / "@node-llama-cpp" / str(name)
    for base in folder.glob("bins/*/libggml-base.*"):
        return base.parent
    raise Unsupported(f"node-llama-cpp has no llama.cpp for {machine} on {sys.platform}")


def llama_driver(folder: Path, say: Say) -> Path:
    """The driver of llama.cpp, compiled with the pinned zig."""
    source = _HERE / "llama_cpp.c"
    program = folder / f"llama-driver-{_digest(source)}"
    if not program.is_file():
        if importlib.util.find_spec("ziglang") is None:
            raise Unsupported("llama.cpp's driver needs zig: pip install 'inpage[compile]'")
        say("compiling the driver of llama.cpp")
        folder.mkdir(parents=True, exist_ok=True)
        scratch = program.with_suffix(".part")
        _run([sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-o", str(scratch), str(source)], "zig cc")
        scratch.replace(program)
    return program


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _run(command: Sequence[str], what: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, env={**os.environ}, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise NetworkError(f"{what} failed: {lines[0] if lines else done.returncode}")
