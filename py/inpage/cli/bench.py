"""Measure how fast models run in the page, with other engines beside them in the same run.

The benchmark is a package of its own, ``inpage_bench``, loaded only where it is there.
"""

from __future__ import annotations

import argparse
import importlib
from types import ModuleType

from ..errors import Unsupported


def arguments(parser: argparse.ArgumentParser) -> None:
    command = _command()
    if command is None:
        parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
        return
    parser.description = command.__doc__
    command.arguments(parser)


def run(args: argparse.Namespace) -> int:
    command = _command()
    if command is None:
        raise Unsupported("benchmarking needs another package (inpage_bench): pip install 'inpage[bench]'")
    return int(command.run(args) or 0)


def _command() -> ModuleType | None:
    try:
        return importlib.import_module("inpage_bench.command")
    except ModuleNotFoundError as error:
        if error.name != "inpage_bench":
            raise
        return None
