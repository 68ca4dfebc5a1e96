"""What each level of precision costs: size, perplexity and speed of a model at all of them.

SOURCE is what inpage compile takes, but for graphs (onnx:FOLDER), whose precisions are files of their own. Each level
is compiled for this machine, in a folder that is deleted again, and reads a chapter of Alice in Wonderland; speed is
that of one answer. With --sizes nothing is compiled."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..errors import InvalidRequest, Unsupported
from . import paths
from .compile import names
from .progress import Progress


@dataclass(frozen=True, slots=True)
class Listed:
    """``bytes``: of weights. ``cost``: by how much the perplexity is above the source's: 0.02 for 2 %. ``decode_tps``:
    tokens a second. ``instead``: which matrices have another format than the level's, and why."""

    level: str
    bytes: int
    perplexity: float | None = None
    cost: float | None = None
    decode_tps: float | None = None
    instead: tuple[str, ...] = ()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", metavar="SOURCE", default=paths.DEFAULT_MODEL, help="default: %(default)s")
    parser.add_argument("--levels", metavar="LIST", help="separated by commas (default: all that differ)")
    parser.add_argument("--sizes", action="store_true", help="sizes and formats alone: nothing is compiled or measured")
    parser.add_argument("--json", action="store_true", help="print one array of objects")


def run(args: argparse.Namespace) -> int:
    listed = _listed(args.source, names(args.levels or ""), args.sizes, Progress(quiet=args.json))
    if args.json:
        print(json.dumps([asdict(each) for each in listed]))
        return 0
    rows = [("level", "size", "perplexity", "", "tokens/s")[: 2 if args.sizes else 5], *map(_row, listed)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (text.rjust(width) for text, width in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    for each in listed:
        for line in each.instead:
            print(f"{each.level}: {line}")
    return 0


def _row(each: Listed) -> tuple[str, ...]:
    size = each.level, f"{each.bytes / 1e6:.1f} MB"
    if each.perplexity is None or each.cost is None or each.decode_tps is None:
        return size
    cost = "" if each.level == "source" else f"{each.cost * 100:+.1f} %"
    return *size, f"{each.perplexity:.3f}", cost, f"{each.decode_tps:.1f}"


def _listed(ref: str, wanted: Sequence[str], sizes: bool, progress: Progress) -> list[Listed]:
    """The largest first; the source, for comparison, is among them."""
    try:
        from inpage_compile.artifact.levels import LEVELS, SOURCE, distinct, fallbacks
        from inpage_compile.artifact.scratch import scratch
        from inpage_compile.artifact.weights import size
        from inpage_compile.measure import perplexity
        from inpage_compile.pipeline import compile_model
        from inpage_compile.sources import open_source
        from inpage_compile.sources.onnx import onnx_folder
    except ModuleNotFoundError as error:
        raise Unsupported(f"levels need more packages ({error.name}): pip install 'inpage[compile]'") from error
    if onnx_folder(ref) is not None:
        raise InvalidRequest(f"{ref} is a graph, which is carried as it is: it has no levels to list", field="source")
    model = open_source(ref)
    if model.architecture.encoder and not sizes:
        raise InvalidRequest(f"{model.id} predicts no text, so that only --sizes can be listed", field="source")
    levels = distinct(model, [SOURCE, *wanted] if wanted else LEVELS)
    bytes_ = {name: size(source) for name, source in levels.items()}
    order = sorted(levels, key=lambda name: bytes_[name], reverse=True)
    instead = {name: tuple(fallbacks(source)) for name, source in levels.items()}
    if sizes:
        return [Listed(name, bytes_[name], instead=instead[name]) for name in order]

    def show(phase: str, done: int, total: int) -> None:
        progress({"phase": phase, "loaded": done, "total": total})

    with scratch(paths.models() / model.id, "levels") as folder:
        try:
            made = compile_model(
                ref, folder / "levels", variants=("native",), levels=tuple(order), accept_license=True,
                progress=show,
            )  # fmt: skip
            show("perplexity", 0, 1)
            several = order if order[1:] else [""]
            found = dict(zip(order, perplexity.measure(made, several, "native", speed=True), strict=True))
        finally:
            progress.end()
    least = found[SOURCE].perplexity
    return [
        Listed(name, bytes_[name], each.perplexity, each.perplexity / least - 1, each.decode, instead[name])
        for name, each in found.items()
    ]
