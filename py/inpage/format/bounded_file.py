"""Files from outside, read only as far as their kind may be long (`inpage.format.limits`)."""

from __future__ import annotations

from pathlib import Path

from ..errors import InpageError
from .limits import FILE_BYTES


def read_bounded(path: Path, kind: str, error: type[InpageError], field: str) -> bytes:
    """A file's bytes, at most as many as its kind may have; one more is not read. Raises ``error``, and `OSError` where
    the file cannot be read."""
    limit = FILE_BYTES[kind]
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise error(f"{path} is larger than {limit} bytes, the most that such a file may have", field=field)
    return data
