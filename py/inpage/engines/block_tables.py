"""The block tables of a sequence on an engine whose layers form groups: one a group. In the sequence's row of the
plan's table they stand one behind the other, as many columns of each as a whole context has pages."""

from __future__ import annotations

from collections.abc import Sequence

from ..format.plan_types import page_sizes, sequence_pages
from .protocol import EngineInfo


def first_columns(context: int, sizes: Sequence[int]) -> list[int]:
    """Where each table begins in a sequence's row."""
    out = [0]
    for size in sizes[:-1]:
        out.append(out[-1] + -(-context // size))
    return out


def pages_needed(info: EngineInfo, tokens: int) -> int:
    """Pages of a sequence of so many tokens, those of all groups together."""
    return sequence_pages(tokens, info.page_tokens, info.groups)


def tables_on(info: EngineInfo, tokens: int, pages: Sequence[int]) -> list[Sequence[int]]:
    """The tables of such a sequence on so many ``pages``."""
    out: list[Sequence[int]] = []
    at = 0
    for size in page_sizes(info.page_tokens, info.groups):
        end = at + -(-tokens // size)
        out.append(pages[at:end])
        at = end
    return out
