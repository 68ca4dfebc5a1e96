"""Writes an artifact folder: shards, tokenizer, notices, variants and, last of all, the manifest.

Everything is written to a hidden sibling folder and renamed into place by `finish`, so that no half-written
artifact ever has the artifact's name. Where it carries several levels, the best one's manifest is the artifact's own
and names the others, which lie in folders of their name; weights that levels share are sections stored once.
A record of what it was made from lies beside the manifest; `is_current` compares it, so that an unchanged recompile
only hashes files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.engines.native_trust import RECORD, STAMPS, stamp
from inpage.errors import InvalidRequest, StorageFull
from inpage.format.limits import ALIGN
from inpage.format.manifest import parse_manifest, revision_of
from inpage.format.schema import (
    SCHEMA,
    SHARD_BYTES,
    Architecture,
    EmbeddingRef,
    Exam,
    Format,
    GraphRef,
    Manifest,
    MlcRef,
    Perplexity,
    Pruning,
    SamplingDefaults,
    Tensor,
)

from ..quantize import FORMATS
from ..sources import Source
from ..tokenizers.tables import tables_of
from .checks import files_in, foreign, is_current, load_levels, load_manifest, verify
from .licenses import check_license, notices
from .scratch import beside, remove_leftovers

__all__ = ["ArtifactWriter", "Progress", "is_current", "load_levels", "load_manifest", "verify"]

_SECTION_ALIGN = 1 << 14  # so that the next section's shards can be mapped, whatever the system's pages are
Progress = Callable[[str, int, int], None]


class ArtifactWriter:
    """Use as a context manager: leaving it without `finish` removes what was written.

    ``progress(phase, done, total)`` is called with bytes for the phase "weights". ``accept_license`` acknowledges
    a licence that is unknown or none. ``levels``: what it will carry, the best first; "": the only one, without a name;
    ``pruning``: what was left out of the source. Raises `SourceInvalid` (field ``license``) without it, and
    `InvalidRequest` where ``out`` exists and is not an artifact."""

    def __init__(
        self,
        out: Path,
        source: Source,
        *,
        fingerprint: str = "",
        accept_license: bool = False,
        progress: Progress | None = None,
        levels: Sequence[str] = ("",),
        pruning: Sequence[Pruning] = (),
    ) -> None:
        self._out = out.resolve()
        if self._out.exists() and (why := foreign(self._out)):
            raise InvalidRequest(f"{out} exists and is not replaced, as {why}", field="out")
        self._license = check_license(source.license, accept_license)
        self._source = source
        self._fingerprint = fingerprint
        self._progress = progress
        self._pruning = pruning
        self.tensors: dict[str, list[Tensor]] = {level: [] for level in levels}  # written so far, of each level
        self._variants: dict[str, list[dict[str, Any]]] = {level: [] for level in levels}
        self._weights: dict[str, dict[str, Any]] = {level: {"bytes": 0, "shards": []} for level in levels}
        self._measured: Mapping[str, Perplexity] = {}  # of each level
        self._exams: Mapping[str, Exam] = {}
        # What engines without a plan are to know, by the manifest's field and level; and their weights apart.
        self._parts: dict[tuple[str, str], GraphRef | MlcRef] = {}
        self._apart: dict[tuple[str, str], dict[str, Any]] = {}
        self._section: Sequence[str] = ()  # levels that have the section being written
        self._part = ""  # whose weights apart it is of
        self._out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self._out)
        self._folder = beside(self._out, "partial")
        self._folder.mkdir()
        (self._folder / "weights").mkdir()
        self._shards = _ShardWriter(self._folder, 0)

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shards.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def report(self, phase: str, done: int, total: int) -> None:
        """Pass progress on to whoever asked for it."""
        if self._progress:
            self._progress(phase, done, total)

    def check_room(self, weights: int) -> None:
        """Raise `StorageFull` where the disk has not so many bytes left."""
        free = shutil.disk_usage(self._folder).free
        if weights > free:
            raise StorageFull(
                f"{self._out.name} needs {weights} bytes of disk in {self._out.parent}; {free} are free", field="out"
            )

    def begin_section(self, levels: Sequence[str], part: str = "") -> None:
        """What comes now are weights of these levels. ``part``: not the model's, but those apart of its "graph" or
        "mlc"."""
        if self._section:
            self._end_section(_SECTION_ALIGN)
        self._section, self._part = levels, part
        if part:
            self._apart |= {(part, level): {"bytes": 0, "shards": []} for level in levels}

    def _end_section(self, align: int) -> None:
        size, shards = self._shards.finish(align)
        for level in self._section:
            weights = self._apart[self._part, level] if self._part else self._weights[level]
            weights["shards"] += [shard | {"offset": weights["bytes"] + shard["offset"]} for shard in shards]
            weights["bytes"] += size
        self._shards = _ShardWriter(self._folder, self._shards.number + 1)

    def add_tensor(self, entry: Tensor, data: npt.NDArray[Any]) -> None:
        """Append a tensor's bytes (uint8 [entry.bytes]) at its offset in the section; they come in order of offsets."""
        if data.nbytes != entry.bytes:
            raise ValueError(f"{entry.name}: {data.nbytes} bytes, planned {entry.bytes}")
        self._shards.seek(entry.offset)
        self._shards.write(memoryview(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data))
        for level in self._section:
            self.tensors[level].append(replace(entry, offset=self._weights[level]["bytes"] + entry.offset))

    def add_bytes(self, offset: int, data: memoryview) -> None:
        """Append bytes that are no tensor of ours at their offset in the section; they come in order of offsets."""
        self._shards.seek(offset)
        self._shards.write(data)

    def set_part(self, level: str, part: GraphRef | MlcRef) -> None:
        """What ONNX Runtime or MLC's library is to know of the bytes of this level."""
        self._parts["graph" if isinstance(part, GraphRef) else "mlc", level] = part

    def add_variant(
        self, name: str, backend: str, requires: list[str], files: Mapping[str, bytes | Path], level: str | None = None
    ) -> None:
        """Add a compiled form of the model at a level, by default the best. ``files``: file name → content, or a file
        to copy; its role in the manifest is the name without suffix ("plan.json" → plan, "kernels.wasm" → kernels)."""
        entry: dict[str, Any] = {"name": name, "backend": backend, "requires": list(requires)}
        best = next(iter(self.tensors))
        level = best if level is None else level
        place = name if level == best else f"{level}/{name}"
        (self._folder / place).mkdir(parents=True)
        for file, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            entry[file.partition(".")[0]] = self._write(f"{place}/{file}", data)
        self._variants[level].append(entry)

    def levels_with(self, backend: str) -> list[str]:
        """Levels that have a variant for it."""
        return [level for level, found in self._variants.items() if any(v["backend"] == backend for v in found)]

    def finish(
        self,
        measure: Callable[[Path], Mapping[str, Perplexity]] | None = None,
        examine: Callable[[Path], Mapping[str, Exam]] | None = None,
    ) -> Manifest:
        """Write the manifest, check it as any reader would, and put the folder in its place. ``measure`` and
        ``examine``: called with the whole artifact before that, what they find of each level goes into the
        manifests."""
        self._end_section(ALIGN)
        self._shards.discard()
        tokenizer = self._source.tokenizer
        text = json.dumps(tokenizer.json, ensure_ascii=False, separators=(",", ":"))
        terms = self._write("NOTICES.txt", notices(self._source, self._license, self._pruning).encode())
        terms = {"id": self._license, "notices": terms.pop("file"), **terms}
        entry = self._write("tokenizer.json", text.encode())
        if tables := tables_of(tokenizer.json):
            entry["tables"] = self._write("tokenizer.bin", tables)
        common = self._common(entry, terms)
        manifest = self._write_manifests(common)
        if examine is not None:
            self._exams = examine(self._folder)
        if measure is not None:
            self._measured = measure(self._folder)
        if examine is not None or measure is not None:
            manifest = self._write_manifests(common)
        record = {"fingerprint": self._fingerprint, "revision": manifest["revision"], STAMPS: self._stamps()}
        record["files"] = sorted(files_in(self._folder))
        self._write(RECORD, json.dumps(record).encode())
        self._replace()
        return parse_manifest(manifest)

    def _write_manifests(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """One a level; the best one's, which is the artifact's own."""
        best, *others = self.tensors
        levels = [self._listed(best)] if others else []
        for level in others:
            written = self._write_manifest(f"{level}/manifest.json", self._at(level, common))
            levels.append(self._listed(level) | {"manifest": written})
        manifest = self._at(best, common) | ({"levels": levels} if others else {})
        self._write_manifest("manifest.json", manifest)
        return manifest

    def _common(self, tokenizer_file: dict[str, Any], terms: dict[str, Any]) -> dict[str, Any]:
        """What every level's manifest says."""
        source = self._source
        tokenizer = source.tokenizer
        return {
            "schema": SCHEMA,
            "id": source.id,
            "name": source.name,
            "license": terms,
            "source": asdict(source.origin),
            "architecture": _architecture(source.architecture),
            "tokenizer": {
                **tokenizer_file,
                "bos": tokenizer.bos,
                "eos": list(tokenizer.eos),
                "add_bos": tokenizer.add_bos,
                "special": dict(tokenizer.special),
                **({"add_eos": True} if tokenizer.add_eos else {}),
            },
            "chat_template": source.chat_template,
            **({"sampling": _given(source.sampling)} if source.sampling else {}),
            **({"embedding": _given(source.embedding)} if source.embedding else {}),
            **({"pruning": [_step(step) for step in self._pruning]} if self._pruning else {}),
        }

    def _at(self, level: str, common: Mapping[str, Any]) -> dict[str, Any]:
        tensors = self.tensors[level]
        return {
            **common,
            "formats": {name: _format_json(FORMATS[name]) for name in sorted({t.format for t in tensors})},
            "tensors": [{**asdict(t), "shape": list(t.shape)} for t in tensors],
            "weights": self._weights[level],
            **{name: self._described(name, at) for name, at in self._parts if at == level},
            "variants": self._variants[level],
            **({"level": level} if level else {}),
            **({"perplexity": asdict(self._measured[level])} if level in self._measured else {}),
            **({"exam": _exam_json(self._exams[level])} if level in self._exams else {}),
        }

    def _described(self, name: str, level: str) -> dict[str, Any]:
        apart = self._apart.get((name, level))
        return _part_json(self._parts[name, level]) | ({} if apart is None else {"weights": apart})

    def _listed(self, level: str) -> dict[str, Any]:
        names = [variant["name"] for variant in self._variants[level]]
        listed = {"name": level, "bytes": self._weights[level]["bytes"], "variants": names}
        return listed | ({"perplexity": self._measured[level].value} if level in self._measured else {})

    def _stamps(self) -> dict[str, str]:
        """For the native kernels: this machine compiled them and may load them (see `inpage.engines.native_trust`)."""
        variants = [v for level in self._variants.values() for v in level]
        stamps = {d: stamp(d) for d in (v["kernels"]["sha256"] for v in variants if v["backend"] == "native")}
        return {digest: made for digest, made in stamps.items() if made is not None}

    def _write_manifest(self, file: str, manifest: dict[str, Any]) -> dict[str, Any]:
        """Sealed with its revision and checked as any reader would."""
        manifest["revision"] = revision_of(manifest)
        parse_manifest(manifest)
        return self._write(file, json.dumps(manifest, ensure_ascii=False, indent=1).encode())

    def _write(self, file: str, data: bytes) -> dict[str, Any]:
        (self._folder / file).write_bytes(data)
        return {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _replace(self) -> None:
        old = beside(self._out, "old")
        if self._out.exists():
            self._out.rename(old)
        self._folder.rename(self._out)
        shutil.rmtree(old, ignore_errors=True)


class _ShardWriter:
    """Cuts a section's bytes into shard files of `SHARD_BYTES`, hashing as it writes. ``number``: the file's."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self.number = folder, number
        self._at = 0
        self._shards: list[dict[str, Any]] = []
        self._open()

    def _open(self) -> None:
        self._name = f"weights/{self.number:05d}.bin"
        self._file = (self._folder / self._name).open("wb")
        self._hash = hashlib.sha256()
        self._start = self._at

    def close(self) -> None:
        self._file.close()

    def seek(self, offset: int) -> None:
        """Fill with zeros up to ``offset``."""
        if offset < self._at:
            raise ValueError(f"offset {offset} lies before {self._at}")
        self.write(memoryview(bytes(offset - self._at)))

    def write(self, data: memoryview) -> None:
        while len(data):
            if self._at - self._start == SHARD_BYTES:
                self._end_shard()
                self.number += 1
                self._open()
            piece = data[: SHARD_BYTES - (self._at - self._start)]
            self._file.write(piece)
            self._hash.update(piece)
            self._at += len(piece)
            data = data[len(piece) :]

    def _end_shard(self) -> None:
        self._file.close()
        size = self._at - self._start
        self._shards.append(
            {"file": self._name, "offset": self._start, "bytes": size, "sha256": self._hash.hexdigest()}
        )

    def discard(self) -> None:
        """Nothing came."""
        self._file.close()
        (self._folder / self._name).unlink()

    def finish(self, align: int) -> tuple[int, list[dict[str, Any]]]:
        """Total bytes (a multiple of ``align``) and the shards' manifest entries."""
        self.seek(-(-self._at // align) * align)
        self._end_shard()
        return self._at, self._shards


def _format_json(fmt: Format) -> dict[str, Any]:
    parts = asdict(fmt) | {"table": None if fmt.table is None else list(fmt.table)}
    return {k: v for k, v in parts.items() if k not in ("super", "table") or v is not None}


def _part_json(part: GraphRef | MlcRef) -> dict[str, Any]:
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(part).items()}
    del found["weights"]  # the writer's own
    return found


def _given(s: SamplingDefaults | EmbeddingRef) -> dict[str, Any]:
    return {name: value for name, value in asdict(s).items() if value is not None}


def _exam_json(exam: Exam) -> dict[str, Any]:
    return {"ids": list(exam.ids), "answers": [asdict(answer) for answer in exam.answers]}


def _step(pruning: Pruning) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(pruning).items() if v not in (None, ())}


def _architecture(a: Architecture) -> dict[str, Any]:
    """Flags that a family does not have are left out."""
    found = {f.name: value for f in fields(a) if (value := getattr(a, f.name)) != f.default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
