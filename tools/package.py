"""Makes the npm package: ``python tools/package.py`` → ``build/npm/`` and ``build/inpage-<version>.tgz``.

Each worker becomes one file without imports, so that a bundler has only to copy it; the entries (``web/npm/``) name
all files by ``new URL("…", import.meta.url)``. Types come from the JSDoc of the sources.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from inpage.cli import scripts, service_worker, snapshot, vendor
from inpage.cli.site import notices, package_zip

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "web"
OUT = ROOT / "build/npm"

# Where each worker goes, below dist/.
WORKERS = {
    "router/worker.js": "files/router",
    "router/memory_worker.js": "files/memory",
    "router/text_worker.js": "files/text",
    "engine/worker.js": "files/engine",
    "engine/wasm/thread.js": "files/thread",
    "engine/storage/prefetch_worker.js": "files/prefetch",
    "engine/grammar/grammar_worker.js": "grammar/worker",
}
COPIED = {
    "engine/webgpu/choosing.wgsl": "files/choosing.wgsl",
    "engine/webgpu/sampling.wgsl": "files/sampling.wgsl",
    "vendor/pyodide/pyodide-lock.json": "files/pyodide-lock.json",
    "vendor/pyodide/pyodide.asm.js": "files/pyodide.asm.js",
    "vendor/pyodide/pyodide.asm.wasm": "files/pyodide.asm.wasm",
    "vendor/pyodide/python_stdlib.zip": "files/python_stdlib.zip",
    "vendor/xgrammar/xgrammar.js": "grammar/xgrammar.js",
}
# Python's: bundlers name it by its hash, as `inpage build` does.
SNAPSHOT = "python.bin"
# Entry → its file in web/npm.
ENTRIES = {".": "inpage", "./ai-sdk": "ai-sdk", "./grammar": "grammar", "./openai": "openai", "./react": "react"}
# What an entry imports that its user has, and nobody else needs.
PEERS = {"@ai-sdk/provider": ">=4", "react": ">=18"}
NOTHING = {"import": "Promise.resolve({})", "require": "({})"}
# Vite's build puts smaller files into the code as data: URLs, and a worker of such a URL has no storage.
INLINED = 4096


def main() -> None:
    vendor.ensure()
    shutil.rmtree(OUT, ignore_errors=True)
    dist = OUT / "dist"
    bundle(dist)
    for source, name in COPIED.items():
        place(dist / name, (WEB / source).read_bytes())
    package = package_zip()
    place(dist / "files/inpage.zip", package)
    record, memory = snapshot.ensure(package)
    place(dist / f"files/{SNAPSHOT}", memory.read_bytes())
    place(dist / f"files/{snapshot.RECORD}", json.dumps({**record, "file": SNAPSHOT}).ljust(INLINED + 1).encode())
    for path in sorted(dist.glob("*/*")):
        if path.suffix == ".js":
            path.write_text(opaque(path.read_text("utf-8")), "utf-8")
        if path.stat().st_size <= INLINED:
            padded(path)
    types()
    kept = {path.relative_to(dist).as_posix(): path for path in dist.rglob("*") if path.is_file()}
    for name in ("ai-sdk.js", "react.js"):  # for bundlers only: they import what their user has
        kept.pop(name)
    kept.pop(f"files/{SNAPSHOT}")  # once it was used it is in the page's own storage
    place(dist / "sw.js", service_worker.script(kept))
    place(OUT / "types/sw.d.ts", b"export {};\n")
    shutil.copyfile(WEB / "npm/cli.js", made(OUT / "bin/inpage.js"))
    shutil.copyfile(ROOT / "docs/embedding.md", OUT / "README.md")
    shutil.copyfile(ROOT / "LICENSE", OUT / "LICENSE")
    (OUT / "NOTICES.txt").write_text(notices([], []), "utf-8")
    described = manifest()
    (OUT / "package.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")
    run("npm", "pack", "--silent", "--pack-destination", str(ROOT / "build"), cwd=OUT)
    report(ROOT / f"build/inpage-{described['version']}.tgz")


def bundle(dist: Path) -> None:
    """The entries share what they have in common; of a worker, all is in its file, what it imports later included."""
    common = [*scripts.OPTIONS, scripts.version_option(scripts.version())]
    common.append("--define:import.meta.resolve=undefined")  # engine/host/places.js
    entries = [str(WEB / f"npm/{name}.js") for name in ENTRIES.values()]
    shared = ["--splitting", "--chunk-names=shared-[hash]"]
    run("esbuild", *entries, *common, *shared, *(f"--external:{peer}" for peer in PEERS), f"--outdir={dist}")
    workers = [f"{name}={WEB / source}" for source, name in WORKERS.items()]
    run("esbuild", *workers, *common, "--minify", "--external:node:*", "--external:ws", f"--outdir={dist}")


def opaque(code: str) -> str:
    """Without Pyodide's and XGrammar's branches for Node.js: a development server looks for what they import."""
    return re.sub(r"\b(import|require)\((['\"])(ws|module|node:[a-z_/]+)\2\)", lambda found: NOTHING[found[1]], code)


def padded(path: Path) -> None:
    """Larger than what bundlers inline."""
    licence = (ROOT / "LICENSE").read_text("utf-8")
    path.write_text(f"{path.read_text('utf-8')}\n/*!\n{licence}\n*/\n", "utf-8")


def types() -> None:
    run("tsc", "-p", "tsconfig.package.json", "--outDir", str(OUT / "types"))


def manifest() -> dict[str, Any]:
    root = json.loads((ROOT / "package.json").read_text("utf-8"))
    exports: dict[str, Any] = {
        entry: {"types": f"./types/npm/{name}.d.ts", "default": f"./dist/{name}.js"} for entry, name in ENTRIES.items()
    }
    exports["./sw"] = {"types": "./types/sw.d.ts", "default": "./dist/sw.js"}
    return {
        "name": "inpage",
        "version": root["version"],
        "description": "LLM inference inside the web page",
        "license": root["license"],
        "type": "module",
        "bin": {"inpage": "bin/inpage.js"},
        "exports": {**exports, "./package.json": "./package.json"},
        "files": ["bin", "dist", "types", "NOTICES.txt"],
        "peerDependencies": PEERS,
        "peerDependenciesMeta": {peer: {"optional": True} for peer in PEERS},
    }


def report(archive: Path) -> None:
    """What it weighs, by what a page loads: raw and with gzip."""
    parts: dict[str, list[int]] = {}
    for path in sorted((OUT / "dist").rglob("*")):
        if not path.is_file():
            continue
        name = path.name
        kind = "client" if path.parent.name == "dist" else "grammars" if path.parent.name == "grammar" else "workers"
        if name.startswith(("pyodide", "python")):
            kind = "snapshot" if name in (SNAPSHOT, snapshot.RECORD) else "Pyodide"
        data = path.read_bytes()
        sizes = parts.setdefault(kind, [0, 0])
        sizes[0] += len(data)
        sizes[1] += len(gzip.compress(data, 6, mtime=0))
    for kind, (raw, small) in parts.items():
        print(f"{kind:10} {raw / 1e6:7.2f} MB {small / 1e6:7.2f} MB gzip")
    print(f"{archive.relative_to(ROOT)}: {archive.stat().st_size / 1e6:.2f} MB")


def place(path: Path, data: bytes) -> None:
    made(path).write_bytes(data)


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def run(*command: str, cwd: Path = ROOT) -> None:
    tool = ROOT / "node_modules/.bin" / command[0]
    done = subprocess.run([str(tool) if tool.exists() else command[0], *command[1:]], cwd=cwd, check=False)
    if done.returncode:
        sys.exit(f"{command[0]} failed")


if __name__ == "__main__":
    main()
