"""The exam that a model's GPU variants have to pass where they are loaded (web/engine/webgpu/exam.js): some tokens, and
what float32 on this machine's CPU says of those that follow the last of them."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inpage.engines.block_tables import pages_needed, tables_on
from inpage.engines.native import NativeEngine
from inpage.engines.protocol import SequenceInput
from inpage.format.manifest import parse_manifest
from inpage.format.schema import Exam, ExamAnswer, FileRef, Manifest, Variant

from .perplexity import run

REFERENCE = "native-f32"
_FED, _ANSWERS = 136, 12  # tokens: more than 128 rows, and than a span of attention, so that spans are merged
_PAGES = 512  # at most: layers of several groups have pages of their own, small ones of short convolutions
_STEP = 7919  # between ids: a prime, so that they lie all over the vocabulary
_LEAST = 1e-6  # a manifest's numbers are positive


def exam_of(folder: Path, level: str, compile_reference: Callable[[Manifest, Path], dict[str, bytes | Path]]) -> Exam:
    """Of one level of the artifact in ``folder``, which is whole. ``compile_reference(manifest, scratch)`` makes the
    files of its `REFERENCE`, a native variant with float32 activations."""
    place = folder / level if (folder / level / "manifest.json").is_file() else folder
    manifest = parse_manifest((place / "manifest.json").read_bytes())
    with tempfile.TemporaryDirectory(dir=folder, prefix=".exam-") as scratch:
        files = {}
        for name, content in compile_reference(manifest, Path(scratch)).items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            (Path(scratch) / name).write_bytes(data)
            file = FileRef(f"{Path(scratch).name}/{name}", len(data), hashlib.sha256(data).hexdigest())
            files[name.partition(".")[0]] = file
        variants = tuple(v for v in manifest.variants if v.name != REFERENCE)
        own = Variant(REFERENCE, "native", (), files)
        return run(_answered(folder, replace(manifest, variants=(*variants, own))))


async def _answered(folder: Path, manifest: Manifest) -> Exam:
    vocab = manifest.architecture.vocab
    engine = await NativeEngine.load(folder, manifest, variant=REFERENCE, max_pages=_PAGES, trust=True)
    try:
        fed = min(_FED, engine.info.context)
        ids = [(13 + _STEP * i) % vocab for i in range(fed + 1)]
        pages = list(range(pages_needed(engine.info, fed)))
        await engine.reserve_pages(len(pages))
        tables = tables_on(engine.info, fed, pages)
        first = fed - _ANSWERS
        for begin in range(0, first, engine.info.max_rows):
            end = min(begin + engine.info.max_rows, first)
            await engine.step([SequenceInput(ids[begin:end], begin, tables[0], tables=tables)])
        last = SequenceInput(ids[first:-1], first, tables[0], tables=tables, targets=ids[-_ANSWERS:])
        (out,) = await engine.step([last])
    finally:
        await engine.unload()
    answers = (
        ExamAnswer(argmax, max(margin, _LEAST), max(nll, _LEAST))
        for argmax, nll, margin in (out.scores or [])[-_ANSWERS:]
    )
    return Exam(tuple(ids), tuple(answers))
