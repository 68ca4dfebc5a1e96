"""The command ``inpage``: one file a command. Every error is one line on stderr and a non-zero exit code.

The top floor: imports whatever it needs, and the compiler and the benchmark only where a command asks for them.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from ..errors import InpageError

COMMANDS = ("compile", "levels", "build", "serve", "chat", "score", "bench", "models", "plan", "tune", "doctor")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; `-h` has the rest."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"inpage: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="inpage", description="LLM inference inside the web page, in Python.")
    top.add_argument("--version", action="version", version=f"inpage {version('inpage')}")
    commands = top.add_subparsers(dest="command", metavar="command", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __name__)
        summary = (module.__doc__ or "").partition("\n")[0]
        sub = commands.add_parser(name, help=summary, description=module.__doc__)
        module.arguments(sub)
        sub.set_defaults(run=module.run, fail=sub.error)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code: 0, 1 for what went wrong, 2 for a wrong command line, 130 for ^C."""
    try:
        args = parser().parse_args(argv)
        return int(args.run(args) or 0)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone (`inpage … | head`); there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("INPAGE_DEBUG") == "1":
            raise
        print(f"inpage: {_one_line(error)}", file=sys.stderr)
        return 1


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, InpageError):
        return text
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return f"unexpected {type(error).__name__}: {text} (INPAGE_DEBUG=1 shows where)"
