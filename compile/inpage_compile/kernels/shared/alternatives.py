"""Kernels that do the same."""

from __future__ import annotations

from tvm import tirx


def alternatives(first: tirx.PrimFunc, *others: tirx.PrimFunc) -> tirx.PrimFunc:
    """``first``, knowing ``others`` that take the same arguments and leave the same bits: the device where it runs
    times all of them and chooses."""
    return first.with_attr("inpage.alternatives", list(others)) if others else first
