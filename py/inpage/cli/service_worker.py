"""The site's service worker: what is kept for use offline (web/offline.js), and the endpoint and isolation (web/sw.js).

One classic script, so that a site's own worker takes it in with `importScripts`. It begins with what it keeps: another
version of any file makes another worker, which is how a browser learns of an update.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from . import paths

# Only who asks for a grammar loads what follows it.
_LATE = ("vendor/xgrammar/", "grammar/", "grammar.js")


def script(files: Mapping[str, Path | bytes]) -> bytes:
    """``files``: those that a page needs offline, by path below the folder that ``?files=`` of the worker names."""
    hashes = {name: _hash(content) for name, content in sorted(files.items())}
    late = [name for name in hashes if name.startswith(_LATE)]
    listed = json.dumps({"revision": _hash(json.dumps(hashes).encode())[:16], "files": hashes, "late": late})
    parts = [(paths.web() / name).read_text("utf-8") for name in ("offline.js", "sw.js")]
    return "\n".join([f"self.inpageFiles = {listed};", *parts]).encode()


def _hash(content: Path | bytes) -> str:
    return hashlib.sha256(content if isinstance(content, bytes) else content.read_bytes()).hexdigest()
