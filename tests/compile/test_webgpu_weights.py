"""Which formats kernels for WebGPU read, and how large matrices are bound."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inpage.errors import Unsupported
from inpage.format.limits import ALIGN, BINDING_BYTES
from inpage.format.schema import Format, tensor_bytes
from inpage_compile.kernels.shared.packed import PackedMatrix
from inpage_compile.kernels.webgpu.weights import check_format
from inpage_compile.ops.webgpu import slices
from inpage_compile.quantize import FORMATS


@pytest.mark.parametrize(
    "format",
    [
        replace(FORMATS["q4_1"], bits=3),
        replace(FORMATS["q4_0"], scale="e8m0"),
        replace(FORMATS["q8_0"], group=16),
        replace(FORMATS["q4_k"], zero=8),
        replace(FORMATS["iq4_nl"], bits=5),
    ],
)
def test_what_no_kernel_reads_is_refused(format: Format) -> None:
    with pytest.raises(Unsupported, match="no WebGPU kernel reads") as e:
        check_format(format)
    assert e.value.field == "format"


@pytest.mark.parametrize("name", FORMATS)
def test_large_matrices_are_bound_in_whole_pairs_of_blocks(name: str) -> None:
    whole = PackedMatrix(FORMATS[name], 262_144, 2048)
    assert whole.words * 4 == tensor_bytes(FORMATS[name], "rows16", (whole.rows, whole.columns))
    parts = slices(whole)
    assert len(parts) > 1
    assert sum(part.rows for part in parts) == whole.rows
    assert sum(part.words for part in parts) == whole.words
    for part in parts[:-1]:
        assert part.words * 4 <= BINDING_BYTES
        assert part.words * 4 % ALIGN == 0
        assert part.rows % 32 == 0
    assert parts[-1].words * 4 <= BINDING_BYTES
