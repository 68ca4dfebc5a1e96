"""What llama.cpp makes of floats: ``python make_k_quants.py LIBRARIES QUANTIZER > k_quants.json``.

``rms``: of each K-type, root mean square error of llama.cpp's own quantization (``ggml_quantize_chunk``, which
``llama_model_quantize`` calls) of two matrices: numbers with heavy tails, and a matrix of SmolLM2's feed-forward.
``types``: what ``llama_model_quantize`` makes of the matrices of tiny models (`SHAPES`), by level and kind of matrix.
LIBRARIES: the folder with ``libggml-base.so`` of npm node-llama-cpp 3.21.1; QUANTIZER: ``llama_quantized.c``, compiled.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.k_quants import FILE_TYPES, MATRICES, SHAPES, by_kind, matrices, rms
from support.tiny import Tiny

_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def main(libraries: Path, quantizer: Path) -> None:
    lib = ctypes.CDLL(str(libraries / "libggml-base.so"))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    found: dict[str, dict[str, float]] = {}
    for name, make in MATRICES.items():
        x = make()
        found[name] = {kind.lower(): rms(x, _theirs(lib, x, kind)) for kind in _TYPES}
    types = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, tiny in SHAPES.items():
            source = tiny.write(Path(scratch) / f"{name}.gguf")
            types[name] = {
                level: _types(libraries, quantizer, tiny, source, ftype) for level, ftype in FILE_TYPES.items()
            }
    print(json.dumps({"rms": found, "types": types}, indent=1))


def _theirs(lib: Any, x: npt.NDArray[np.float32], kind: str) -> npt.NDArray[np.float32]:
    form = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[form]
    out = np.zeros((len(x), x.shape[1] // block * size), np.uint8)
    lib.ggml_quantize_chunk(form.value, x.ctypes.data, out.ctypes.data, 0, *x.shape, None)
    return gguf.quants.dequantize(out, form)


def _types(libraries: Path, quantizer: Path, tiny: Tiny, source: Path, ftype: int) -> dict[str, str]:
    target = source.with_suffix(".out")
    subprocess.run([quantizer, libraries, "quantize", source, target, str(ftype)], check=True, capture_output=True)
    types = {t.name.removesuffix(".weight"): t.tensor_type.name.lower() for t in gguf.GGUFReader(target).tensors}
    return by_kind({name: types[name] for name in matrices(tiny)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
