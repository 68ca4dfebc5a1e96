"""Reading an artifact's manifest.json, which is untrusted input, into the dataclasses of `inpage.format.schema`.

Checks types, sizes, offsets, overlaps, the shape of hashes, file names and formats; raises `ArtifactInvalid` with
the path of the field at fault (``tensors[3].bytes``).

Weights are one linear space of ``weights.bytes`` bytes, cut into consecutive shards. Tensors have absolute
offsets in that space, so loading is: write shard i at base + shard.offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ..errors import brief, quoted
from . import structure
from .formats import read_format
from .limits import ALIGN
from .schema import (
    MANIFEST_BYTES,
    SCHEMA,
    SHARD_BYTES,
    Architecture,
    EmbeddingRef,
    Exam,
    ExamAnswer,
    FileRef,
    Format,
    GraphCache,
    GraphFile,
    GraphRef,
    LevelRef,
    License,
    Manifest,
    MlcRef,
    Perplexity,
    Pruning,
    SamplingDefaults,
    Shard,
    SourceRef,
    SuperBlock,
    Tensor,
    TokenizerRef,
    Variant,
    Weights,
    tensor_bytes,
)
from .schemas import MANIFEST
from .structure import canonical_json, read_json, wrong

__all__ = [
    "SCHEMA",
    "SHARD_BYTES",
    "Architecture",
    "FileRef",
    "Format",
    "GraphRef",
    "LevelRef",
    "License",
    "Manifest",
    "MlcRef",
    "Perplexity",
    "Shard",
    "SourceRef",
    "SuperBlock",
    "Tensor",
    "TokenizerRef",
    "Variant",
    "Weights",
    "parse_manifest",
    "revision_of",
    "tensor_bytes",
]


def revision_of(manifest: Mapping[str, Any]) -> str:
    """sha256 (hex) of the canonical JSON of the manifest without its ``revision``."""
    return hashlib.sha256(canonical_json({k: v for k, v in manifest.items() if k != "revision"})).hexdigest()


def parse_manifest(data: bytes | str | Mapping[str, Any]) -> Manifest:
    """Check all that can be checked without the files. Raises `ArtifactInvalid`."""
    if isinstance(data, bytes | str):
        data = read_json(data, MANIFEST_BYTES, "manifest.json is", "manifest.json")
    m = structure.read(data, MANIFEST, "manifest")
    assert isinstance(data, Mapping)
    formats = {name: read_format(f, f"formats.{brief(name)}") for name, f in m["formats"].items()}
    weights = _weights(m["weights"])
    architecture = _architecture(m["architecture"])
    if architecture.labels and not m["tokenizer"]["eos"]:
        raise wrong("tokenizer.eos", "is empty: the first of it stands between the texts that a cross-encoder compares")
    manifest = Manifest(
        id=m["id"],
        name=m["name"],
        revision=m["revision"],
        license=License(**m["license"]),
        source=SourceRef(**m["source"]),
        architecture=architecture,
        tokenizer=_tokenizer(m["tokenizer"], architecture.vocab),
        chat_template=m["chat_template"],
        formats=formats,
        tensors=_tensors(m["tensors"], formats, weights.bytes),
        weights=weights,
        variants=_variants(m["variants"]),
        sampling=None if m["sampling"] is None else SamplingDefaults(**m["sampling"]),
        embedding=None if m["embedding"] is None else _embedding(m["embedding"]),
        graph=None if m["graph"] is None else _graph(m["graph"], architecture.layers, weights.bytes),
        mlc=None if m["mlc"] is None else _mlc(m["mlc"], weights.bytes),
        level=m["level"] or "",
        levels=_levels(m["levels"] or []),
        perplexity=None if m["perplexity"] is None else Perplexity(**m["perplexity"]),
        pruning=tuple(Pruning(**{**step, "layers": tuple(step["layers"] or ())}) for step in m["pruning"] or []),
        exam=None if m["exam"] is None else _exam(m["exam"], architecture.vocab),
    )
    _check_own_level(manifest)
    _check_files_distinct(manifest)
    if revision_of(data) != manifest.revision:
        raise wrong("revision", "the manifest does not hash to its own revision: it was altered")
    return manifest


def _architecture(a: dict[str, Any]) -> Architecture:
    if a["heads"] % a["kv_heads"]:
        why = f"{a['heads']} heads do not divide among {a['kv_heads']} key/value heads"
        raise wrong("architecture.kv_heads", why)
    if a["head_dim"] % 2:
        raise wrong("architecture.head_dim", "must be even")
    if a["encoder"] and not (a["pooling"] or a["labels"]):
        raise wrong("architecture.pooling", "is missing: an encoder answers with a vector or with scores")
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in a.items() if v is not None}
    return Architecture(**given)


def _tokenizer(t: dict[str, Any], vocab: int) -> TokenizerRef:
    ids = [("bos", t["bos"] or 0), *((f"eos[{i}]", v) for i, v in enumerate(t["eos"]))]
    for where, i in [*ids, *((f"special.{brief(text)}", v) for text, v in t["special"].items())]:
        if i >= vocab:
            raise wrong(f"tokenizer.{where}", f"{i} is outside the vocabulary of {vocab}")
    tables = None if t["tables"] is None else FileRef(**t["tables"])
    if t["add_eos"] and not t["eos"]:
        raise wrong("tokenizer.add_eos", "there is no eos to add")
    return TokenizerRef(**{**t, "eos": tuple(t["eos"]), "add_eos": bool(t["add_eos"]), "tables": tables})


def _embedding(e: dict[str, Any]) -> EmbeddingRef:
    if e["default_prompt"] is not None and e["default_prompt"] not in e["prompts"]:
        raise wrong("embedding.default_prompt", f"{quoted(e['default_prompt'])} is not one of the prompts")
    return EmbeddingRef(e["prompts"], e["default_prompt"], e["scores"] or "sigmoid", e["separators"] or 1)


def _graph(g: dict[str, Any], layers: int, space: int) -> GraphRef:
    if len(g["cache"]) != 2 * layers:
        raise wrong("graph.cache", f"has {len(g['cache'])} entries; {layers} layers have {2 * layers}")
    if len(set(g["inputs"])) < len(g["inputs"]):
        raise wrong("graph.inputs", "names an input twice")
    files, own = _files(g, "graph", space)
    cache = tuple(GraphCache(**names) for names in g["cache"])
    return GraphRef(g["bytes"], files, tuple(g["inputs"]), cache, g["cache_type"], g["logits"], own)


def _mlc(m: dict[str, Any], space: int) -> MlcRef:
    return MlcRef(m["bytes"], *_files(m, "mlc", space))


def _files(part: dict[str, Any], name: str, space: int) -> tuple[tuple[GraphFile, ...], Weights | None]:
    """The files behind the first ``bytes`` of the weight space, or of the part's own, which is the other."""
    own = None if part["weights"] is None else _weights(part["weights"], f"{name}.weights")
    space = own.bytes if own else space
    files, end = tuple(GraphFile(**file) for file in part["files"]), part["bytes"]
    paths: set[str] = set()
    for i, file in enumerate(files):
        at = f"{name}.files[{i}]"
        if file.path in paths:
            raise wrong(f"{at}.path", f"{quoted(file.path)} stands twice")
        paths.add(file.path)
        if file.offset % ALIGN or file.offset < end:
            raise wrong(f"{at}.offset", f"{file.offset} is not a multiple of {ALIGN} from {end} on")
        end = file.offset + file.bytes
    if end > space:
        raise wrong(f"{name}.{'files' if files else 'bytes'}", f"end at {end}, outside the {space} bytes of weights")
    return files, own


def _exam(e: dict[str, Any], vocab: int) -> Exam:
    if len(e["answers"]) >= len(e["ids"]):
        raise wrong("exam.answers", f"{len(e['answers'])} answers to {len(e['ids'])} ids; the first id is not guessed")
    for i, token in enumerate(e["ids"]):
        if token >= vocab:
            raise wrong(f"exam.ids[{i}]", f"{token} is outside the vocabulary of {vocab}")
    return Exam(tuple(e["ids"]), tuple(ExamAnswer(**answer) for answer in e["answers"]))


def _tensors(items: list[dict[str, Any]], formats: Mapping[str, Format], space: int) -> tuple[Tensor, ...]:
    out: list[Tensor] = []
    names: set[str] = set()
    end = 0
    for i, item in enumerate(items):
        at, t = f"tensors[{i}]", Tensor(**{**item, "shape": tuple(item["shape"])})
        if t.name in names:
            raise wrong(f"{at}.name", f"{quoted(t.name)} stands twice")
        names.add(t.name)
        if t.format not in formats:
            raise wrong(f"{at}.format", f"{quoted(t.format)} is not one of {', '.join(formats)}")
        try:
            need = tensor_bytes(formats[t.format], t.layout, t.shape)
        except ValueError as e:
            raise wrong(f"{at}.shape", str(e)) from e
        if t.bytes != need:
            raise wrong(f"{at}.bytes", f"{t.bytes}, but this shape and format need {need}")
        if t.offset % ALIGN:
            raise wrong(f"{at}.offset", f"{t.offset} is not a multiple of {ALIGN}")
        if t.offset < end:
            raise wrong(f"{at}.offset", f"{t.offset} lies before the end of the tensor before it ({end})")
        end = t.offset + t.bytes
        if end > space:
            raise wrong(f"{at}.offset", f"ends at {end}, outside the {space} bytes of weights")
        out.append(t)
    return tuple(out)


def _weights(w: dict[str, Any], field: str = "weights") -> Weights:
    total, end = w["bytes"], 0
    for i, shard in enumerate(w["shards"]):
        at = f"{field}.shards[{i}]"
        if shard["offset"] != end:
            raise wrong(f"{at}.offset", f"{shard['offset']}, but the shards before it end at {end}")
        end += shard["bytes"]
        if shard["bytes"] % ALIGN and end != total:
            raise wrong(f"{at}.bytes", f"{shard['bytes']} is not a multiple of {ALIGN}")
    if end != total:
        raise wrong(f"{field}.bytes", f"{total}, but the shards hold {end}")
    return Weights(total, tuple(Shard(**shard) for shard in w["shards"]))


def _variants(items: list[dict[str, Any]]) -> tuple[Variant, ...]:
    out: list[Variant] = []
    for i, v in enumerate(items):
        if any(v["name"] == o.name for o in out):
            raise wrong(f"variants[{i}].name", f"{quoted(v['name'])} stands twice")
        own = {"plan": v["plan"], "kernels": v["kernels"]}
        missing = [role for role, file in own.items() if file is None]
        if len(missing) == 1:
            raise wrong(f"variants[{i}].{missing[0]}", "is missing")
        files = {**({} if missing else own), **v["*"]}
        refs = {role: FileRef(**f) for role, f in files.items()}
        out.append(Variant(v["name"], v["backend"], tuple(v["requires"]), refs))
    return tuple(out)


def _levels(items: list[dict[str, Any]]) -> tuple[LevelRef, ...]:
    out: list[LevelRef] = []
    for i, v in enumerate(items):
        if any(v["name"] == o.name for o in out):
            raise wrong(f"levels[{i}].name", f"{quoted(v['name'])} stands twice")
        if i and v["manifest"] is None:
            raise wrong(f"levels[{i}].manifest", "is missing")
        manifest = FileRef(**v["manifest"]) if i else None
        out.append(LevelRef(v["name"], v["bytes"], tuple(v["variants"]), manifest, v["perplexity"]))
    return tuple(out)


def _check_own_level(m: Manifest) -> None:
    """What the list says of the level that this manifest describes."""
    if m.levels and m.levels[0] != m.listed():
        raise wrong("levels[0]", "is not what this manifest describes")


def _check_files_distinct(m: Manifest) -> None:
    """No two entries may claim one file: their hashes could not both hold, and a cache keys by name."""
    named = [("tokenizer.file", m.tokenizer.file), ("license.notices", m.license.notices)]
    named += [("tokenizer.tables.file", m.tokenizer.tables.file)] if m.tokenizer.tables else []
    named += [(f"{field}.file", shard.file) for field, shard in m.every_shard]
    for i, v in enumerate(m.variants):
        named += [(f"variants[{i}].{role}.file", f.file) for role, f in v.files.items()]
    named += [(f"levels[{i}].manifest.file", x.manifest.file) for i, x in enumerate(m.levels) if x.manifest]
    seen = {"manifest.json"}
    for field, file in named:
        if file.lower() in seen:
            raise wrong(field, f"{quoted(file)} is named twice")
        seen.add(file.lower())
