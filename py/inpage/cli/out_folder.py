"""The folder that `build` writes: a record in it says what is the build's, and nothing else is ever touched.

A build removes what an earlier one wrote and this one does not, as long as it is still what was written. Whatever else
lies in the folder stays; where a foreign file stands in the way of one to be written, the build refuses by its name and
has changed nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..errors import InvalidRequest
from ..format import bounded

RECORD = ".inpage-build.json"
_SCRATCH = ".inpage-build.partial"
_RECORD_BYTES = 64 << 20
# Sites of versions that kept no record have all of these. What a build writes anew is taken over; the rest stays.
_UNRECORDED = ("site.json", "inpage.zip", "client/inpage.js", "NOTICES.txt")

Content = Path | bytes
Written = dict[str, list[str]]  # path within the folder → hashes that a build wrote there, or began to


def write(out: Path, files: Mapping[str, Content]) -> None:
    """Make the folder hold these files. Raises `InvalidRequest` naming what is in the way."""
    if out.exists() and not out.is_dir():
        raise InvalidRequest(f"{out} is no folder; choose another place", field="out")
    out.mkdir(parents=True, exist_ok=True)
    with _alone(out):
        _write(out, files)


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One build at a time. The lock ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InvalidRequest(f"another build is writing to {out}; wait until it has ended", field="out") from None
    finally:
        os.close(folder)


def _write(out: Path, files: Mapping[str, Content]) -> None:
    written = _read_record(out)
    if written is None and any(out.iterdir()):
        if not all((out / name).is_file() for name in _UNRECORDED):
            raise InvalidRequest(f"{out} is not empty and no site; choose another folder", field="out")
        written = {name: [] for name in files}
    written = written or {}
    _refuse_foreign(out, files, written)
    # Before the first change: a build that is cut off here leaves nothing that the next one would call foreign.
    hashes = {name: _hash(content) for name, content in files.items()}
    begun = {name: list(dict.fromkeys([*written.get(name, ()), digest])) for name, digest in hashes.items()}
    _write_record(out, {**written, **begun})
    for name in sorted(set(written) - set(files), reverse=True):
        _remove(out, name, written[name])
    for name, content in files.items():
        _put(out, name, content, hashes[name])
    _write_record(out, {name: [digest] for name, digest in hashes.items()})


def _refuse_foreign(out: Path, files: Mapping[str, Content], written: Written) -> None:
    folders: set[Path] = set()
    for name in [*files, RECORD, _SCRATCH]:
        path = out / name
        folders.update(out / part for part in list(Path(name).parents)[:-1])
        mode = _mode(path)
        if mode is not None and not stat.S_ISREG(mode):
            raise _in_the_way(path, "is no regular file")
        if mode is not None and name not in (RECORD, _SCRATCH) and name not in written:
            raise _in_the_way(path, "was not written by a build")
    for folder in sorted(folders):
        mode = _mode(folder)
        if mode is not None and not stat.S_ISDIR(mode):
            if stat.S_ISREG(mode) and folder.relative_to(out).as_posix() in written:
                continue  # an earlier build's file, where there is a folder now
            raise _in_the_way(folder, "is no folder")


def _in_the_way(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"{path} {why}, and this build would replace it: move it away first", field="out")


def _remove(out: Path, name: str, hashes: list[str]) -> None:
    """What a build wrote and nobody changed since, and the folders that are empty without it."""
    path = out / name
    parents = [out / part for part in list(Path(name).parents)[:-1]]
    if any(_mode(folder) is None or not stat.S_ISDIR(_mode(folder) or 0) for folder in parents):
        return  # a link now: what lies behind it is not ours
    mode = _mode(path)
    if mode is None or not stat.S_ISREG(mode) or _hash(path) not in hashes:
        return
    path.unlink()
    for folder in parents:
        if any(folder.iterdir()):
            break
        folder.rmdir()


def _put(out: Path, name: str, content: Content, digest: str) -> None:
    """Leave a file alone that is already right: weights are large, and browsers revalidate by time. Another is replaced
    as a whole, so that whoever loads it meanwhile gets the one or the other."""
    target = out / name
    if target.is_file() and _hash(target) == digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = out / _SCRATCH
    if isinstance(content, bytes):
        scratch.write_bytes(content)
    else:
        shutil.copyfile(content, scratch)
    scratch.replace(target)


def _hash(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_record(out: Path) -> Written | None:
    """What builds wrote here; None where there is no record."""
    path = out / RECORD
    mode = _mode(path)
    if mode is None:
        return None
    if not stat.S_ISREG(mode):
        raise _in_the_way(path, "is no regular file")
    try:
        text = path.read_bytes() if path.stat().st_size <= _RECORD_BYTES else b""
        return dict(_entries(bounded.read(text)))
    except ValueError as error:
        raise InvalidRequest(
            f"{path} is damaged, so that this build cannot know its own files: remove {out}", field="out"
        ) from error


def _entries(record: object) -> Iterator[tuple[str, list[str]]]:
    listed = record.get("files") if isinstance(record, dict) else None
    if not isinstance(listed, dict):
        raise ValueError("no files")
    for name, hashes in listed.items():
        whole = isinstance(hashes, list) and all(isinstance(digest, str) for digest in hashes)
        if not whole or any(part in ("", ".", "..") for part in name.split("/")) or "\0" in name:
            raise ValueError(name)
        yield name, hashes


def _write_record(out: Path, written: Written) -> None:
    text = json.dumps({"files": dict(sorted(written.items()))}, ensure_ascii=False, indent=0)
    scratch = out / _SCRATCH
    scratch.write_text(text + "\n", "utf-8")
    scratch.replace(out / RECORD)
