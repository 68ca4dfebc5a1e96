"""Ask a compiled model and stream its answer.

By default through the router in a headless Chromium's page, as a visitor of the site would; --backend native asks it
here instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from . import session
from .profile import profile

_SAMPLING = ("temperature", "top_p", "top_k", "seed")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what to ask; - reads it from the input")
    session.arguments(parser)
    parser.add_argument("--max-tokens", type=int, metavar="N", help="at most this many (default: to the context's end)")
    parser.add_argument("--greedy", action="store_true", help="always the most likely token (temperature 0)")
    parser.add_argument("--raw", action="store_true", help="continue the text as it is, without the chat template")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--temperature", type=float, metavar="T")
    parser.add_argument("--top-p", type=float, metavar="P")
    parser.add_argument("--top-k", type=int, metavar="K")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write what happened when, for chrome://tracing")
    parser.add_argument("--profile", action="store_true", help="show where the time went, on stderr")


def run(args: argparse.Namespace) -> int:
    if args.raw and args.system is not None:
        args.fail("--system needs the chat template, which --raw leaves out")
    if args.greedy and args.temperature:
        args.fail("--greedy is temperature 0: give one of the two")
    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    text = sys.stdin.read() if args.prompt == "-" else args.prompt
    params: dict[str, Any] = {name: getattr(args, name) for name in _SAMPLING}
    params["max_tokens"] = args.max_tokens
    if args.greedy:
        params["temperature"] = 0
    params = {name: value for name, value in params.items() if value is not None}
    messages = [{"role": "user", "content": text}]
    if args.system is not None:
        messages.insert(0, {"role": "system", "content": args.system})
    async with session.open_session(args) as asked:
        kind, prompt = ("complete", text) if args.raw else ("chat", messages)
        if args.trace is not None:
            args.trace.touch()  # a place that cannot be written is known before anything is computed
        if args.trace is not None or args.profile:
            await asked.start_trace()
        answer = await asked.ask(kind, prompt, params, _silent if args.json else _write)
        trace = await asked.stop_trace() if args.trace is not None or args.profile else ""
        if args.trace is not None:
            args.trace.write_text(trace, "utf-8")
    if args.json:
        print(json.dumps({name: answer[name] for name in session.FIELDS}))
    else:
        print(flush=True)
        print(_summary(answer), file=sys.stderr)
    if args.profile:
        print(profile(trace), file=sys.stderr)
    return 0


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _silent(_: str) -> None:
    """--json prints the whole at the end."""


def _summary(answer: dict[str, Any]) -> str:
    threads = "1 thread" if answer["threads"] == 1 else f"{answer['threads']} threads"
    return (
        f"[{answer['variant']}, {threads}: first token after {answer['ttft_ms']:.0f} ms, "
        f"{answer['decode_tps']:.1f} tokens/s, prompt {answer['prefill_tps']:.0f} tokens/s, "
        f"loaded in {answer['load_ms'] / 1000:.1f} s]"
    )
