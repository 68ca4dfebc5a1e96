"""GGUF files: metadata, tensors, tokenizer, chat template. Read with the `gguf` package after a bounds check."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from gguf.gguf_reader import ReaderTensor

from inpage.errors import SourceInvalid, quoted
from inpage.format.schema import Architecture, EmbeddingRef, SourceRef
from inpage.format.structure import one_line

from ..families import FAMILIES, EncoderFamily, Family, family_of
from ..families.family import check_tensors
from ..families.rope import FACTORS, LONG, SHORT
from ..gguf.metadata import Metadata
from ..gguf.reading import read_gguf
from ..quantize import format_of
from ..quantize.tensor import SourceTensor
from ..tokenizers.gguf import build_tokenizer
from .base import LicenseInfo, Source
from .problems import Problems
from .sampling import from_gguf

_TEMPLATE = "tokenizer.chat_template"


def open_gguf(
    path: Path,
    *,
    origin: SourceRef | None = None,
    sha256: str | None = None,
    license_text: str | None = None,
    licensed: Callable[[LicenseInfo], object] = lambda _: None,
) -> Source:
    """Open a GGUF model. ``sha256``: what the file must hash to; ``licensed`` raises `SourceInvalid` for a licence
    that will be refused, which is told with what else is wrong. Raises `SourceInvalid` with the field at fault, and
    where several things are, with all of them."""
    file = read_gguf(path, sha256)
    meta, problems = file.meta, Problems()
    family = problems.of(lambda: family_of(meta.text("general.architecture"), "general.architecture"))
    tensors = problems.of(lambda: _tensors(each for reader in file.readers for each in reader.tensors))
    factors = {name: tensors.pop(name) for name in (FACTORS, SHORT, LONG) if name in tensors} if tensors else {}
    keys = None if family is None else family.keys(meta)
    if family is not None and keys is not None and tensors is not None:
        stored = tensors
        tensors = problems.of(lambda: family.adapt(keys, stored))
    read = None
    if family is not None and keys is not None and tensors is not None:
        read = problems.of(lambda: family.read(keys, tensors, factors))
    if read is not None and tensors is not None and family is not None:
        if read[0].encoder:
            tensors.pop("output", None)  # nothing is asked of it
        problems.of(lambda: _check(family, read[0], tensors))
    embedding = (tensors or {}).get("token_embd")
    rows = embedding.shape[0] if embedding is not None else len(meta.get("tokenizer.ggml.tokens") or ())
    tokenizer = problems.of(lambda: build_tokenizer(meta, rows, bool(read and read[0].encoder)))
    terms = _license(meta, license_text)
    if problems.found:
        problems.of(lambda: licensed(terms))
    problems.check()
    assert tensors is not None and keys is not None and read is not None and tokenizer is not None
    architecture, rope = read
    sampling, notes = from_gguf(meta)
    notes += _other_templates(meta)
    return Source(
        id=re.sub(r"[^a-z0-9._-]+", "-", file.name.lower()).strip("._-") or "model",
        name=one_line(meta.text("general.name", file.name)) or "model",
        origin=origin or SourceRef("gguf", one_line(path.name), one_line(path.name), file.sha256),
        architecture=architecture,
        tensors=tensors,
        tokenizer=tokenizer,
        chat_template=meta.text(_TEMPLATE, "") or None,
        license=terms,
        rope=rope,
        sampling=sampling,
        embedding=_texts(family, architecture, meta),
        warnings=tuple(
            f"{path.name}: {note}"
            for note in (
                *keys.notes,
                *(f"what {key[:80]!r} says is not known here and left out" for key in keys.unread()),
                *notes,
            )
        ),
    )


def _texts(family: Family | None, a: Architecture, meta: Metadata) -> EmbeddingRef | None:
    """A file of this kind names no prompts."""
    if not a.encoder:
        return None
    # GGUF files of XLM-RoBERTa say the architecture `bert`; only their tokenizer differs.
    if family is FAMILIES["bert"] and meta.get("tokenizer.ggml.model") == "t5":
        family = FAMILIES["xlm-roberta"]
    return family.texts() if isinstance(family, EncoderFamily) else EmbeddingRef({})


def _other_templates(meta: Metadata) -> list[str]:
    """Chat templates beside the one that is taken."""
    start = f"{_TEMPLATE}."
    names = sorted(quoted(key.removeprefix(start)) for key in meta.names() if key.startswith(start))
    taken = "only the one without a name is taken" if meta.get(_TEMPLATE) else "none is taken: none is without a name"
    return [f"of the chat templates {taken}, not {', '.join(names[:8])}"] if names else []


def _check(family: Family, a: Architecture, tensors: Mapping[str, SourceTensor]) -> None:
    if not isinstance(family, EncoderFamily):
        check_tensors(a, tensors)
        return
    for name, what in family.misplaced(a, tensors):
        raise SourceInvalid(f"tensor {name[:80]} {what}", field=name)


def _tensors(found: Iterable[ReaderTensor]) -> dict[str, SourceTensor]:
    """By name. Types that cannot be read are named together."""
    tensors: dict[str, SourceTensor] = {}
    refused: dict[str, list[SourceInvalid]] = {}
    for each in found:
        try:
            tensor = _tensor(each)
        except SourceInvalid as error:
            refused.setdefault(str(each.tensor_type.name), []).append(error)
            continue
        if tensor.name in tensors:
            raise SourceInvalid(f"tensor {tensor.name} stands twice", field=tensor.name)
        tensors[tensor.name] = tensor
    if refused:
        first = next(iter(refused.values()))[0]
        counts = ", ".join(f"{len(errors)} of {kind}" for kind, errors in refused.items())
        more = f" (in all {counts})" if sum(map(len, refused.values())) > 1 else ""
        raise SourceInvalid(f"{first}{more}", field=first.field)
    return tensors


def _tensor(t: ReaderTensor) -> SourceTensor:
    name = t.name.removesuffix(".weight")
    shape = tuple(int(n) for n in reversed(t.shape))
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) > 2:
        raise SourceInvalid(f"{name}: {len(shape)} dimensions, expected 1 or 2", field=name)
    return SourceTensor(name, shape, format_of(t.tensor_type.name, name), t.data)


def _license(meta: Metadata, text: str | None) -> LicenseInfo:
    author = one_line(meta.text("general.author", "") or meta.text("general.organization", ""))
    name = one_line(meta.text("general.name", ""))
    notice = f"{name} by {author}" if name and author else None
    return LicenseInfo(one_line(meta.text("general.license", "")) or None, text, notice)
