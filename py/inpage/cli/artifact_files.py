"""The files of an artifact that a site publishes: regular files inside its folder that are what the manifest says.

An artifact may have come from anywhere. A link in it could put any file of this machine on the web, so none is followed
below the folder itself; a pipe or a device would never end, so only regular files are opened.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ..engines.registry import engine_kind
from ..errors import ArtifactInvalid, said
from ..format.manifest import parse_manifest
from ..format.schema import MANIFEST_BYTES, FileRef, Manifest, Shard, TokenizerRef

_NOTICES_BYTES = 4 << 20
_CHUNK = 1 << 20


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of an artifact folder. Raises `ArtifactInvalid`."""
    return parse_manifest(_read(folder, "manifest.json", MANIFEST_BYTES, "manifest.json"))


def read_notices(folder: Path, manifest: Manifest) -> str:
    """The model's notices. Raises `ArtifactInvalid`."""
    terms = manifest.license
    data = _read(folder, terms.notices, _NOTICES_BYTES, "license.notices")
    if terms.sha256 is not None and hashlib.sha256(data).hexdigest() != terms.sha256:
        raise ArtifactInvalid(f"{terms.notices} does not match its sha256", field="license.sha256")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ArtifactInvalid(f"{terms.notices} is not UTF-8: {said(error)}", field="license.notices") from error


def page_files(folder: Path, manifest: Manifest, *, hashes: bool = True) -> dict[str, Path]:
    """Path within the artifact → file, of all that a page may load, checked: kind and size, and the hash unless the
    page that loads it checks it at once. Raises `ArtifactInvalid` naming the file and the field."""
    read_notices(folder, manifest)
    known = {"manifest.json": "", manifest.license.notices: ""}  # file → hash: levels share files
    for field, ref in _refs(folder, manifest):
        if ref.file not in known:
            _check(folder, ref, field, hashes)
        elif known[ref.file] != ref.sha256:
            raise ArtifactInvalid(f"{ref.file} is named twice, with different hashes", field=f"{field}.file")
        known[ref.file] = ref.sha256
    return {name: folder / name for name in known}


def levels_of(folder: Path, manifest: Manifest) -> list[Manifest]:
    """Of the artifact's other levels. Raises `ArtifactInvalid`."""
    refs = [level.manifest for level in manifest.levels if level.manifest is not None]
    return [parse_manifest(_read(folder, ref.file, MANIFEST_BYTES, "levels")) for ref in refs]


def _refs(folder: Path, manifest: Manifest) -> Iterator[tuple[str, Shard | TokenizerRef | FileRef]]:
    yield from _level_refs(manifest, "")
    for i, level in enumerate(manifest.levels):
        if level.manifest is not None:
            field = f"levels[{i}]"
            yield f"{field}.manifest", level.manifest
            _check(folder, level.manifest, f"{field}.manifest", hashes=True)
            text = _read(folder, level.manifest.file, MANIFEST_BYTES, f"{field}.manifest")
            yield from _level_refs(parse_manifest(text), f"{field}.")


def _level_refs(manifest: Manifest, field: str) -> Iterator[tuple[str, Shard | TokenizerRef | FileRef]]:
    yield f"{field}tokenizer", manifest.tokenizer
    if manifest.tokenizer.tables is not None:
        yield f"{field}tokenizer.tables", manifest.tokenizer.tables
    for place, shard in manifest.every_shard:
        yield f"{field}{place}", shard
    for i, variant in enumerate(manifest.variants):
        if engine_kind(variant.backend).place != "host":  # no page can use those
            for role in sorted(variant.files):
                yield f"{field}variants[{i}].{role}", variant.files[role]


def _check(folder: Path, ref: Shard | TokenizerRef | FileRef, field: str, hashes: bool) -> None:
    with _open(folder, ref.file, f"{field}.file") as file:
        size = os.fstat(file.fileno()).st_size
        if size != ref.bytes:
            raise ArtifactInvalid(f"{ref.file} has {size} bytes, the manifest says {ref.bytes}", field=f"{field}.bytes")
        if hashes and hashlib.file_digest(file, "sha256").hexdigest() != ref.sha256:
            raise ArtifactInvalid(f"{ref.file} does not match its sha256", field=f"{field}.sha256")


def _read(folder: Path, name: str, limit: int, field: str) -> bytes:
    with _open(folder, name, field) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ArtifactInvalid(f"{name} is larger than {limit} bytes", field=field)
    return data


def _open(folder: Path, name: str, field: str) -> io.BufferedReader:
    """A regular file below the folder, no link on the way."""
    path = folder
    try:
        for part in name.split("/"):
            path = path / part
            if stat.S_ISLNK(path.lstat().st_mode):
                raise ArtifactInvalid(
                    f"{path} is a link; only files inside the artifact are published: put the file itself there",
                    field=field,
                )
        # Not blocking, as a pipe would otherwise be waited for before it can be seen that it is one.
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise ArtifactInvalid(f"{path}: {error.strerror}", field=field) from error
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise ArtifactInvalid(f"{path} is no regular file; only such are published", field=field)
    return io.BufferedReader(io.FileIO(opened), _CHUNK)
