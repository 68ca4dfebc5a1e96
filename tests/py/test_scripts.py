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


def test_a_bundle_of_other_sources_is_made_again_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = tmp_path / "web"
    for name, path in scripts.sources().items():
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_bytes(path.read_bytes())
    monkeypatch.setattr(paths, "web", lambda: web)
    before = {name: path.read_bytes() for name, path in scripts.bundled().items()}
    changed = web / "router/worker.js"
    changed.write_text(changed.read_text() + '\nconsole.log("changed");\n')
    after = {name: path.read_bytes() for name, path in scripts.bundled().items()}
    assert [name for name in after if after[name] != before.get(name)] == ["router/worker.js"]

    record = web / "bundled/bundled.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "sources": "others"}))
    monkeypatch.setattr(scripts, "_esbuild", lambda: None)  # as in a wheel
    assert scripts.bundled() == {}
    record.write_text("{")
    assert scripts.bundled() == {}
    assert [path.name for path in web.iterdir() if path.name.startswith("bundled")] == ["bundled"]
