"""Build a static site: the chat page, the router, the engine and one or more compiled models.

The result is a folder that any web server can host. The first model is the one that the page opens with. Into a folder
that it wrote before, build writes again; files of others in it stay.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import answers, examples, out_folder, paths, scripts, session, site, snapshot

_PYTHON = ("vendor/pyodide", "Python's snapshot")
_NOT_OURS = ("weights", *_PYTHON, "vendor/pyscript", "examples", "answers.json", "NOTICES.txt")


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
    artifacts = [paths.artifact(given) for given in args.model or [None]]
    made = None if args.answers is None else answers.bundle(args.answers, artifacts, trust=args.trust)
    files = site.files(artifacts, examples=args.examples, answers=made)
    out_folder.write(out, files)
    if not scripts.bundled():
        print("inpage: no esbuild in node_modules: the site has its scripts as single modules", file=sys.stderr)
    if why := snapshot.missing(files):
        print(f"inpage: the site has no snapshot of Python, first visits take longer: {why}", file=sys.stderr)
    if args.examples and (why := examples.missing()):
        print(f"inpage: the site is without examples/search: {why}", file=sys.stderr)
    report(files, out)
    return 0


def report(files: dict[str, Path | bytes], out: Path) -> None:
    """What a first visit loads, and from what the sum of the small parts is made."""
    rows = site.sizes(files)
    for part, raw, packed in rows:
        print(f"  {part:<30} {raw / 1e6:9.3f} MB   gzip {packed / 1e6:8.3f} MB", file=sys.stderr)
    own = sum(packed for part, _, packed in rows if part not in _NOT_OURS)
    print(f"  besides Pyodide and the weights: {own / 1e6:.3f} MB gzip, every variant counted", file=sys.stderr)
    print(out)
