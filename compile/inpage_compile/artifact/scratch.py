"""Folders beside an artifact for what is not finished: `.NAME.PID.KIND`. A process that is killed leaves its own, and
by their name the next one finds them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# An artifact that is written, one that was replaced, a model that is measured on the way, levels that are compared.
KINDS = ("partial", "old", "measured", "levels")


def beside(out: Path, kind: str) -> Path:
    """The path of this process's own folder of a kind; it is not created."""
    return out.with_name(f".{out.name}.{os.getpid()}.{kind}")


@contextmanager
def scratch(out: Path, kind: str) -> Iterator[Path]:
    """A folder beside ``out`` for as long as it is used; see `remove_leftovers`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    folder = beside(out, kind)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(out: Path) -> None:
    """Remove the folders beside ``out`` of processes that are gone. This process's number too may be that of one
    before it, as in a container: call it only where nothing of its own lies beside ``out``."""
    start = f".{out.name}."
    for path in out.parent.iterdir():
        pid, _, kind = path.name.removeprefix(start).partition(".")
        if path.name.startswith(start) and kind in KINDS and pid.isdigit() and not _alive(int(pid)):
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
