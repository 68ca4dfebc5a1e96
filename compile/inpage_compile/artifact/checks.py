"""Reading artifacts: is one whole, is it what would be compiled again, may its folder be replaced."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from inpage.engines.native_trust import RECORD, is_stamped, stamp
from inpage.errors import ArtifactInvalid, InpageError
from inpage.format.manifest import parse_manifest
from inpage.format.schema import FileRef, Manifest, Shard, TokenizerRef


def load_manifest(folder: Path) -> Manifest:
    """The checked manifest of an artifact folder. Raises `ArtifactInvalid`."""
    try:
        return parse_manifest((folder / "manifest.json").read_bytes())
    except OSError as e:
        raise ArtifactInvalid(f"{folder}: no readable manifest.json ({e.strerror})", field="manifest.json") from e


def load_levels(folder: Path) -> Iterator[Manifest]:
    """The checked manifest of each level, the artifact's own first. Raises `ArtifactInvalid`."""
    manifest = load_manifest(folder)
    yield manifest
    for ref in manifest.levels:
        if ref.manifest is not None:
            _check_file(folder, ref.manifest)
            yield parse_manifest((folder / ref.manifest.file).read_bytes())


def verify(folder: Path) -> Manifest:
    """Check every file of an artifact against the manifest's sizes and hashes. Raises `ArtifactInvalid`."""
    files: dict[str, Shard | TokenizerRef | FileRef] = {}
    manifests = list(load_levels(folder))
    for m in manifests:
        files |= {ref.file: ref for _, ref in m.every_shard} | {m.tokenizer.file: m.tokenizer}
        files |= {ref.file: ref for ref in _small(m)}
        if m.license.bytes is not None and m.license.sha256 is not None:
            files[m.license.notices] = FileRef(m.license.notices, m.license.bytes, m.license.sha256)
    for ref in files.values():
        _check_file(folder, ref)
    return manifests[0]


def _small(m: Manifest) -> Iterator[FileRef]:
    """What a manifest names beside weights, notices and the tokenizer itself."""
    if m.tokenizer.tables is not None:
        yield m.tokenizer.tables
    for variant in m.variants:
        yield from variant.files.values()


def _check_file(folder: Path, ref: Shard | TokenizerRef | FileRef) -> None:
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


def is_current(out: Path, fingerprint: str) -> bool:
    """Whether ``out`` is a whole, intact artifact made from exactly what ``fingerprint`` stands for. One with native
    kernels that this machine did not compile is not: the record that says what they were made from came with them."""
    try:
        record = json.loads((out / RECORD).read_bytes())
        if not isinstance(record, dict) or record.get("fingerprint") != fingerprint:
            return False
        return verify(out).revision == record.get("revision") and all(
            is_stamped(out, digest) for digest in _native_kernels(out) if stamp(digest) is not None
        )
    except (OSError, ValueError, InpageError):
        return False


def _native_kernels(folder: Path) -> list[str]:
    variants = [v for manifest in load_levels(folder) for v in manifest.variants]
    return [v.files["kernels"].sha256 for v in variants if v.backend == "native"]


def foreign(out: Path) -> str:
    """Why ``out`` is not to be replaced: what lies there and no compiler wrote. Empty: nothing."""
    if not out.is_dir():
        return "it is no folder"
    found = files_in(out)
    if not found:
        return ""
    try:
        record = json.loads((out / RECORD).read_bytes())
        listed = record.get("files") if isinstance(record, dict) else None
        own = listed if isinstance(listed, list) else _listed(out)
        others = sorted(found - {*own, RECORD})
    except (OSError, ValueError, TypeError, RecursionError, InpageError):
        return "it is not an artifact"
    return f"no compiler wrote {', '.join(others[:3])}" if others else ""


def files_in(folder: Path) -> set[str]:
    paths = folder.rglob("*")
    return {path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()}


def _listed(out: Path) -> list[str]:
    """What the manifests name, where the record does not say what was written."""
    names = ["manifest.json"]
    for m in load_levels(out):
        names += [m.license.notices, m.tokenizer.file, *(shard.file for _, shard in m.every_shard)]
        names += [ref.file for ref in _small(m)]
        names += [ref.manifest.file for ref in m.levels if ref.manifest]
    return names
