"""llama.cpp, natively: the C driver as a process of its own, one for each form of the weights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inpage.errors import DeviceLost, InpageError, Unsupported

from ..driver import Embedded, LoadFacts, Pages, Setup, Timeline, Usage
from ..results import Engine
from . import install, weights

_GRAIN = 256  # tokens: contexts are made this much longer at a time
_SEQUENCES = 32  # decode side by side at most
_LABELS = {"q4_1": "Q4_1, as published", "q4_0": "Q4_0, requantized", "q8_0": "Q8_0, requantized"}


class LlamaFailed(InpageError):
    """llama.cpp or its driver refused; the message is theirs."""

    code = "llama_failed"


async def drivers(setup: Setup) -> Sequence[LlamaCpp]:
    """As published; Q4_0, which it runs fastest; Q8_0. The quick run has the first two."""
    cache = setup.cache.resolve()
    if setup.subject.manifest.source.random:
        return [await _by_shape(setup, cache)]
    source = await asyncio.to_thread(weights.published, setup.subject.manifest.source)
    modules = await asyncio.to_thread(install.npm, cache, setup.say)
    program = await asyncio.to_thread(install.llama_driver, cache, setup.say)
    made = []
    for form in weights.FORMATS[:2] if setup.quick else weights.FORMATS:
        model = await asyncio.to_thread(weights.gguf_in, source, form, cache / "gguf", setup.say)
        made.append(LlamaCpp(program, install.llama_libraries(modules), model, form, setup.threads))
    return made


async def _by_shape(setup: Setup, cache: Path) -> LlamaCpp:
    """On the same random weights, as they are: the shapes' format is the one that it runs fastest."""
    modules = await asyncio.to_thread(install.npm, cache, setup.say)
    program = await asyncio.to_thread(install.llama_driver, cache, setup.say)
    subject = setup.subject
    model = await asyncio.to_thread(weights.shaped, subject.manifest.source, cache / "gguf", setup.say)
    form = subject.record.weights.partition(",")[0].lower()
    return LlamaCpp(program, install.llama_libraries(modules), model, form, setup.threads, label=weights.SAME_RANDOM)


class LlamaCpp:
    """See `inpage_bench.driver.Driver`."""

    def __init__(self, program: Path, libraries: Path, model: Path, form: str, threads: int, label: str = "") -> None:
        self.engine = Engine(
            name=f"llama.cpp {form.upper()}",
            kind="peer",
            backend="native",
            variant=form,
            threads=threads,
            version="",
            weights=label or _LABELS[form],
            family="llama.cpp",
            in_page=False,
            baseline=bool(label) or form == weights.FORMATS[0],  # the same weights as ours
        )
        self._program, self._libraries, self._model, self._threads = program, libraries, model, threads
        self._process: asyncio.subprocess.Process | None = None
        self._context = (0, 0)  # length, sequences

    async def load(self, pages: Pages) -> LoadFacts:
        start = time.perf_counter()
        self._process = await asyncio.create_subprocess_exec(
            str(self._program),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=1 << 26,
        )
        opened = await self._ask("open", **_libraries(self._libraries), model=str(self._model))
        await self._make_context(_GRAIN, 1)
        if not self.engine.version:
            self.engine.version = str(opened["version"])
            self.engine.notes.append(f"CPU features that it uses: {_features(str(opened['system']))}")
        return LoadFacts((time.perf_counter() - start) * 1e3, {"weights": float(opened["load_ms"])})

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        return (await self.serve([prompt], max_new_tokens, 1))[0]

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        """As many side by side as there are clients, at most 32; a further client waits for its turn."""
        longest = max(map(len, prompts)) + max_new_tokens
        await self._make_context(-(-longest // _GRAIN) * _GRAIN, min(clients, len(prompts), _SEQUENCES))
        flat = [token for prompt in prompts for token in prompt]
        answer = await self._ask("serve", ids=flat, lengths=[*map(len, prompts)], tokens=max_new_tokens)
        ids: list[int] = answer["ids"]
        ms: list[float] = answer["ms"]
        starts = range(0, len(ids), max_new_tokens)
        made = [Timeline(ids[i : i + max_new_tokens], ms[i : i + max_new_tokens], 0.0) for i in starts]
        for timeline in made:
            timeline.done_ms = timeline.at_ms[-1]
        # Prompts are taken in order, so the k-th client beyond the first ones comes when the k-th answer ends.
        for timeline, ended in zip(made[clients:], sorted(t.done_ms for t in made), strict=False):
            timeline.begun_ms = ended
        return made

    async def embed(self, texts: Sequence[str], *, together: bool) -> Embedded:
        raise Unsupported("llama.cpp is not asked for vectors here")

    async def settle(self) -> None:
        pass  # it chooses nothing

    async def usage(self) -> Usage:
        return Usage()

    async def counters(self) -> dict[str, int]:
        return {}

    def processes(self) -> list[int]:
        return [self._process.pid] if self._process else []

    async def close(self) -> None:
        process, self._process, self._context = self._process, None, (0, 0)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _make_context(self, length: int, sequences: int) -> None:
        if self._context != (length, sequences):
            await self._ask("context", threads=self._threads, length=length, sequences=sequences)
            self._context = (length, sequences)

    async def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise Unsupported("llama.cpp is not loaded")
        try:
            process.stdin.write(json.dumps({"op": op, **fields}, ensure_ascii=False).encode() + b"\n")
            await process.stdin.drain()
            line = await process.stdout.readline()
        except ConnectionError:
            line = b""
        if not line:
            raise DeviceLost(f"llama.cpp's process ended with status {await process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise LlamaFailed(answer["error"])
        return answer


def _libraries(folder: Path) -> dict[str, str]:
    """The three libraries, whose names carry the release."""
    found = {"libraries": str(folder)}
    for key, stem in (("base", "libggml-base"), ("ggml", "libggml"), ("llama", "libllama")):
        names = [path.name for path in folder.glob(f"{stem}.*")]
        if not names:
            raise Unsupported(f"{folder} lacks {stem}")
        found[key] = min(names, key=len)
    return found


def _features(system: str) -> str:
    """ "AVX2 AVX512 …" of "CPU : SSE3 = 1 | AVX2 = 1 | …"."""
    parts = [part.split("=") for part in system.partition(":")[2].split("|") if "=" in part]
    return " ".join(name.strip() for name, value in parts if value.strip() == "1")
