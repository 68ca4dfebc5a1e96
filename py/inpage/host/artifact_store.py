"""Reading an artifact's small files: from a folder in CPython, over the network in the page. Weights and kernels go
to the engine without passing through here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Protocol

from ..errors import ArtifactInvalid, InvalidRequest, quoted, said
from ..format.bounded_file import read_bounded
from ..format.limits import FILE_BYTES
from ..format.manifest import parse_manifest
from ..format.schema import FileRef, LevelRef, Manifest, TokenizerRef, Weights
from .browser import IN_PAGE, host, settle


class Store(Protocol):
    """``base``: the folder's path or URL, for the engine."""

    base: str

    async def manifest(self) -> tuple[Manifest, str]:
        """The checked manifest of the chosen level, and its text."""
        ...

    async def text(self, ref: FileRef | TokenizerRef, field: str) -> str:
        """A small file of the artifact, its hash verified; ``field`` of the manifest."""
        ...

    async def tokenizer(self, ref: TokenizerRef) -> Any:
        """What `inpage.text.tokenizer.load_tokenizer` takes."""
        ...

    async def holds(self, weights: Weights) -> bool:
        """Whether all of them lie here, so that loading downloads none."""
        ...


_PATH = 300  # characters of a path that an error names: its end says more


class FolderStore:
    def __init__(self, folder: str | Path, level: str = "") -> None:
        self.base = str(folder)
        self._folder, self._level = Path(folder), level

    async def manifest(self) -> tuple[Manifest, str]:
        text = self._read("manifest.json", "manifest.json", "manifest").decode("utf-8", "replace")
        return await _at(self, parse_manifest(text), text, self._level)

    async def text(self, ref: FileRef | TokenizerRef, field: str) -> str:
        data = self._read(ref.file, f"{field}.file", _kind(field))
        if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise ArtifactInvalid(f"{ref.file} is not the file that the manifest names", field=f"{field}.sha256")
        return data.decode("utf-8", "replace")

    async def tokenizer(self, ref: TokenizerRef) -> str:
        return await self.text(ref, "tokenizer")

    async def holds(self, weights: Weights) -> bool:
        return True

    def _read(self, file: str, field: str, kind: str) -> bytes:
        path = self._folder / file
        try:
            return read_bounded(path, kind, ArtifactInvalid, field)
        except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
            why = getattr(error, "strerror", None) or said(error)
            raise ArtifactInvalid(f"{str(path)[-_PATH:]} cannot be read: {why}", field=field) from error


def _kind(field: str) -> str:
    """Of the small files that a manifest names, by where it names them."""
    name = field.rpartition(".")[2]
    return name if name in FILE_BYTES else "manifest"


class PageStore:
    def __init__(self, url: str, level: str = "") -> None:
        self.base = str(host().absolute(url if url.endswith("/") else url + "/"))
        self._level = level

    async def manifest(self) -> tuple[Manifest, str]:
        text = str(await settle(host().fetchJson(f"{self.base}manifest.json", "manifest", "manifest.json")))
        return await _at(self, parse_manifest(text), text, self._level)

    async def text(self, ref: FileRef | TokenizerRef, field: str) -> str:
        return str(await settle(host().fetchText(self.base, ref.file, ref.bytes, ref.sha256, field)))

    async def tokenizer(self, ref: TokenizerRef) -> Any:
        file = ref.tables or ref
        tables = ref.tables is not None
        return await settle(host().fetchTokenizer(self.base, file.file, file.bytes, file.sha256, tables))

    async def holds(self, weights: Weights) -> bool:
        from pyodide.ffi import to_js

        files = to_js([[shard.sha256, shard.bytes] for shard in weights.shards])
        return bool(await settle(host().areStored(files)))


def open_store(where: str | Path) -> Store:
    """``where``: a folder or a URL; behind a "#" the level that is meant, else the best that it carries."""
    place, _, level = str(where).partition("#")
    if IN_PAGE:
        return PageStore(place, level)
    return FolderStore(where) if _is_folder(where) else FolderStore(place, level)


def _is_folder(where: str | Path) -> bool:
    try:
        return Path(where).is_dir()
    except (OSError, ValueError):  # a name that is too long
        return False


async def level_of(store: Store, manifest: Manifest, ref: LevelRef) -> tuple[Manifest, str]:
    """The manifest of one of the artifact's other levels, and its text. Raises `ArtifactInvalid`."""
    assert ref.manifest is not None
    text = await store.text(ref.manifest, f"levels.{ref.name}.manifest")
    found = parse_manifest(text)
    if found.listed(ref.manifest) != ref or found.levels or found.id != manifest.id:
        raise ArtifactInvalid(f"{ref.manifest.file} is not what the artifact says of it", field=f"levels.{ref.name}")
    return found, text


async def _at(store: Store, manifest: Manifest, text: str, level: str) -> tuple[Manifest, str]:
    if level in ("", manifest.level):
        return manifest, text
    for ref in manifest.levels:
        if ref.name == level:
            return await level_of(store, manifest, ref)
    have = ", ".join(ref.name for ref in manifest.levels) or "but one"
    raise InvalidRequest(f"{manifest.id} has no level {quoted(level)}; it has {have}", field="level")
