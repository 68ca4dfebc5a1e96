"""A site's scripts, each with all that it imports in one file: a page's start asks its host for ten of them instead of
a hundred and thirty, which is half a second of a second visit.

esbuild does it where the checkout's node_modules has it, into ``web/bundled``, which a wheel carries. What was bundled
counts only for the sources that it was made from. Without, a site has the modules as they are, and works all the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from ..errors import Unsupported
from . import paths

# Entry of the sources → how far up the site's root is. A worker is one file; what two pages share is a third file.
PAGES = ("app/app.js", "client/inpage.js")
WORKERS = {
    "router/worker.js": "../",
    "router/memory_worker.js": "../",
    "router/text_worker.js": "../",
    "engine/worker.js": "../",
    "engine/grammar/grammar_worker.js": "../../",
    "engine/storage/prefetch_worker.js": "../../",
    "engine/wasm/thread.js": "../../",
}
FOLDERS = ("app", "client", "engine", "router")
# Says which version of inpage it is, and is in a bundle.
VERSION = "client/version.js"
_NOT_IN_PAGE = ("bench/", "cli/", "_web/", "_models/", "engines/native", "responses/sqlite.py")
_RECORD = "bundled.json"
# Of esbuild, for the package too (tools/package.py).
OPTIONS = ("--bundle", "--format=esm", "--target=es2022", "--log-level=warning")


def sources() -> dict[str, Path]:
    """The page's modules, by their path below ``web``."""
    web = paths.web()
    found = (path for folder in FOLDERS for path in (web / folder).rglob("*.js"))
    return {path.relative_to(web).as_posix(): path for path in sorted(found)}


def modules() -> dict[str, Path]:
    """The page's Python, by its path in the package."""
    own = {path.relative_to(paths.PACKAGE).as_posix(): path for path in sorted(paths.PACKAGE.rglob("*.py"))}
    return {name: path for name, path in own.items() if not name.startswith(_NOT_IN_PAGE)}


def version() -> str:
    """Of inpage in the page: another one if any of its files is."""
    return _digest(sources() | modules() | {"vendor.json": paths.web() / "vendor.json"})


def version_option(version: str) -> str:
    """Of esbuild: what client/version.js says."""
    return f'--define:globalThis.INPAGE_VERSION="{version}"'


def version_script() -> bytes:
    return f'export const VERSION = "{version()}";\n'.encode()


def bundled() -> dict[str, Path]:
    """What stands in for the modules of the same name, and what that imports; nothing where it cannot be made."""
    folder = paths.web() / "bundled"
    digest = version()
    names = _recorded(folder, digest)
    if names is None and (esbuild := _esbuild()) is not None:
        _bundle(esbuild, folder, digest)
        names = _recorded(folder, digest)
    return {name: folder / name for name in names or ()}


def apart() -> frozenset[str]:
    """Modules that no page of ours loads: they are in a bundle, and stay for who imports one by itself."""
    made = bundled()
    return frozenset(sources().keys() - made.keys()) if made else frozenset()


def _recorded(folder: Path, digest: str) -> list[str] | None:
    try:
        record = json.loads((folder / _RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return record["files"] if record["sources"] == digest else None


def _bundle(esbuild: Path, folder: Path, digest: str) -> None:
    made = Path(tempfile.mkdtemp(prefix="bundled-", dir=folder.parent))  # others may make it at the same time
    split = ("--splitting", "--chunk-names=client/shared-[hash]", '--define:import.meta.up="../"')
    _run(esbuild, PAGES, made, *split, version_option(digest))
    for up in sorted(set(WORKERS.values())):
        entries = tuple(name for name, own in WORKERS.items() if own == up)
        _run(esbuild, entries, made, f'--define:import.meta.up="{up}"')
    files = sorted(path.relative_to(made).as_posix() for path in made.rglob("*.js"))
    (made / _RECORD).write_text(json.dumps({"sources": digest, "files": files}) + "\n", "utf-8")
    made.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        made.rename(folder)
    except OSError:
        shutil.rmtree(made, ignore_errors=True)
        if _recorded(folder, digest) is None:
            raise


def _run(esbuild: Path, entries: tuple[str, ...], out: Path, *options: str) -> None:
    web = paths.web()
    inputs = [str(web / name) for name in entries]
    command = [
        str(esbuild),
        *inputs,
        *OPTIONS,
        "--external:../vendor/*",
        *options,
        f"--outbase={web}",
        f"--outdir={out}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unsupported(f"esbuild cannot bundle the site's scripts:\n{done.stderr.strip()}")


def _esbuild() -> Path | None:
    root = paths.checkout()
    tool = root / "node_modules/.bin/esbuild" if root else None
    return tool if tool and tool.exists() else None


def _digest(files: dict[str, Path]) -> str:
    """Of the files and of how they are bundled."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name, path in files.items():
        digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
