"""A site's snapshot of Python's memory: made once for a package, by whatever Node there is, and a site without it."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from inpage.cli import snapshot
from inpage.cli.site import package_zip


@pytest.fixture(scope="module")
def package() -> bytes:
    return package_zip()


def test_an_unchanged_package_is_made_once_and_always_the_same(package: bytes, tmp_path: Path) -> None:
    record, path = snapshot.ensure(package)
    made = path.stat().st_mtime_ns
    assert snapshot.ensure(package) == (record, path)
    assert path.stat().st_mtime_ns == made
    memory = gzip.decompress(path.read_bytes())
    key = memory[-snapshot.KEY_BYTES :].decode().split()
    assert key[1] == hashlib.sha256(package).hexdigest()
    assert (len(memory), hashlib.sha256(memory).hexdigest()) == (record["bytes"], record["sha256"])
    assert path.stat().st_size == record["packed"] < 10e6
    again = snapshot._make(package, tmp_path / path.name)
    assert again == record
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_another_package_has_another_name_and_what_is_damaged_is_not_taken(package: bytes, tmp_path: Path) -> None:
    assert snapshot._identity(package) == snapshot._identity(bytes(package))
    assert snapshot._identity(package) != snapshot._identity(package + b"x")
    path, described = tmp_path / "memory.bin", tmp_path / "memory.json"
    path.write_bytes(b"memory")
    described.write_text(json.dumps({"file": path.name, "packed_sha256": hashlib.sha256(b"memory").hexdigest()}))
    assert snapshot._recorded(described, path) == {"file": path.name}
    path.write_bytes(b"Memory")
    assert snapshot._recorded(described, path) is None


def test_who_does_not_use_it_is_not_given_it(package: bytes) -> None:
    """It is in no list of what the service worker fetches; what says whether there is one is."""
    from inpage.cli.site import files

    site = files([])
    (name,) = (name for name in site if name.startswith("python-"))
    worker = site["sw.js"]
    assert isinstance(worker, bytes)
    assert name.encode() not in worker
    assert b'"python.json"' in worker
