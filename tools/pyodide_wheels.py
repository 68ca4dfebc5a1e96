"""Fetch what OpenAI's Python client needs in Pyodide: ``python tools/pyodide_wheels.py`` prints the wheels' folder.

They are those of requirements.txt, version and hash. pydantic wants one version of pydantic-core, to the digit; that
one and jiter are compiled, and have wheels for Pyodide on the package index.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON, PLATFORM = "3.14", "pyemscripten_2026_0_wasm32"  # of the npm package pyodide that package.json pins
PACKAGES = (
    *(
        "annotated-types",
        "anyio",
        "certifi",
        "distro",
        "h11",
        "httpcore",
        "httpx",
        "idna",
        "jiter",
        "openai",
        "pydantic",
    ),
    *("pydantic-core", "sniffio", "tqdm", "typing-extensions", "typing-inspection"),
)


def main() -> None:
    pins = pinned((ROOT / "requirements.txt").read_text("utf-8"))
    folder = ROOT / "build" / f"wheels-{hashlib.sha256(f'{PLATFORM}{pins}'.encode()).hexdigest()[:12]}"
    if not folder.exists():
        fetch(pins, folder)
    print(folder)


def pinned(requirements: str) -> str:
    """The lines of `PACKAGES`, hashes included."""
    found = {m[1]: m[0] for m in re.finditer(r"^([a-z0-9-]+)==(?:.*\\\n)+.*\n", requirements, re.M)}
    return "".join(found[name] for name in PACKAGES)


def fetch(pins: str, folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        wanted, made = Path(work, "requirements.txt"), Path(work, "wheels")
        wanted.write_text(pins, "utf-8")
        of = ("--python-version", PYTHON, "--implementation", "cp", "--abi", f"cp{PYTHON.replace('.', '')}")
        how = ("--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes", "--platform", PLATFORM)
        command = [sys.executable, "-m", "pip", "download", *how, *of, "--dest", made, "--requirement", wanted]
        done = subprocess.run(command, check=False, stdout=sys.stderr, env={**os.environ, "PIP_NO_INPUT": "1"})
        if done.returncode:
            sys.exit("the wheels could not be fetched")
        made.rename(folder)


if __name__ == "__main__":
    main()
