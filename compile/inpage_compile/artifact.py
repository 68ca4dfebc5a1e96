"""Writes an artifact folder: shards, tokenizer, notices, variants and, last of all, the manifest.

Everything is written to a hidden sibling folder and renamed into place by `finish`, so that no half-written
artifact ever has the artifact's name. A record of what it was made from lies beside the manifest; `is_current`
compares it, so that an unchanged recompile only hashes files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from inpage.artifact import parse_manifest, revision_of
from inpage.errors import ArtifactInvalid, InpageError, InvalidRequest, StorageFull
from inpage.schema import ALIGN, SCHEMA, SHARD_BYTES, FileRef, Format, Manifest, Shard, Tensor, TokenizerRef

from .licenses import check_license, notices
from .quantize import FORMATS
from .sources import Source

RECORD = "build.json"
Progress = Callable[[str, int, int], None]


class ArtifactWriter:
    """Use as a context manager: leaving it without `finish` removes what was written.

    ``progress(phase, done, total)`` is called with bytes for the phase "weights". ``accept_license`` acknowledges
    a licence that is unknown or none. Raises `SourceInvalid` (field ``license``) without it, and `InvalidRequest`
    where ``out`` exists and is not an artifact."""

    def __init__(
        self,
        out: Path,
        source: Source,
        *,
        fingerprint: str = "",
        accept_license: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._out = out.resolve()
        if self._out.exists() and not _is_replaceable(self._out):
            raise InvalidRequest(f"{out} exists and is not an artifact: not replacing it", field="out")
        self._license = check_license(source.license, accept_license)
        self._source = source
        self._fingerprint = fingerprint
        self._progress = progress
        self._tensors: list[Tensor] = []
        self._variants: list[dict[str, Any]] = []
        self._out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self._out)
        self._folder = self._out.with_name(f".{self._out.name}.{os.getpid()}.partial")
        self._folder.mkdir()
        self._shards = _ShardWriter(self._folder)

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

    def add_tensor(self, entry: Tensor, data: npt.NDArray[Any]) -> None:
        """Append a tensor's bytes (uint8 [entry.bytes]) at its offset; tensors come in the order of offsets."""
        if data.nbytes != entry.bytes:
            raise ValueError(f"{entry.name}: {data.nbytes} bytes, planned {entry.bytes}")
        self._shards.seek(entry.offset)
        self._shards.write(memoryview(np.ascontiguousarray(data).reshape(-1).view(np.uint8).data))
        self._tensors.append(entry)

    def add_variant(self, name: str, backend: str, requires: list[str], files: Mapping[str, bytes | Path]) -> None:
        """Add a compiled form of the model. ``files``: file name → content, or a file to copy; its role in the
        manifest is the name without suffix ("plan.json" → plan, "kernels.wasm" → kernels)."""
        entry: dict[str, Any] = {"name": name, "backend": backend, "requires": list(requires)}
        (self._folder / name).mkdir()
        for file, content in files.items():
            data = content.read_bytes() if isinstance(content, Path) else content
            entry[file.partition(".")[0]] = self._write(f"{name}/{file}", data)
        self._variants.append(entry)

    def finish(self) -> Manifest:
        """Write the manifest, check it as any reader would, and put the folder in its place."""
        source = self._source
        total, shards = self._shards.finish()
        tokenizer = source.tokenizer
        text = json.dumps(tokenizer.json, ensure_ascii=False, separators=(",", ":"))
        used = sorted({t.format for t in self._tensors})
        manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "id": source.id,
            "name": source.name,
            "license": {"id": self._license, "notices": "NOTICES.txt"},
            "source": asdict(source.origin),
            "architecture": asdict(source.architecture),
            "tokenizer": {
                **self._write("tokenizer.json", text.encode()),
                "bos": tokenizer.bos,
                "eos": list(tokenizer.eos),
                "add_bos": tokenizer.add_bos,
                "special": dict(tokenizer.special),
            },
            "chat_template": source.chat_template,
            "formats": {name: _format_json(FORMATS[name]) for name in used},
            "tensors": [{**asdict(t), "shape": list(t.shape)} for t in self._tensors],
            "weights": {"bytes": total, "shards": shards},
            "variants": self._variants,
        }
        manifest["revision"] = revision_of(manifest)
        self._write("NOTICES.txt", notices(source, self._license).encode())
        parsed = parse_manifest(manifest)
        self._write("manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1).encode())
        record = {"fingerprint": self._fingerprint, "revision": parsed.revision}
        self._write(RECORD, json.dumps(record).encode())
        self._replace()
        return parsed

    def _write(self, file: str, data: bytes) -> dict[str, Any]:
        (self._folder / file).write_bytes(data)
        return {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _replace(self) -> None:
        old = self._out.with_name(f".{self._out.name}.{os.getpid()}.old")
        if self._out.exists():
            self._out.rename(old)
        self._folder.rename(self._out)
        shutil.rmtree(old, ignore_errors=True)


class _ShardWriter:
    """Cuts a byte stream into shard files of `SHARD_BYTES`, hashing as it writes."""

    def __init__(self, folder: Path) -> None:
        (folder / "weights").mkdir()
        self._folder = folder
        self._at = 0
        self._shards: list[dict[str, Any]] = []
        self._open()

    def _open(self) -> None:
        self._name = f"weights/{len(self._shards):05d}.bin"
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

    def finish(self) -> tuple[int, list[dict[str, Any]]]:
        """Total bytes (a multiple of 256) and the shards' manifest entries."""
        self.seek(-(-self._at // ALIGN) * ALIGN)
        self._end_shard()
        return self._at, self._shards


def load_manifest(folder: Path) -> Manifest:
    """The checked manifest of an artifact folder. Raises `ArtifactInvalid`."""
    try:
        return parse_manifest((folder / "manifest.json").read_bytes())
    except OSError as e:
        raise ArtifactInvalid(f"{folder}: no readable manifest.json ({e.strerror})", field="manifest.json") from e


def verify(folder: Path) -> Manifest:
    """Check every file of an artifact against the manifest's sizes and hashes. Raises `ArtifactInvalid`."""
    m = load_manifest(folder)
    files: list[Shard | TokenizerRef | FileRef] = [*m.weights.shards, m.tokenizer]
    files += [f for v in m.variants for f in v.files.values()]
    for ref in files:
        path = folder / ref.file
        try:
            with path.open("rb") as f:
                size, digest = os.fstat(f.fileno()).st_size, hashlib.file_digest(f, "sha256").hexdigest()
        except OSError as e:
            raise ArtifactInvalid(f"{ref.file}: {e.strerror}", field=ref.file) from e
        if size != ref.bytes:
            raise ArtifactInvalid(f"{ref.file} has {size} bytes, the manifest says {ref.bytes}", field=ref.file)
        if digest != ref.sha256:
            raise ArtifactInvalid(f"{ref.file} does not match its sha256", field=ref.file)
    return m


def is_current(out: Path, fingerprint: str) -> bool:
    """Whether ``out`` is a whole, intact artifact made from exactly what ``fingerprint`` stands for."""
    try:
        record = json.loads((out / RECORD).read_bytes())
        if not isinstance(record, dict) or record.get("fingerprint") != fingerprint:
            return False
        return verify(out).revision == record.get("revision")
    except (OSError, ValueError, InpageError):
        return False


def _format_json(fmt: Format) -> dict[str, Any]:
    return {k: v for k, v in asdict(fmt).items() if k != "super" or v is not None}


def _is_replaceable(out: Path) -> bool:
    return out.is_dir() and ((out / RECORD).is_file() or not any(out.iterdir()))


def _remove_leftovers(out: Path) -> None:
    """Folders of compilers that were killed: their process is gone."""
    for path in out.parent.glob(f".{out.name}.*"):
        pid, _, kind = path.name.removeprefix(f".{out.name}.").partition(".")
        if kind in ("partial", "old") and pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
