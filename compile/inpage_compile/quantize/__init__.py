"""Number formats: GGML blocks in, the artifact's packed layout out, without loss; both
back to float32, and floats rounded to them."""

from .formats import FORMATS, GGML_FORMATS, NAMES, format_of
from .ggml import dequantize, read_groups
from .groups import Groups, joined
from .rounding import quantize
from .rows16 import pack, unpack

__all__ = [
    "FORMATS",
    "GGML_FORMATS",
    "NAMES",
    "Groups",
    "dequantize",
    "format_of",
    "joined",
    "pack",
    "quantize",
    "read_groups",
    "unpack",
]
