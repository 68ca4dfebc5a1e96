"""List models: those that are compiled here, and those that `inpage compile` knows by name.

Of each its size, the longest context, its licence, and whether this machine's memory holds it. Sizes of models that
were not fetched are about what comes over the network; nothing is asked for."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from ..errors import InpageError, Unsupported
from ..format.manifest import parse_manifest
from . import paths

_LEAST_CONTEXT = 512  # tokens that a conversation must have room for
_BESIDE = 300 << 20  # Python, arenas, vocabulary


@dataclass(frozen=True, slots=True)
class Listed:
    """``needs``: bytes of memory, about. ``holds``: whether this machine has them; None where that is not known."""

    id: str
    name: str
    bytes: int | None
    context: int | None
    license: str
    compiled: bool
    source: str
    needs: int | None
    holds: bool | None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one array of objects")


def run(args: argparse.Namespace) -> int:
    memory = _memory()
    listed = list(_compiled(memory))
    known = {model.id for model in listed}
    listed += [model for model in _recipes(memory) if model.id not in known]
    if args.json:
        print(json.dumps([asdict(model) for model in listed]))
        return 0
    rows = [("model", "size", "context", "licence", "")]
    rows += [(m.id, _size(m), str(m.context or ""), m.license, _verdict(m, memory)) for m in listed]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    for row in rows:
        print("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[4]]).rstrip())
    return 0


def _compiled(memory: int | None) -> Iterator[Listed]:
    for folder in paths.compiled():
        try:
            m = parse_manifest((folder / "manifest.json").read_bytes())
        except (InpageError, OSError):
            continue  # `inpage compile` says what is wrong with it
        a = m.architecture
        pages = 4 * a.layers * a.kv_heads * a.head_dim * min(_LEAST_CONTEXT, a.context)
        needs = m.weights.bytes + pages + _BESIDE
        holds = None if memory is None else needs <= memory
        yield Listed(m.id, m.name, m.weights.bytes, a.context, m.license.id, True, m.source.ref, needs, holds)


def _recipes(memory: int | None) -> Iterator[Listed]:
    try:
        from inpage_compile.sources.recipe import recipes
    except ModuleNotFoundError as error:
        raise Unsupported(f"listing needs more packages ({error.name}): pip install 'inpage[compile]'") from error
    for recipe in recipes():
        if recipe.shape is None:
            size = recipe.bytes
            needs = size * 11 // 10 + _BESIDE if size else None
            holds = None if memory is None or needs is None else needs <= memory
            terms = recipe.license or ""
            yield Listed(recipe.id, recipe.name, size, recipe.context, terms, False, recipe.source, needs, holds)


def _memory() -> int | None:
    """Bytes of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _size(model: Listed) -> str:
    if model.bytes is None:
        return ""
    text = f"{model.bytes / 1e9:.1f} GB" if model.bytes >= 1e9 else f"{model.bytes / 1e6:.0f} MB"
    return text if model.compiled else f"~{text}"


def _verdict(model: Listed, memory: int | None) -> str:
    if model.holds is False and model.needs is not None and memory is not None:
        return f"needs {model.needs / 1e9:.1f} GB of memory, there are {memory / 1e9:.1f}"
    return "compiled" if model.compiled else f"inpage compile {model.id}"
