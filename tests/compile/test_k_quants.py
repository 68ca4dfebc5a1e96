"""Our quantizer of K-types and the mixtures of levels, held against llama.cpp's (tests/reference/k_quants.json)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest

from inpage_compile.quantize import FORMATS, pack, quantize, unpack
from inpage_compile.quantize.k_quantize import TYPES
from inpage_compile.quantize.mixtures import Model, fitting, format_in
from support.ggml_blocks import k_blocks
from support.k_quants import FILE_TYPES, MATRICES, SHAPES, by_kind, matrices, rms

WITNESS = json.loads((Path(__file__).parents[1] / "reference" / "k_quants.json").read_text("utf-8"))


@pytest.mark.parametrize("matrix", MATRICES if os.environ.get("INPAGE_SLOW") else ["heavy"])  # the other opens SmolLM2
def test_errors_are_not_above_llama_cpps(matrix: str) -> None:
    values = MATRICES[matrix]()
    for kind in TYPES:
        assert rms(values, quantize(values, kind).to_float32()) <= 1.02 * WITNESS["rms"][matrix][kind], kind


@pytest.mark.parametrize("kind", TYPES)
def test_bytes_mean_to_the_gguf_package_what_they_mean_here(kind: str) -> None:
    """Zeros, equal numbers of either sign and numbers that vanish beside others included."""
    rng = np.random.default_rng(1)
    scales = 10.0 ** rng.integers(-6, 2, (6, 512 // 16)).repeat(16, axis=1)
    values = (rng.standard_normal((6, 512)) * scales).astype(np.float32)
    values[0, :256], values[1, :300], values[2, 256:], values[3] = 0, 5, -3, 1e-20
    groups = quantize(values, kind)
    said = gguf.quants.dequantize(k_blocks(groups), gguf.GGMLQuantizationType[kind.upper()])
    assert np.array_equal(groups.to_float32(), said)
    assert np.array_equal(unpack(pack(groups), kind, *values.shape).to_float32(), said)
    assert not said[0, :256].any() and np.abs(said[1, :256] - 5).max() < 0.01 and np.abs(said[2, 256:] + 3).max() < 0.01


@pytest.mark.parametrize("kind", [*TYPES, "q8_0", "q5_1", "f16"])
@pytest.mark.parametrize("bad", [np.nan, -np.inf, 3e38])
def test_numbers_that_no_scale_reaches_are_refused(kind: str, bad: float) -> None:
    values = np.ones((2, 256), np.float32)
    values[1, 77] = bad
    with pytest.raises(ValueError, match="not finite, or too large"):
        quantize(values, kind)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_matrix_has_the_type_that_llama_cpp_gives_it(shape: str) -> None:
    tiny = SHAPES[shape]
    attending = [layer for layer in range(tiny.layers) if not tiny.convolves(layer)]
    model = Model(tiny.layers, attending, tiny.heads // tiny.kv_heads, tiny.tied)
    for level in FILE_TYPES:
        ours = {name: fitting(format_in(level, name, model), size[1]) for name, size in matrices(tiny).items()}
        assert by_kind(ours) == WITNESS["types"][shape][level], level
    assert {FORMATS[fitting(kind, 40)].bits for kind in TYPES} == {16}
