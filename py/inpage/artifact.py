"""Reading an artifact's manifest.json, which is untrusted input, into the dataclasses of `inpage.schema`.

Checks types, sizes, offsets, overlaps, the shape of hashes, file names and formats; raises `ArtifactInvalid` with
the path of the field at fault (``tensors[3].bytes``).

Weights are one linear space of ``weights.bytes`` bytes, cut into consecutive shards. Tensors have absolute
offsets in that space, so loading is: write shard i at base + shard.offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from ._checks import HASH, LIMIT, NAME, PATH, Reader, canonical_json, read_json
from .errors import ArtifactInvalid
from .limits import FILE_BYTES
from .schema import (
    ALIGN,
    ARCHITECTURE_LIMITS,
    BACKENDS,
    FAMILIES,
    LAYOUTS,
    MANIFEST_BYTES,
    SCHEMA,
    SHARD_BYTES,
    SOURCE_KINDS,
    Architecture,
    FileRef,
    Format,
    LevelRef,
    License,
    Manifest,
    Shard,
    SourceRef,
    SuperBlock,
    Tensor,
    TokenizerRef,
    Variant,
    Weights,
    tensor_bytes,
)

__all__ = [
    "ALIGN",
    "SCHEMA",
    "SHARD_BYTES",
    "Architecture",
    "FileRef",
    "Format",
    "LevelRef",
    "License",
    "Manifest",
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
    root = Reader(data, "")
    schema = root.integer("schema", 0)
    if schema != SCHEMA:
        raise ArtifactInvalid(f"schema {schema} is not the supported {SCHEMA}: compile the model again", field="schema")
    formats = {k: _format(root.child("formats").child(k)) for k in root.child("formats").names(NAME)}
    weights = _weights(root.child("weights"))
    architecture = _architecture(root.child("architecture"))
    manifest = Manifest(
        id=root.text("id", NAME),
        name=root.line("name"),
        revision=root.text("revision", HASH),
        license=_license(root.child("license")),
        source=_source(root.child("source")),
        architecture=architecture,
        tokenizer=_tokenizer(root.child("tokenizer"), architecture.vocab),
        chat_template=root.optional_text("chat_template"),
        formats=formats,
        tensors=_tensors(root.items("tensors"), formats, weights.bytes),
        weights=weights,
        variants=_variants(root.items("variants")),
        level=root.text("level", NAME) if "level" in root.value else "",
        levels=_levels(root.items("levels")) if "levels" in root.value else (),
    )
    _check_own_level(manifest)
    _check_files_distinct(manifest)
    if revision_of(root.value) != manifest.revision:
        raise ArtifactInvalid("the manifest does not hash to its own revision: it was altered", field="revision")
    return manifest


def _architecture(r: Reader) -> Architecture:
    whole = {name: r.integer(name, 1, limit) for name, limit in ARCHITECTURE_LIMITS.items()}
    a = Architecture(
        family=r.choice("family", FAMILIES),
        rope_theta=r.number("rope_theta"),
        norm_eps=r.number("norm_eps"),
        tied=r.flag("tied"),
        **whole,
    )
    if a.heads % a.kv_heads:
        raise r.wrong("kv_heads", f"{a.heads} heads do not divide among {a.kv_heads} key/value heads")
    if a.head_dim % 2:
        raise r.wrong("head_dim", "must be even")
    return a


def _license(r: Reader) -> License:
    size = r.integer("bytes", 1, LIMIT) if "bytes" in r.value else None
    return License(r.line("id"), r.text("notices", PATH), size, r.text("sha256", HASH) if "sha256" in r.value else None)


def _source(r: Reader) -> SourceRef:
    return SourceRef(r.choice("kind", SOURCE_KINDS), r.line("ref"), r.line("file"), r.text("sha256", HASH))


def _tokenizer(r: Reader, vocab: int) -> TokenizerRef:
    bos = r.value.get("bos")
    eos = r.items("eos")
    special = r.child("special")
    return TokenizerRef(
        file=r.text("file", PATH),
        bytes=r.integer("bytes", 1, FILE_BYTES["tokenizer"]),
        sha256=r.text("sha256", HASH),
        bos=None if bos is None else r.integer("bos", 0, vocab - 1),
        eos=tuple(eos.integer(i, 0, vocab - 1) for i in eos.indices()),
        add_bos=r.flag("add_bos"),
        special={k: special.integer(k, 0, vocab - 1) for k in special.names()},
    )


def _format(r: Reader) -> Format:
    kind = r.choice("type", ("float", "uint", "int"))
    bits = r.integer("bits", 1, 32)
    if kind == "float":
        if bits not in (16, 32) or r.integer("group", 1, 1) != 1 or r.value.get("scale") is not None:
            raise r.wrong("bits", "a float has 16 or 32 bits and no groups")
        return Format(kind, bits)
    if bits > 8:
        raise r.wrong("bits", "a quant has at most 8 bits")
    group = r.integer("group", 1, 256)
    if group not in (16, 32):
        raise r.wrong("group", "groups have 16 or 32 columns")
    sup = _super(r.child("super"), group) if r.value.get("super") is not None else None
    scale, minimum = r.optional_text("scale"), r.optional_text("min")
    if scale != (None if sup else "f16") or minimum not in ((None,) if sup else (None, "f16")):
        raise r.wrong("scale", 'a group has an f16 scale and maybe an f16 min, unless "super" holds them')
    return Format(kind, bits, group, scale, minimum, r.integer("zero", 0, 255), sup)


def _super(r: Reader, group: int) -> SuperBlock:
    s = SuperBlock(
        size=r.integer("size", 32, 1024),
        scale_bits=r.integer("scale_bits", 1, 8),
        min_bits=r.integer("min_bits", 0, 8),
        scale=r.choice("scale", ("f16",)),
        min=None if r.value.get("min") is None else r.choice("min", ("f16",)),
    )
    if s.size % group:
        raise r.wrong("size", f"not a multiple of the group of {group}")
    if (s.min is None) != (s.min_bits == 0):
        raise r.wrong("min_bits", "sub-minima and their f16 scale come together")
    return s


def _tensors(items: Reader, formats: Mapping[str, Format], space: int) -> tuple[Tensor, ...]:
    out: list[Tensor] = []
    names: set[str] = set()
    end = 0
    for i in items.indices():
        r = items.child(i)
        shape = r.items("shape")
        t = Tensor(
            name=r.text("name", NAME),
            shape=tuple(shape.integer(k, 1, 1 << 31) for k in shape.indices()),
            format=r.choice("format", tuple(formats)),
            layout=r.choice("layout", LAYOUTS),
            offset=r.integer("offset", 0, LIMIT),
            bytes=r.integer("bytes", 1, LIMIT),
        )
        if t.name in names:
            raise r.wrong("name", f"{t.name!r} stands twice")
        names.add(t.name)
        try:
            need = tensor_bytes(formats[t.format], t.layout, t.shape)
        except ValueError as e:
            raise r.wrong("shape", str(e)) from e
        if t.bytes != need:
            raise r.wrong("bytes", f"{t.bytes}, but this shape and format need {need}")
        if t.offset % ALIGN:
            raise r.wrong("offset", f"{t.offset} is not a multiple of {ALIGN}")
        if t.offset < end:
            raise r.wrong("offset", f"{t.offset} lies before the end of the tensor before it ({end})")
        end = t.offset + t.bytes
        if end > space:
            raise r.wrong("offset", f"ends at {end}, outside the {space} bytes of weights")
        out.append(t)
    return tuple(out)


def _weights(r: Reader) -> Weights:
    total = r.integer("bytes", 1, LIMIT)
    items = r.items("shards")
    out: list[Shard] = []
    end = 0
    for i in items.indices():
        s = items.child(i)
        shard = Shard(
            s.text("file", PATH),
            s.integer("offset", 0, LIMIT),
            s.integer("bytes", 1, SHARD_BYTES),
            s.text("sha256", HASH),
        )
        if shard.offset != end:
            raise s.wrong("offset", f"{shard.offset}, but the shards before it end at {end}")
        end += shard.bytes
        if shard.bytes % ALIGN and end != total:
            raise s.wrong("bytes", f"{shard.bytes} is not a multiple of {ALIGN}")
        out.append(shard)
    if end != total:
        raise r.wrong("bytes", f"{total}, but the shards hold {end}")
    return Weights(total, tuple(out))


def _variants(items: Reader) -> tuple[Variant, ...]:
    out: list[Variant] = []
    for i in items.indices():
        r = items.child(i)
        requires = r.items("requires")
        files = {}
        for role in r.names():
            if role not in ("name", "backend", "requires"):
                f = r.child(role)
                most = FILE_BYTES.get(role, FILE_BYTES["kernels"])
                files[role] = FileRef(f.text("file", PATH), f.integer("bytes", 1, most), f.text("sha256", HASH))
        v = Variant(
            name=r.text("name", NAME),
            backend=r.choice("backend", BACKENDS),
            requires=tuple(requires.line(k) for k in requires.indices()),
            files=files,
        )
        if any(v.name == o.name for o in out):
            raise r.wrong("name", f"{v.name!r} stands twice")
        for role in ("plan", "kernels"):
            if role not in files:
                raise r.wrong(role, "is missing")
        out.append(v)
    return tuple(out)


def _levels(items: Reader) -> tuple[LevelRef, ...]:
    out: list[LevelRef] = []
    for i in items.indices():
        r = items.child(i)
        variants = r.items("variants")
        names = tuple(variants.text(k, NAME) for k in variants.indices())
        level = LevelRef(r.text("name", NAME), r.integer("bytes", 1, LIMIT), names, _manifest_of(r) if i else None)
        if any(level.name == o.name for o in out):
            raise r.wrong("name", f"{level.name!r} stands twice")
        out.append(level)
    return tuple(out)


def _manifest_of(r: Reader) -> FileRef:
    f = r.child("manifest")
    return FileRef(f.text("file", PATH), f.integer("bytes", 1, MANIFEST_BYTES), f.text("sha256", HASH))


def _check_own_level(m: Manifest) -> None:
    """What the list says of the level that this manifest describes."""
    if m.levels:
        own = LevelRef(m.level, m.weights.bytes, tuple(v.name for v in m.variants))
        if m.levels[0] != own:
            raise ArtifactInvalid("levels[0]: is not what this manifest describes", field="levels[0]")


def _check_files_distinct(m: Manifest) -> None:
    """No two entries may claim one file: their hashes could not both hold, and a cache keys by name."""
    named = [("tokenizer.file", m.tokenizer.file), ("license.notices", m.license.notices)]
    named += [(f"weights.shards[{i}].file", s.file) for i, s in enumerate(m.weights.shards)]
    for i, v in enumerate(m.variants):
        named += [(f"variants[{i}].{role}.file", f.file) for role, f in v.files.items()]
    named += [(f"levels[{i}].manifest.file", x.manifest.file) for i, x in enumerate(m.levels) if x.manifest]
    seen = {"manifest.json"}
    for field, file in named:
        if file.lower() in seen:
            raise ArtifactInvalid(f"{field}: {file!r} is named twice", field=field)
        seen.add(file.lower())
