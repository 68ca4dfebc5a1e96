"""Time a model's variants and kernels on this machine, and say what runs.

A page does the same between requests, some tens of milliseconds at a time, and remembers it for its browser and
adapter; so does the native engine for this machine. This asks for all of it now.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from . import paths, session


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a compiled model's folder or id")
    session.engine_arguments(parser, backend="auto")


def run(args: argparse.Namespace) -> int:
    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    paths.artifact(args.model)  # before a browser starts
    async with session.open_session(args) as asked:
        found = await asked.tune()
    print(json.dumps(found) if args.json else found["explained"])
    return 0
