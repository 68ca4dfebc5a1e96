"""Build a static site: the chat page, the router, the engine and one or more compiled models.

The result is a folder that any web server can host. The first model is the one that the page opens with.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from ..errors import InvalidRequest
from . import answers, paths, session, site

_NOT_OURS = ("weights", "vendor/pyodide", "vendor/pyscript", "examples", "answers.json", "NOTICES.txt")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", action="append", metavar="DIR", help="a compiled model's folder or id; repeat for several"
    )
    parser.add_argument(
        "--answers",
        metavar="FILE",
        type=Path,
        help="requests, one JSON object a line: their answers come with the site",
    )
    session.trust_argument(parser)
    parser.add_argument("--examples", action="store_true", help="with the example pages, in examples/")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where to write (default: build/site)")


def run(args: argparse.Namespace) -> int:
    out: Path = args.out or paths.models().parent / "site"
    if out.is_dir() and any(out.iterdir()) and not (out / "site.json").is_file():
        raise InvalidRequest(f"{out} is not empty and no site; choose another folder", field="out")
    artifacts = [paths.artifact(given) for given in args.model or [None]]
    made = None if args.answers is None else answers.bundle(args.answers, artifacts, trust=args.trust)
    files = site.files(artifacts, examples=args.examples, answers=made)
    for old in sorted(out.rglob("*"), reverse=True) if out.is_dir() else ():
        if old.is_dir() and not old.is_symlink():
            if not any(old.iterdir()):
                old.rmdir()
        elif old.relative_to(out).as_posix() not in files:
            old.unlink()
    for name, content in files.items():
        _write(out / name, content)
    report(files, out)
    return 0


def _write(target: Path, content: Path | bytes) -> None:
    """Leave a file alone that is already right: weights are large, and browsers revalidate by time."""
    if isinstance(content, bytes):
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return
    stat = content.stat()
    if target.is_file() and (target.stat().st_size, target.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(content, target)


def report(files: dict[str, Path | bytes], out: Path) -> None:
    """What a first visit loads, and from what the sum of the small parts is made."""
    rows = site.sizes(files)
    for part, raw, packed in rows:
        print(f"  {part:<30} {raw / 1e6:9.3f} MB   gzip {packed / 1e6:8.3f} MB", file=sys.stderr)
    own = sum(packed for part, _, packed in rows if part not in _NOT_OURS)
    print(f"  besides Pyodide and the weights: {own / 1e6:.3f} MB gzip, every variant counted", file=sys.stderr)
    print(out)
