"""A loaded model for one command: the router here in CPython (native), or the router in a headless browser's page.

Both are the same `inpage` package; `chat`, `score` and `tune` talk to either through `Session`.
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict
from typing import Any, Protocol

from ..engines.registry import engine_kind
from ..errors import InvalidRequest
from ..format.manifest import parse_manifest
from ..router import Router
from . import paths
from .progress import Progress

# What one answer reports, in the order in which --json prints it.
FIELDS = (
    "backend",
    "variant",
    "why",
    "prompt_ids",
    "token_ids",
    "text",
    "finish_reason",
    "load_ms",
    "ttft_ms",
    "prefill_tps",
    "decode_tps",
    "threads",
)


class Session(Protocol):
    """``kind`` is "chat" (``prompt`` is a list of messages) or "complete" (a text). ``write`` gets each piece of text
    as it comes; the answer is a mapping with `FIELDS`. Errors are `InpageError`s."""

    async def ask(self, kind: str, prompt: Any, params: dict[str, Any], write: Callable[[str], None]) -> dict[str, Any]:
        """Ask and stream."""
        ...

    async def start_trace(self) -> None:
        """Record what happens when."""
        ...

    async def stop_trace(self) -> str:
        """What was recorded, as a Chrome trace."""
        ...

    async def score(self, ids: str | list[int], window: int | None) -> dict[str, Any]:
        """backend, variant, why, threads, perplexity, and nll, argmax, margin for each position."""
        ...

    async def tune(self) -> dict[str, Any]:
        """Time what was never timed, variants and kernels. Gives variant, candidates, kernels and kernels_settled, as
        in the router's ``info``, and ``explained``, for people."""
        ...


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `chat` and `score` share."""
    parser.add_argument("--model", metavar="DIR", help="a compiled model's folder or id")
    engine_arguments(parser)


def engine_arguments(parser: argparse.ArgumentParser, backend: str = "wasm") -> None:
    """Where a model runs; ``backend`` is the default."""
    parser.add_argument(
        "--backend",
        metavar="NAME",
        default=backend,
        help="wasm or webgpu: in a headless browser, the fastest variant of it that can run; auto: there, whatever is "
        "the fastest; native: here; or one variant of the model, such as wasm-simd (default: %(default)s)",
    )
    parser.add_argument("--level", metavar="NAME", help="a precision of the model (default: the best that it carries)")
    parser.add_argument("--threads", type=int, metavar="N", help="compute threads (default: all cores, at most 8)")
    trust_argument(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")


def trust_argument(parser: argparse._ActionsContainer) -> None:
    """What every command has that may load native kernels."""
    parser.add_argument(
        "--trust", action="store_true", help="run native kernels that this machine did not compile: they are programs"
    )


def open_session(args: argparse.Namespace) -> AbstractAsyncContextManager[Session]:
    """The session that a command line asks for, loaded on entering, with progress on stderr unless --json."""
    artifact = paths.artifact(args.model)
    manifest = parse_manifest((artifact / "manifest.json").read_bytes())
    auto = args.backend == "auto"
    named = [
        v
        for v in manifest.variants
        if args.backend in (v.name, v.backend) or (auto and engine_kind(v.backend).place == "page")
    ]
    if not named:
        names = dict.fromkeys(name for v in manifest.variants for name in (v.backend, v.name))
        raise InvalidRequest(f"this model has no backend {args.backend!r}; it has {', '.join(names)}", field="backend")
    progress = Progress(quiet=args.json)
    pin = None if auto else args.backend
    if args.level is not None and args.level not in [ref.name for ref in manifest.levels]:
        have = ", ".join(ref.name for ref in manifest.levels)
        raise InvalidRequest(f"this model has no level {args.level!r}; it has {have or 'but one'}", field="level")
    chosen = f"#{args.level}" if args.level else ""
    if engine_kind(named[0].backend).place == "host":
        return _native(f"{artifact}{chosen}", pin, args, progress)
    from .headless import open_page

    return open_page(artifact, pin, args.threads, progress, chosen)


@asynccontextmanager
async def _native(
    artifact: str, pin: str | None, args: argparse.Namespace, progress: Progress
) -> AsyncIterator[Session]:
    try:
        router = await Router.load(artifact, backend=pin, threads=args.threads, trust=args.trust, on_progress=progress)
    finally:
        progress.end()
    async with router:
        yield _Native(router)


class _Native:
    def __init__(self, router: Router) -> None:
        self._router = router

    async def ask(self, kind: str, prompt: Any, params: dict[str, Any], write: Callable[[str], None]) -> dict[str, Any]:
        stream = self._router.chat(prompt, **params) if kind == "chat" else self._router.complete(prompt, **params)
        async for delta in stream:
            write(delta.text)
            if delta.result is not None:
                return asdict(delta.result)
        raise AssertionError("a stream ends with a result or an error")

    async def start_trace(self) -> None:
        self._router.trace.start()

    async def stop_trace(self) -> str:
        self._router.trace.stop()
        return self._router.trace.to_json()

    async def score(self, ids: str | list[int], window: int | None) -> dict[str, Any]:
        score = await self._router.score(ids, window)
        info = self._router.info
        facts = {name: info[name] for name in ("backend", "variant", "why", "threads")}
        return facts | {"perplexity": score.perplexity} | asdict(score)

    async def tune(self) -> dict[str, Any]:
        candidates = await self._router.measure()
        info = self._router.info
        told = {name: info[name] for name in ("variant", "kernels", "kernels_settled")}
        return {**told, "candidates": candidates, "explained": self._router.explain()}
