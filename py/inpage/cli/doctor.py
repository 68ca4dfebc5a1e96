"""Say what is missing on this machine for each command, and how to get it.

With --page, what a page of the headless browser has and how fast each variant of the model is there. The exit code is 0
when nothing is missing, 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from ..engines.native_trust import config_folder, is_stamped
from ..errors import InpageError
from ..format.manifest import parse_manifest
from . import headless, paths, vendor
from .progress import Progress


@dataclass(frozen=True)
class Finding:
    """``found`` says what there is, None: nothing. ``remedy`` gets it."""

    name: str
    needed_for: str
    found: str | None
    remedy: str


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--page", action="store_true", help="load the model in a headless browser and report from there"
    )
    parser.add_argument("--model", metavar="DIR", help="with --page: a compiled model's folder or id")


def run(args: argparse.Namespace) -> int:
    if args.page:
        return asyncio.run(_from_page(args.model))
    if args.model is not None:
        args.fail("--model goes with --page")
    findings = examine()
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        if finding.found is not None:
            print(f"ok       {finding.name:<{width}}  {finding.found}")
        else:
            print(f"missing  {finding.name:<{width}}  for {finding.needed_for}; {finding.remedy}")
    return 0 if all(finding.found is not None for finding in findings) else 1


async def _from_page(model: str | None) -> int:
    async with headless.open_page(paths.artifact(model), None, None, Progress()) as opened:
        print(await opened.report(), end="")
    return 0


def examine() -> list[Finding]:
    return [
        Finding("Python", "everything", _python(), "install Python 3.11, 3.12 or 3.13"),
        _package("tvm", "apache-tvm", "compile", "compile"),
        _package("gguf", "gguf", "compile", "compile"),
        _package("ziglang", "ziglang", "compile", "compile"),
        _package("tokenizers", "tokenizers", "compile, chat and score --backend native", "cli"),
        _package("jinja2", "jinja2", "chat --backend native", "cli"),
        _package("playwright", "playwright", "chat and score in the browser", "cli"),
        Finding("Chromium", "chat and score in the browser", _or_none(_chromium), _CHROMIUM),
        Finding("page files", "build, and chat and score in the browser", _page_files(), _NODE),
        Finding("model", "build, chat and score", _or_none(lambda: str(paths.artifact(None))), _MODEL),
        *_native_kernels(),
    ]


_CHROMIUM = "Debian: apt-get install chromium; macOS: brew install --cask google-chrome; or set INPAGE_CHROMIUM"
_NODE = "install Node.js with npm; inpage build then fetches Pyodide and the tokenizer by itself"
_MODEL = f"inpage compile {paths.DEFAULT_MODEL}"


def _python() -> str | None:
    return platform.python_version() if sys.version_info >= (3, 11) else None


def _package(module: str, name: str, needed_for: str, extra: str) -> Finding:
    found = None
    if importlib.util.find_spec(module) is not None:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "of unknown version"
    return Finding(name, needed_for, found, f"pip install 'inpage[{extra}]'")


def _native_kernels() -> list[Finding]:
    """Whether the model's native kernels were compiled here, where it has any: else they want --trust."""
    try:
        folder = paths.artifact(None)
        variants = parse_manifest((folder / "manifest.json").read_bytes()).variants
    except (InpageError, OSError):
        return []
    native = [variant.files["kernels"] for variant in variants if variant.backend == "native"]
    if not native:
        return []
    stamped = all(is_stamped(folder, kernels.sha256) for kernels in native)
    found = f"compiled here (key in {config_folder()})" if stamped else None
    remedy = f"compile it on this machine: inpage compile {folder.name}; or --trust, if you know where it comes from"
    return [Finding("native kernels", "chat and score --backend native", found, remedy)]


def _chromium() -> str:
    program = str(paths.chromium())
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30, check=False)
    return f"{program} ({done.stdout.strip() or 'of unknown version'})"


def _page_files() -> str | None:
    folder = paths.vendor()
    if vendor.complete(folder):
        return str(folder)
    npm = shutil.which("npm")
    return f"to be fetched with {npm}" if npm else None


def _or_none(find: Callable[[], str]) -> str | None:
    try:
        return find()
    except (InpageError, OSError, subprocess.SubprocessError):
        return None
