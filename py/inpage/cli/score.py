"""Perplexity of a compiled model on a text: the tool to check a conversion.

The text is cut into independent windows; every position but a window's first is predicted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from ..errors import InvalidRequest, said
from ..format import bounded
from . import session


def arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("text", metavar="TEXT", nargs="?", help="the text")
    what.add_argument("--ids", type=Path, metavar="FILE.json", help="token ids, as a JSON list, instead")
    parser.add_argument(
        "--window", type=int, metavar="N", help="tokens a window (default: 512, or the model's context)"
    )
    session.arguments(parser)


def run(args: argparse.Namespace) -> int:
    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    asked = args.text if args.ids is None else _read_ids(args.ids)
    async with session.open_session(args) as loaded:
        score = await loaded.score(asked, args.window)
    if args.json:
        print(json.dumps(score))
    else:
        print(f"perplexity {score['perplexity']:.4f} over {len(score['nll'])} positions ({score['variant']})")
    return 0


def _read_ids(path: Path) -> list[int]:
    try:
        ids = bounded.read(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidRequest(f"{path} is not JSON: {said(error)}", field="ids") from error
    if not isinstance(ids, list):
        raise InvalidRequest(f"{path} must hold a JSON list of token ids", field="ids")
    return ids
