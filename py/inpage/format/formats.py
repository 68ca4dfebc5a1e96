"""What must hold between the fields of a number format, so that layout rows16 and the kernels can rely on it.

web/engine/format/formats.js checks the same.
"""

from __future__ import annotations

from typing import Any

from .schema import Format, SuperBlock
from .structure import wrong


def read_format(f: dict[str, Any], at: str) -> Format:
    """A format whose structure was checked. Raises `ArtifactInvalid` for what describes no format."""
    if f["type"] in ("float", "bfloat"):
        return _float(f, at)
    if f["bits"] > 8:
        raise wrong(f"{at}.bits", "a quant has at most 8 bits")
    if f["type"] == "int" and f["bits"] != 8:
        raise wrong(f"{at}.bits", "signed quants have 8 bits")
    if f["group"] not in (16, 32):
        raise wrong(f"{at}.group", "groups have 16 or 32 columns")
    sup = None if f["super"] is None else _super(f["super"], f["group"], f"{at}.super")
    least = (None,) if f["scale"] == "e8m0" else (None, "f16")
    if f["scale"] not in ((None,) if sup else ("f16", "e8m0")) or f["min"] not in ((None,) if sup else least):
        why = 'a group has an f16 scale and maybe an f16 min, or an e8m0 scale, unless "super" holds them'
        raise wrong(f"{at}.scale", why)
    if f["zero"] is None:
        raise wrong(f"{at}.zero", "is missing")
    if f["zero"] >> f["bits"] or (f["zero"] and f["type"] == "int"):
        raise wrong(f"{at}.zero", f"{f['zero']} is no quant of {f['bits']} bits that could stand for 0")
    if f["table"] is not None and (f["type"] != "uint" or f["bits"] != 4 or f["zero"]):
        raise wrong(f"{at}.table", "is for unsigned quants of 4 bits without a zero")
    table = None if f["table"] is None else tuple(f["table"])
    return Format(f["type"], f["bits"], f["group"], f["scale"], f["min"], f["zero"], sup, table)


def _float(f: dict[str, Any], at: str) -> Format:
    if f["bits"] not in ((16,) if f["type"] == "bfloat" else (16, 32)) or f["group"] != 1:
        raise wrong(f"{at}.bits", "a float has 16 or 32 bits, a bfloat 16, and neither has groups")
    for name in ("scale", "min", "super", "table"):
        if f[name] is not None:
            raise wrong(f"{at}.{name}", "a float has none")
    if f["zero"]:
        raise wrong(f"{at}.zero", "a float has none")
    return Format(f["type"], f["bits"])


def _super(s: dict[str, Any], group: int, at: str) -> SuperBlock:
    if s["size"] % 32:
        raise wrong(f"{at}.size", "is not a multiple of 32")
    if s["scale_bits"] not in (4, 6, 8):
        raise wrong(f"{at}.scale_bits", "sub-scales have 4, 6 or 8 bits")
    if (s["min"] is None) != (s["min_bits"] == 0):
        raise wrong(f"{at}.min_bits", "sub-minima and their f16 scale come together")
    if s["min_bits"] not in (0, s["scale_bits"]):
        raise wrong(f"{at}.min_bits", "sub-minima are as wide as sub-scales")
    if s["min"] is None and s["size"] // group % 2:
        raise wrong(f"{at}.size", "sub-scales are stored in pairs")
    zero, signed = s["zero"] or 0, bool(s["signed"])
    if zero >> s["scale_bits"] or (signed and zero):
        raise wrong(f"{at}.zero", f"{zero} is no sub-scale of {s['scale_bits']} bits that could stand for 0")
    if signed and (s["scale_bits"] != 8 or s["min"] is not None):
        raise wrong(f"{at}.signed", "signed sub-scales have 8 bits and no minima beside them")
    return SuperBlock(**{**s, "zero": zero, "signed": signed})
