"""The files of a model's folder. Names come from outside, and what lies there may be a link: none leads out of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inpage.errors import SourceInvalid, quoted, said
from inpage.format import bounded

JSON_BYTES = 4 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


class ModelFolder:
    """Raises `SourceInvalid` naming the file for what cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.resolve(strict=True)
            self.names = sorted(entry.name for entry in path.iterdir())
        except (OSError, RuntimeError) as e:
            raise SourceInvalid(f"{path}: {getattr(e, 'strerror', None) or said(e)}", field="path") from e
        # The hub's client keeps a snapshot as links into the folder `blobs` beside it.
        self._within = [self.path]
        if self.path.parent.name == "snapshots":
            self._within.append(self.path.parents[1] / "blobs")

    def has(self, name: str) -> bool:
        return name in self.names

    def file(self, name: str) -> Path:
        """A file of that name, which is not trusted."""
        if not _NAME.fullmatch(name):
            raise SourceInvalid(f"{quoted(name)} is not the name of a file in the model's folder", field="path")
        if name not in self.names:
            raise SourceInvalid(f"{name} is missing in {self.path.name}", field=name)
        path = self.path / name
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError) as e:
            raise SourceInvalid(f"{name}: {getattr(e, 'strerror', None) or said(e)}", field=name) from e
        if real.parent not in self._within:
            raise SourceInvalid(f"{name} is a link out of the model's folder: put the file itself there", field=name)
        if not real.is_file():
            raise SourceInvalid(f"{name} is not a file", field=name)
        return path

    def read(self, name: str, most: int) -> bytes:
        path = self.file(name)
        try:
            with path.open("rb") as f:
                data = f.read(most + 1)
        except OSError as e:
            raise SourceInvalid(f"{name}: {e.strerror}", field=name) from e
        if len(data) > most:
            raise SourceInvalid(f"{name} is larger than {most} bytes", field=name)
        return data

    def text(self, name: str, most: int) -> str:
        try:
            return self.read(name, most).decode()
        except UnicodeDecodeError as e:
            raise SourceInvalid(f"{name} is not UTF-8", field=name) from e

    def json(self, name: str, most: int = JSON_BYTES, items: int = bounded.ITEMS) -> dict[str, Any]:
        """An object; {} where there is no such file."""
        if not self.has(name):
            return {}
        found = self._json(name, most, items)
        if not isinstance(found, dict):
            raise SourceInvalid(f"{name}: must be an object", field=name)
        return found

    def json_list(self, name: str) -> list[Any]:
        found = self._json(name, JSON_BYTES, bounded.ITEMS)
        if not isinstance(found, list):
            raise SourceInvalid(f"{name}: must be a list", field=name)
        return found

    def _json(self, name: str, most: int, items: int) -> Any:
        data = self.read(name, most)
        try:
            return bounded.read(data, most, items=items, keys=items, unique=True)
        except ValueError as e:
            raise SourceInvalid(f"{name} is not JSON: {said(e)}", field=name) from e

    def below(self, name: str) -> ModelFolder:
        """A folder in this one; an empty one's files are missing, as are those of one that is not there."""
        if not _NAME.fullmatch(name) or name not in self.names or (self.path / name).is_symlink():
            raise SourceInvalid(f"{quoted(name)} is not a folder in the model's folder", field="path")
        return ModelFolder(self.path / name)

    def sha256(self, names: Iterable[str]) -> str:
        """Of these files' names and hashes, a line each, as sha256sum writes them. A name may be of a file in a folder
        of this one ("1_Pooling/config.json")."""
        lines = []
        for name in sorted(names):
            below, _, file = name.rpartition("/")
            try:
                with (self.below(below) if below else self).file(file).open("rb") as f:
                    lines.append(f"{hashlib.file_digest(f, 'sha256').hexdigest()}  {name}\n")
            except OSError as e:
                raise SourceInvalid(f"{name}: {e.strerror}", field=name) from e
        return hashlib.sha256("".join(lines).encode()).hexdigest()
