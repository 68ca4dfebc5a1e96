"""What a site consists of: every file's place, from the web sources, the vendored files, the package and the models.

A site is a mapping from URL path to a file or its content, so that `build` can write it and `chat` can serve it
without a copy. The same inputs give the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import InvalidRequest
from ..format.manifest import Manifest, Perplexity
from . import examples as example_pages
from . import paths, scripts, service_worker, snapshot, vendor
from .artifact_files import levels_of, page_files, read_manifest, read_notices

_SCRIPTS = (".js", ".mjs", ".wgsl", ".css", ".html", ".svg", ".png", ".ico", ".webmanifest")
# What the service worker does not keep from the start: weights are in the engine's storage, the rest is kept when used.
# Python's snapshot is used once, then lies in the page's own storage: a precache would fetch it for nothing.
# ONNX Runtime and web-llm are large, and kept when they are used.
_LARGE = ("vendor/onnxruntime/", "vendor/webllm/")
_NOT_KEPT = (*_LARGE, "models/", "examples/", "vendor/pyscript/", "answers.json", "python-")
_RULE = "=" * 100
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


def files(
    artifacts: Sequence[Path], *, examples: bool = False, answers: bytes | None = None, hashes: bool = True
) -> dict[str, Path | bytes]:
    """URL path → content, sorted by path. ``artifacts``: folders of compiled models, the first being what the page
    opens with. ``examples``: also the example pages and what they load. ``answers``: a bundle, see `answers`.
    ``hashes``: check those of the artifacts' files; not needed where a page of this process verifies them at once.
    Raises `ArtifactInvalid` for a file that is not what its manifest says, or no regular file inside its artifact."""
    site: dict[str, Path | bytes] = {}
    manifests = [read_manifest(folder) for folder in artifacts]
    places: dict[str, Path] = {}  # by id as a file system without upper and lower case has it
    for folder, manifest in zip(artifacts, manifests, strict=True):
        other = places.setdefault(manifest.id.lower(), folder)
        if other is not folder:
            raise InvalidRequest(f"{other} and {folder} are both the model {manifest.id}: leave one out", field="model")
        inside = page_files(folder, manifest, hashes=hashes)
        site |= {f"models/{manifest.id}/{name}": path for name, path in inside.items()}
    web = paths.web()
    for part in scripts.FOLDERS:
        for path in _tree(web / part):
            if path.suffix in _SCRIPTS:
                site[f"{part}/{path.relative_to(web / part).as_posix()}"] = path
    site |= scripts.bundled() | {scripts.VERSION: scripts.version_script()}
    site["index.html"] = site.pop("app/index.html")
    backends = _backends(artifacts, manifests)
    vendored = vendor.ensure(backends)
    site |= {f"vendor/{name}": vendored / name for name in vendor.wanted(examples=examples, backends=backends)}
    if examples:
        site |= example_pages.files()
    site["inpage.zip"] = package = package_zip()
    site |= snapshot.files(package)
    models = [_described(manifest) for manifest in manifests]
    described: dict[str, object] = {"models": models}
    if answers is not None:
        site["answers.json"] = answers
        described["answers"] = "answers.json"
    site["site.json"] = (json.dumps(described, ensure_ascii=False, indent=1) + "\n").encode()
    apart = scripts.apart()
    kept = [name for name in site if not name.startswith(_NOT_KEPT) and name not in apart]
    site["sw.js"] = service_worker.script({name: site[name] for name in kept})
    site["NOTICES.txt"] = notices(artifacts, manifests, examples=examples).encode()
    return dict(sorted(site.items()))


def _backends(artifacts: Sequence[Path], manifests: Sequence[Manifest]) -> set[str]:
    """Those of every level's variants."""
    every = [*manifests]
    for folder, manifest in zip(artifacts, manifests, strict=True):
        every += levels_of(folder, manifest)
    return {variant.backend for manifest in every for variant in manifest.variants}


def _described(manifest: Manifest) -> dict[str, object]:
    """A model as site.json has it: what a page says of it before anything is loaded."""
    measured = manifest.perplexity
    levels = [
        {"name": level.name, "bytes": level.bytes}
        | ({"cost": _cost(level.perplexity, measured)} if measured and level.perplexity else {})
        for level in manifest.levels
    ]
    return {
        "id": manifest.id,
        "name": manifest.name,
        "path": f"models/{manifest.id}/",
        "bytes": manifest.weights.bytes,
        "license": manifest.license.id,
        "context": manifest.architecture.context,
        "parameters": sum(math.prod(tensor.shape) for tensor in manifest.tensors),
        **({"levels": levels} if levels else {}),
        **({"cost": _cost(measured.value, measured)} if measured else {}),
    }


def _cost(perplexity: float, measured: Perplexity) -> float:
    """By how much a level's is above the source's."""
    return round(perplexity / measured.source - 1, 4)


def package_zip() -> bytes:
    """The ``inpage`` package as the page's Python imports it, without the command line and the native engine, and the
    packages that it imports there."""
    vendor.ensure()
    files = {f"inpage/{name}": path for name, path in scripts.modules().items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in (files | vendor.python_modules()).items():
            info = zipfile.ZipInfo(name, _LONG_AGO)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    return buffer.getvalue()


def notices(artifacts: Sequence[Path], manifests: Sequence[Manifest], *, examples: bool = False) -> str:
    """The notices of everything that a site holds."""
    web = paths.web()
    sections = [("inpage (Apache-2.0)", _own_notice())]
    for package in vendor.packages(examples=examples, backends=_backends(artifacts, manifests)):
        if "notice" in package:
            text = (web / package["notice"]).read_text("utf-8")
        else:
            text = (paths.vendor() / package["folder"] / "LICENSE").read_text("utf-8")
        sections.append((f"{package['name']} {package['version']} ({package['license']})", text))
    for package in vendor.python_packages():
        text = (paths.vendor() / vendor.PYTHON / package["notice"]).read_text("utf-8")
        sections.append((f"{package['name']} {package['version']} ({package['license']})", text))
    for folder, manifest in zip(artifacts, manifests, strict=True):
        text = _within(read_notices(folder, manifest))
        sections.append((f"Model {manifest.name} ({manifest.license.id})", text))
    return "\n".join(f"{_RULE}\n{title}\n{_RULE}\n\n{text.strip()}\n" for title, text in sections)


def _within(text: str) -> str:
    """A model's notices as a section: no line of them can pass for the heading of another one."""
    text = re.sub(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", text)
    return re.sub(r"^(?=\s*={60,}\s*$)", "| ", text, flags=re.MULTILINE)


def sizes(site: dict[str, Path | bytes]) -> list[tuple[str, int, int]]:
    """(part, bytes, bytes gzipped) of what a visit loads, by part; weights do not compress and count as they are."""
    parts: dict[str, tuple[int, int]] = {}
    apart = scripts.apart()
    for name, content in site.items():
        if name in apart:
            continue
        data = content if isinstance(content, bytes) else content.read_bytes()
        part = _part(name)
        packed = len(data) if part == "weights" else len(gzip.compress(data, 6, mtime=0))
        raw, small = parts.get(part, (0, 0))
        parts[part] = (raw + len(data), small + packed)
    return [(part, *parts[part]) for part in sorted(parts)]


def _part(name: str) -> str:
    """``vendor/pyodide``, ``models/tokenizer.json`` …: what a person wants to see the size of."""
    pieces = name.split("/")
    if pieces[0] == "models":
        return "weights" if pieces[2] == "weights" else f"model: {pieces[2]}"
    if name.startswith("python-"):
        return "Python's snapshot"
    return "/".join(pieces[:2]) if pieces[0] == "vendor" else pieces[0]


def _own_notice() -> str:
    root = paths.checkout()
    if root:
        return (root / "NOTICE").read_text("utf-8") + "\n" + (root / "LICENSE").read_text("utf-8")
    from importlib.metadata import files as installed

    wanted = [file for file in installed("inpage") or () if file.parent.name == "licenses"]
    return "\n".join(file.read_text("utf-8") for file in sorted(wanted, key=lambda f: f.name, reverse=True))


def _tree(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
