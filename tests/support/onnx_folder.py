"""A tiny model of `folder` as transformers.js's folders of graphs are: config.json and tokenizer beside ``onnx/``. The
graphs stand in tests/reference/onnx (made by make_onnx.py); what they have in files is written
here, by numpy alone."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .folder import FOLDERS, checkpoint, reference, write_folder

GRAPHS = Path(__file__).parents[1] / "reference" / "onnx"
NAME = "f32"  # of the model
GROUP = 32  # of 4-bit weights
SUFFIX = {"fp32": "", "q4f16": "_q4f16"}
Array = npt.NDArray[Any]


def data_file(precision: str) -> str:
    return f"model{SUFFIX[precision]}.onnx_data"


def arrays(precision: str) -> dict[str, Array]:
    """Every tensor of the graph's file, by its name, in order."""
    out: dict[str, Array] = {}
    for name, values in checkpoint(FOLDERS[NAME]).items():
        if values.ndim == 1:
            out[name] = values
        elif "embed" in name:
            out[name] = values if precision == "fp32" else values.astype(np.float16)
        elif precision == "fp32":
            out[name] = np.ascontiguousarray(values.T)
        else:
            out[f"{name}.quants"], out[f"{name}.scales"] = quantized(values)
    return out


def quantized(values: Array) -> tuple[Array, Array]:
    """As MatMulNBits takes it: uint8 [rows, groups, GROUP / 2], the even columns in the lower bits, and a scale a
    group: scale * (quant - 8)."""
    rows, columns = values.shape
    groups = values.reshape(rows, columns // GROUP, GROUP)
    scales = np.abs(groups).max(axis=2) / np.float32(7)
    quants = (np.rint(groups / scales[:, :, None]) + 8).astype(np.uint8)
    return quants[:, :, 0::2] | quants[:, :, 1::2] << 4, scales.reshape(-1).astype(np.float32)


def dequantized(values: Array) -> Array:
    packed, scales = quantized(values)
    quants = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], GROUP).astype(np.float32) - 8
    whole: Array = (quants * scales.reshape(packed.shape[:2])[:, :, None]).reshape(values.shape)
    return whole


def write_onnx_folder(folder: Path, *precisions: str) -> Path:
    (folder / "onnx").mkdir(parents=True)
    found = reference()
    for file, text in found["tokenizer"].items():
        (folder / file).write_text(text)
    for file, content in found["models"][NAME]["files"].items():
        (folder / file).write_text(json.dumps(content))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    for precision in precisions:
        graph = f"model{SUFFIX[precision]}.onnx"
        shutil.copyfile(GRAPHS / graph, folder / "onnx" / graph)
        data = b"".join(np.ascontiguousarray(values).tobytes() for values in arrays(precision).values())
        (folder / "onnx" / data_file(precision)).write_bytes(data)
    return folder


def onnx_artifact() -> Path:
    """The graphs alone, a level each; kept between runs."""
    return _compiled("tiny-llama-onnx", lambda folder: (f"onnx:{folder}", {"levels": tuple(SUFFIX)}))


def both_artifact() -> Path:
    """Compiled by ours, with the float32 graph beside it."""

    def ours(folder: Path) -> tuple[str, dict[str, Any]]:
        whole = write_folder(folder.parent / "whole", NAME)
        options = {"variants": ("wasm-simd",), "levels": ("source",), "onnx": f"{folder}:fp32", "accept_license": True}
        return str(whole), options

    return _compiled("tiny-llama-both", ours)


def _compiled(name: str, source: Callable[[Path], tuple[str, dict[str, Any]]]) -> Path:
    from inpage_compile.pipeline import compile_model

    with tempfile.TemporaryDirectory() as scratch:
        ref, options = source(write_onnx_folder(Path(scratch) / "tiny-llama", *SUFFIX))
        return compile_model(ref, Path(__file__).parents[2] / "build" / "tests" / name, **options)
