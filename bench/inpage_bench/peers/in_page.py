"""Peers that run in the browser: the page in ``web/bench/peers``, with the files of one form of one peer beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from inpage.cli import paths
from inpage.errors import SourceInvalid, Unsupported
from inpage.text.tokenizer import Tokenizer, load_tokenizer

from ..driver import Embedded, LoadFacts, Pages, Setup, Tab, Timeline, Usage
from ..results import Engine
from . import bert_model, install, onnx_model, weights

_ORT = "onnxruntime-web/dist/"
_TRANSFORMERS = "@huggingface/transformers/"
_CONTEXT = 8192  # tokens of KV that wllama shares between its sequences
_PARALLEL = 8
_LARGEST_FILE = 1 << 31  # of wllama: what one ArrayBuffer holds
_LABELS = {
    "q4_1": "Q4_1, as published",
    "q4_0": "Q4_0, requantized",
    "q8_0": "Q8_0, requantized",
    "fp32": "ONNX fp32, dequantized",
    "int8": "ONNX int8, a scale a column, activations quantized dynamically",
    "q8": "ONNX int8, a scale a column, activations quantized dynamically",
    "q4": "ONNX MatMulNBits, the 4-bit groups as published",
}


@dataclass(slots=True)
class Form:
    """One form of a peer. ``options`` are for its page's ``load``; ``files`` are served beside the page;
    ``weights`` says what they are where `_LABELS` does not."""

    family: str
    variant: str
    options: dict[str, Any]
    files: dict[str, Path | bytes] = field(default_factory=dict)
    weights: str = ""


async def wllama(setup: Setup) -> Sequence[PagePeer]:
    """llama.cpp in WebAssembly, on Q4_0, the GGUF as published, and Q8_0. The quick run has the first alone."""
    cache, origin = setup.cache.resolve(), setup.subject.manifest.source
    models: dict[str, Path] = {}
    if origin.random:
        form, size = setup.subject.record.weights.partition(",")[0].lower(), setup.subject.record.weight_bytes
        if size > _LARGEST_FILE:
            raise Unsupported(f"needs a file of {size} bytes, and takes at most {_LARGEST_FILE} in one file")
        models[form] = await asyncio.to_thread(weights.shaped, origin, cache / "gguf", setup.say)
    else:
        source = await asyncio.to_thread(weights.published, origin)
    modules = await asyncio.to_thread(install.npm, cache, setup.say)
    library = modules / "@wllama/wllama/esm"
    tokenizer = _tokenizer(setup)
    made: list[PagePeer] = []
    for variant in models or ("q4_0", "q4_1", "q8_0")[: 1 if setup.quick else None]:
        if not origin.random:
            models[variant] = await asyncio.to_thread(weights.gguf_in, source, variant, cache / "gguf", setup.say)
        names = {"library": "wllama.mjs", "wasm": "wllama.wasm", "model": "model.gguf"}
        files = dict(
            zip(names.values(), (library / "index.js", library / "wasm/wllama.wasm", models[variant]), strict=True)
        )
        options = {**names, "context": _CONTEXT, "parallel": _PARALLEL}
        label = weights.SAME_RANDOM if origin.random else ""
        made.append(Wllama(Form("wllama", variant, options, {**files}, label), setup.threads, tokenizer))
    return made


async def onnxruntime_web(setup: Setup) -> Sequence[PagePeer]:
    """A plain InferenceSession on fp32, int8 and q4. The quick run has int8 alone."""
    source = await asyncio.to_thread(weights.published, setup.subject.manifest.source)
    modules = await asyncio.to_thread(install.npm, setup.cache.resolve(), setup.say)
    names = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
    made: list[PagePeer] = []
    for precision in ("int8",) if setup.quick else onnx_model.PRECISIONS:
        folder = await _exported(setup, source, precision)
        model = f"model{onnx_model.SUFFIX[precision]}.onnx"
        files = {name: modules / _ORT / name for name in names}
        files |= {name: folder / "onnx" / name for name in (model, f"{model}_data")}
        options: dict[str, Any] = dict(zip(("library", "glue", "wasm"), names, strict=True))
        options |= {"model": model}
        architecture = setup.subject.manifest.architecture
        options |= {name: getattr(architecture, name) for name in ("layers", "kv_heads", "head_dim")}
        made.append(PagePeer(Form("onnxruntime-web", precision, options, {**files}), setup.threads))
    return made


async def transformers_js(setup: Setup) -> Sequence[PagePeer]:
    """Its own `generate` on fp32, int8 and q4, of an encoder its `feature-extraction` on fp32 and q8. The quick run has
    int8 alone, of an encoder both."""
    embeds = setup.subject.manifest.embedding is not None
    origin, exporter = setup.subject.manifest.source, bert_model if embeds else onnx_model
    source = await asyncio.to_thread(weights.published_folder if embeds else weights.published, origin)
    modules = await asyncio.to_thread(install.npm, setup.cache.resolve(), setup.say)
    ort = modules / _TRANSFORMERS / "node_modules" / _ORT
    names = ("transformers.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
    made: list[PagePeer] = []
    for precision in ("int8",) if setup.quick and not embeds else exporter.SUFFIX:
        folder = await _exported(setup, source, precision, exporter)
        model = f"onnx/model{exporter.SUFFIX[precision]}.onnx"
        beside = sorted(path.name for path in folder.glob("*.json"))
        sources = (modules / _TRANSFORMERS / "dist/transformers.min.js", ort / names[1], ort / names[2])
        files: dict[str, Path | bytes] = dict(zip(names, sources, strict=True))
        files |= {f"model/{name}": folder / name for name in (*beside, model, f"{model}_data")}
        options: dict[str, Any] = dict(zip(("library", "glue", "wasm"), names, strict=True))
        options |= {"id": "model", "dtype": precision, "embeds": embeds}
        made.append(PagePeer(Form("transformers.js", precision, options, files), setup.threads))
    return made


class PagePeer:
    """See `inpage_bench.driver.Driver`. One request at a time; `Wllama` takes more."""

    def __init__(self, form: Form, threads: int) -> None:
        self.engine = Engine(
            name=f"{form.family} {form.variant}",
            kind="peer",
            backend="wasm",
            variant=form.variant,
            threads=threads,
            version="",
            weights=form.weights or _LABELS[form.variant],
            family=form.family,
        )
        self._form = form
        self._tab: Tab | None = None

    async def load(self, pages: Pages) -> LoadFacts:
        start = time.perf_counter()
        folder = paths.web() / "bench" / "peers"
        files: dict[str, Path | bytes] = {path.name: path for path in sorted(folder.iterdir())}
        self._tab = await pages.open({**files, **self._form.files}, "index.html")
        options = {**self._form.options, "threads": self.engine.threads}
        loaded = await self._call("load", self._form.family, options)
        self.engine.version, self.engine.threads = str(loaded["version"]), int(loaded["threads"])
        return LoadFacts((time.perf_counter() - start) * 1e3, loaded["phases"], self._tab.fetched())

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        return Timeline(**await self._call("generate", list(prompt), max_new_tokens))

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        raise Unsupported(f"{self._form.family} answers one request at a time")

    async def embed(self, texts: Sequence[str], *, together: bool) -> Embedded:
        return Embedded(**await self._call("embed", list(texts), together))

    async def settle(self) -> None:
        pass  # it chooses nothing

    async def usage(self) -> Usage:
        return Usage(**await self._call("usage"))

    async def counters(self) -> dict[str, int]:
        return {}

    def processes(self) -> list[int]:
        return []

    async def close(self) -> None:
        tab, self._tab = self._tab, None
        if tab is not None:
            with contextlib.suppress(Exception):  # a page that crashed cannot be closed again
                await tab.close()

    async def _call(self, method: str, *arguments: Any) -> Any:
        if self._tab is None:
            raise Unsupported(f"{self.engine.name} is not loaded")
        return await self._tab.call(f"(arguments) => globalThis.peer.{method}(...arguments)", list(arguments))


class Wllama(PagePeer):
    """It takes text: prompts are decoded for it, and ids are read from the pieces of text that it gives."""

    def __init__(self, form: Form, threads: int, tokenizer: Tokenizer) -> None:
        super().__init__(form, threads)
        self._tokenizer = tokenizer

    async def generate(self, prompt: Sequence[int], max_new_tokens: int) -> Timeline:
        return self._timeline(prompt, await self._call("generate", self._tokenizer.decode(prompt), max_new_tokens))

    async def serve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int, clients: int) -> list[Timeline]:
        texts = [self._tokenizer.decode(prompt) for prompt in prompts]
        answers = await self._call("serve", texts, max_new_tokens, clients)
        return [self._timeline(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]

    def _timeline(self, prompt: Sequence[int], answer: dict[str, Any]) -> Timeline:
        ids: list[int] = []
        for text, count in answer["pieces"]:
            found = self._tokenizer.encode(text) if text else []
            ids += found[:count] + [0] * (count - len(found))  # 0: its text came with a later token's
        if answer["prompt_tokens"] != len(prompt):
            note = "took its prompts for a few tokens more or fewer: it takes text, and cut words tokenize differently"
            if note not in self.engine.notes:
                self.engine.notes.append(note)
        return Timeline(ids, answer["at_ms"], answer["done_ms"], answer["begun_ms"])


def _tokenizer(setup: Setup) -> Tokenizer:
    given = setup.subject.manifest.tokenizer
    return load_tokenizer((setup.subject.artifact / given.file).read_text("utf-8"), given.special)


async def _exported(setup: Setup, source: Path, precision: str, exporter: ModuleType = onnx_model) -> Path:
    """The folder of the ONNX model, cached by the source's hash; made in a process of its own, which takes seconds."""
    cache = setup.cache.resolve()
    folder = cache / "onnx" / f"{setup.subject.manifest.source.sha256[:16]}-{exporter.REVISION}-{precision}"
    if folder.is_dir():
        return folder
    python = await asyncio.to_thread(install.python_path, cache, setup.say)
    scratch = folder.with_suffix(".part")
    scratch.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", exporter.__name__, str(source), precision, str(scratch)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(python), *filter(None, [os.environ.get("PYTHONPATH")])])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said = await asyncio.gather(_relay(process.stdout, precision, setup.say), _text(process.stderr))
    if await process.wait():
        raise SourceInvalid(f"the ONNX export failed: {said[1].strip().rpartition(chr(10))[2]}")
    scratch.rename(folder)  # whole, or not there
    return folder


async def _relay(stream: asyncio.StreamReader | None, precision: str, say: Callable[[str], None]) -> None:
    while stream and (line := await stream.readline()):
        say(f"ONNX {precision}: {line.decode().strip()}")


async def _text(stream: asyncio.StreamReader | None) -> str:
    return (await stream.read()).decode("utf-8", "replace") if stream else ""
