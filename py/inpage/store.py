"""Reading an artifact's small files: from a folder in CPython, over the network in the page. Weights and kernels go
to the engine without passing through here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from .artifact import parse_manifest
from .browser import IN_PAGE, host, settle
from .errors import ArtifactInvalid
from .schema import MANIFEST_BYTES, FileRef, Manifest, TokenizerRef


class Store(Protocol):
    """``base``: the folder's path or URL, for the engine."""

    base: str

    async def manifest(self) -> tuple[Manifest, str]:
        """The checked manifest, and its text."""
        ...

    async def text(self, ref: FileRef | TokenizerRef, field: str) -> str:
        """A small file of the artifact, its hash verified; ``field`` of the manifest."""
        ...


class FolderStore:
    def __init__(self, folder: str | Path) -> None:
        self.base = str(folder)
        self._folder = Path(folder)

    async def manifest(self) -> tuple[Manifest, str]:
        text = self._read("manifest.json", "manifest.json").decode("utf-8", "replace")
        return parse_manifest(text), text

    async def text(self, ref: FileRef | TokenizerRef, field: str) -> str:
        data = self._read(ref.file, f"{field}.file")
        if len(data) != ref.bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise ArtifactInvalid(f"{ref.file} is not the file that the manifest names", field=f"{field}.sha256")
        return data.decode("utf-8", "replace")

    def _read(self, file: str, field: str) -> bytes:
        path = self._folder / file
        try:
            return path.read_bytes()
        except OSError as error:
            raise ArtifactInvalid(f"{path} cannot be read: {error.strerror}", field=field) from error


class PageStore:
    def __init__(self, url: str) -> None:
        self.base = str(host().absolute(url if url.endswith("/") else url + "/"))

    async def manifest(self) -> tuple[Manifest, str]:
        text = str(await settle(host().fetchJson(f"{self.base}manifest.json", MANIFEST_BYTES, "manifest.json")))
        return parse_manifest(text), text

    async def text(self, ref: FileRef | TokenizerRef, field: str) -> str:
        return str(await settle(host().fetchText(self.base, ref.file, ref.bytes, ref.sha256, field)))


def open_store(where: str | Path) -> Store:
    return PageStore(str(where)) if IN_PAGE else FolderStore(where)
