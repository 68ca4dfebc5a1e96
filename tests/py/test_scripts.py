"""A site's scripts in few files: which those are, and what a site has where they cannot be made."""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

import pytest

from inpage.cli import paths, scripts

_IMPORTS = re.compile(r"""(?:\bfrom|\bimport)\s*\(?\s*["'](\.[^"']+)["']""")
_TYPES = re.compile(r"/\*\*.*?\*/", re.DOTALL)


def test_a_bundle_imports_other_bundles_and_vendored_files_only() -> None:
    bundled = scripts.bundled()
    assert bundled.keys() >= {*scripts.PAGES, *scripts.WORKERS}
    seen = set()
    for name, path in bundled.items():
        for found in _IMPORTS.findall(_TYPES.sub("", path.read_text("utf-8"))):
            imported = posixpath.normpath(posixpath.join(posixpath.dirname(name), found))
            assert imported in bundled or (paths.web() / imported).is_relative_to(paths.web() / "vendor"), (name, found)
            assert imported not in scripts.WORKERS
            seen.add(imported)
    assert {"vendor/pyodide/pyodide.js", "vendor/tokenizers/tokenizers.js"} <= seen
    assert {name for name in bundled if "/shared-" in name} <= seen


def own_web(folder: Path) -> Path:
    """A copy of what versions and bundles are made from."""
    web = folder / "web"
    for name, path in (scripts.sources() | {"vendor.json": paths.web() / "vendor.json"}).items():
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_bytes(path.read_bytes())
    return web


def test_pages_know_which_version_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web, package = own_web(tmp_path), tmp_path / "inpage"
    for name, path in scripts.modules().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(path.read_bytes())
    monkeypatch.setattr(paths, "web", lambda: web)
    monkeypatch.setattr(paths, "PACKAGE", package)
    found = [scripts.version()]
    for changed in (web / "client/tabs.js", package / "worker/messages.py", web / "vendor.json"):
        changed.write_bytes(changed.read_bytes() + b"\n")
        found.append(scripts.version())
    assert len(set(found)) == 4
    assert scripts.version_script() == f'export const VERSION = "{found[-1]}";\n'.encode()
    told = [name for name, path in scripts.bundled().items() if found[-1] in path.read_text("utf-8")]
    assert len(told) == 1 and "/shared-" in told[0]  # with what tabs share


def test_a_bundle_of_other_sources_is_made_again_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = own_web(tmp_path)
    monkeypatch.setattr(paths, "web", lambda: web)
    before = {name: path.read_bytes() for name, path in scripts.bundled().items()}
    changed = web / "router/worker.js"
    changed.write_text(changed.read_text() + '\nconsole.log("changed");\n')
    after = {name: path.read_bytes() for name, path in scripts.bundled().items()}
    others = {name for name in after if after[name] != before.get(name)}
    assert others & scripts.WORKERS.keys() == {"router/worker.js"}

    record = web / "bundled/bundled.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "sources": "others"}))
    monkeypatch.setattr(scripts, "_esbuild", lambda: None)  # as in a wheel
    assert scripts.bundled() == {}
    record.write_text("{")
    assert scripts.bundled() == {}
    assert [path.name for path in web.iterdir() if path.name.startswith("bundled")] == ["bundled"]
