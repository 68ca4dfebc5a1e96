"""The C runtime alone, through ctypes: sampler, scorer, hash and math, on rows of logits that a test makes up."""

from __future__ import annotations

import ctypes
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage_compile.targets import link

from .toy import toy_library

Floats = npt.NDArray[np.float32]


class Selection(ctypes.Structure):
    """inpage_selection of select.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("ids", ctypes.c_void_p),
        ("n", ctypes.c_int32),
        ("mask", ctypes.c_void_p),
        ("max", ctypes.c_float),
        ("total", ctypes.c_double),
        ("key", ctypes.c_uint32),
        ("last", ctypes.c_int32),
        ("short_x", ctypes.c_void_p),
        ("short_ids", ctypes.c_void_p),
    )


def _keys(x: Floats) -> npt.NDArray[np.uint32]:
    """inpage_key of floats.h."""
    bits = (np.minimum(np.where(np.isnan(x), -np.inf, x), np.finfo(np.float32).max).astype(np.float32) + 0).view(
        np.uint32
    )
    return np.where(bits == 0xFF800000, 0, np.where(bits >> 31 == 1, ~bits, bits | 0x80000000)).astype(np.uint32)


class Runtime:
    """A library of its own, loaded with ``rows`` rows of ``vocab`` logits (`logits`, writable) and no launches."""

    def __init__(self, rows: int, vocab: int, threads: int = 1) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "kernels.so"
            path.write_bytes(toy_library())
            self.lib = ctypes.CDLL(str(path))
        self.logits: Floats = np.zeros((rows, vocab), np.float32)
        self._inputs = np.zeros(4 * rows, np.int32)
        buffers = (ctypes.c_void_p * 2)(self._inputs.ctypes.data, self.logits.ctypes.data)
        program = (ctypes.c_int32 * 3)(1, rows, 0)
        io = (ctypes.c_int32 * 11)(0, 0, 0, 0, 0, 1, vocab, rows, rows, rows, 1)
        assert self.lib.inpage_load(buffers, 2, program, 3, io) == 0
        assert self.lib.inpage_set_threads(threads) == 0

    def close(self) -> None:
        self.lib.inpage_set_threads(1)

    def sample(self, structs: Any, n: int, bias: Any = None, mask: Any = None) -> int:
        """inpage_sample on the first ``n`` rows; ``structs`` is an array('i') that is updated."""

        def at(words: Any) -> ctypes.c_void_p | None:
            if words is None:
                return None
            return ctypes.c_void_p(words.ctypes.data if hasattr(words, "ctypes") else words.buffer_info()[0])

        return int(self.lib.inpage_sample(at(structs), n, at(bias), at(mask)))

    def kept(self, x: Floats, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> set[int]:
        """The ids that stay after the filters, in the sampler's order."""
        s = Selection(x=x.ctypes.data, n=x.size, key=0, last=-1)
        room_x, room_ids = np.zeros(2048, np.float32), np.zeros(2048, np.int32)
        s.short_x, s.short_ids = room_x.ctypes.data, room_ids.ctypes.data
        self.lib.inpage_best(ctypes.byref(s))
        if 0 < top_k < x.size:
            self.lib.inpage_top_k(ctypes.byref(s), top_k)
        if top_p < 1:
            self.lib.inpage_top_p(ctypes.byref(s), ctypes.c_float(top_p))
        if min_p > 0:
            self.lib.inpage_min_p(ctypes.byref(s), ctypes.c_float(min_p))
        short = s.ids is not None
        values = (room_x if short else x)[: s.n]
        keys = _keys(values)
        stay = (keys > s.key) | ((keys == s.key) & (np.arange(s.n) <= s.last) & (keys > 0))
        return {int(room_ids[i]) if short else int(i) for i in np.flatnonzero(stay)}


@functools.cache
def math_library() -> ctypes.CDLL:
    """math.c built for this machine under names of its own, with array loops around its functions."""
    lines = ["#define INPAGE_MATH_NAME(name) test_##name", '#include "abi.h"', '#include "math.c"']
    for name in ("expf", "exp2f", "logf", "log2f", "sinf", "cosf", "powf"):
        more = name == "powf"
        signature = f"void loop_{name}(const float *x, {'const float *e, ' * more}float *y, int n)"
        lines += [f"{signature};", f"{signature} {{"]
        lines += [f"  for (int i = 0; i < n; i++) y[i] = test_{name}(x[i]{', e[i]' * more});", "}"]
    lines.append(
        "const inpage_kernel inpage_kernels[] = {0};\n"
        "const int32_t inpage_kernel_shares[] = {0}, inpage_kernel_count = 0;"
    )
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "loops.c", Path(folder) / "loops.so"
        source.write_text("\n".join(lines) + "\n")
        link.link_native([], source, out)
        return ctypes.CDLL(str(out))
