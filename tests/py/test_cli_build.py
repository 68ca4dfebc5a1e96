"""`inpage build` publishes what an artifact's manifest describes and nothing else; files of others stay as they are."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from inpage.cli import examples, main, scripts, service_worker, site, snapshot
from inpage.cli.out_folder import RECORD
from inpage.errors import ArtifactInvalid, InvalidRequest
from inpage.format.manifest import parse_manifest, revision_of
from inpage_compile.pipeline import compile_model
from support.models import first_ways, tiny_artifact, tiny_file

WEB = Path(__file__).resolve().parents[2] / "web"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_artifact("mixed"), tmp_path / "model"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every build compresses the same files again, to say how large they are; test_cli.py reads what it says."""
    monkeypatch.setattr("inpage.cli.site.package_zip", _package)
    monkeypatch.setattr("inpage.cli.site.sizes", lambda _: [])


_package = functools.cache(site.package_zip)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_text("no page may have this")
    return path


def edited(model: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The manifest with a change, sealed again."""
    manifest = json.loads((model / "manifest.json").read_text())
    change(manifest)
    manifest["revision"] = revision_of({k: v for k, v in manifest.items() if k != "revision"})
    (model / "manifest.json").write_text(json.dumps(manifest))
    return model


def build(model: Path, out: Path, *more: str) -> int:
    return main(["build", "--model", str(model), "--out", str(out), *more])


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }


PUBLISHED = ["NOTICES.txt", "tokenizer.json", "weights/00000.bin", "wasm-simd/plan.json", "wasm-simd/kernels.wasm"]


@pytest.mark.parametrize("name", [*PUBLISHED, "manifest.json"])
@pytest.mark.parametrize("kind", ["link", "same", "hanging", "folder", "pipe", "device"])
def test_only_regular_files_of_the_artifact_are_published(
    model: Path, secret: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    path = model / name
    shutil.copy(path, tmp_path / "same")
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        places = {"link": secret, "same": tmp_path / "same", "hanging": tmp_path / "none", "device": Path("/dev/zero")}
        path.symlink_to(places[kind])
    assert build(model, tmp_path / "site") == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert str(path) in err or (name == "manifest.json" and "no compiled model" in err)
    assert not any((tmp_path / "site").rglob("*")) if (tmp_path / "site").exists() else True


def test_a_linked_folder_in_the_artifact_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "weights").rename(tmp_path / "elsewhere")
    (model / "weights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactInvalid, match="is a link") as e:
        site.files([model])
    assert e.value.field == "weights.shards[0].file"


def test_the_artifact_itself_may_be_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(model)
    assert site.files([tmp_path / "link"]).keys() == site.files([model]).keys()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("change", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b + b"\n", lambda b: b[:-1]])
def test_a_file_that_is_not_what_the_manifest_says_is_named(
    model: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    stat = (model / name).stat()
    (model / name).write_bytes(change((model / name).read_bytes()))
    os.utime(model / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(ArtifactInvalid, match=name) as e:
        site.files([model])
    assert e.value.field and e.value.field.endswith((".bytes", ".sha256"))


def test_files_of_other_levels_are_checked_too(tmp_path: Path) -> None:
    with tiny_file("q8_0") as source, first_ways():
        model = compile_model(str(source), tmp_path / "levels", variants=("wasm-simd",), levels=("source", "q4_1"))
    names = {name for name in site.files([model]) if name.startswith("models/")}
    assert any("/q4_1/" in name for name in names)
    for name in ("q4_1/manifest.json", "q4_1/wasm-simd/plan.json"):
        good = (model / name).read_bytes()
        (model / name).write_bytes(good[:-1] + b" ")
        with pytest.raises(ArtifactInvalid, match=name):
            site.files([model])
        (model / name).write_bytes(good)


def test_two_models_of_one_id_are_refused(model: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other"))
    with pytest.raises(InvalidRequest, match="both the model"):
        site.files([model, other])


FORGED = [
    "Model\n" + "=" * 100 + "\nPyodide (proprietary)",
    "a\rb",
    "a\x1b[2J",
    "a\x00b",
    "a\u2028b",
    "a\x85b",
    "\u202eb",
    "x" * 501,
]


@pytest.mark.parametrize("text", FORGED)
@pytest.mark.parametrize("field", ["name", "license.id", "source.ref", "source.file"])
def test_texts_that_stand_in_a_line_are_one_line(model: Path, field: str, text: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        *folders, key = field.split(".")
        for each in folders:
            manifest = manifest[each]
        manifest[key] = text

    with pytest.raises(ArtifactInvalid) as e:
        site.files([edited(model, change)])
    assert e.value.field == field


@pytest.mark.parametrize("text", ["Qwen3-0.6B – 通义千问", "Modèle d'été", "نموذج", "🦙 Llama 👩‍💻"])
def test_names_in_any_script_are_good(model: Path, text: str) -> None:
    files = site.files([edited(model, lambda manifest: manifest.update(name=text))])
    notices = files["NOTICES.txt"]
    assert isinstance(notices, bytes) and f"Model {text} (" in notices.decode()


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n", "\u2028", "\x85", "\v"])
def test_a_models_notices_cannot_begin_a_section_of_their_own(model: Path, newline: str) -> None:
    rule = "=" * 100
    forged = newline.join(["Mine", rule, "Pyodide (proprietary)", f" {rule} ", "", "Pay up."])

    def change(manifest: dict[str, Any]) -> None:
        manifest["license"] = {"id": "MIT", "notices": "NOTICES.txt"}  # as compilers that wrote no hash left it

    (model / "NOTICES.txt").write_bytes(forged.encode())
    text = site.files([edited(model, change)])["NOTICES.txt"]
    assert isinstance(text, bytes)
    rules = [line for line in text.decode().splitlines() if line.strip() == rule]
    headings = 2 * (1 + 1 + len(site.vendor.packages(examples=False, backends=())) + len(site.vendor.python_packages()))
    assert len(rules) == headings
    assert "Pay up." in text.decode()


@pytest.mark.parametrize(
    ("backend", "loaded", "notice"),
    [
        (
            "onnx",
            [
                "onnxruntime/ort-wasm-simd-threaded.js",
                "onnxruntime/ort-wasm-simd-threaded.wasm",
                "onnxruntime/ort.wasm.js",
            ],
            b"onnxruntime-web 1.30.0 (MIT)",
        ),
        ("mlc", ["webllm/web-llm.js"], b"@mlc-ai/web-llm 0.2.86 (Apache-2.0)"),
    ],
)
def test_a_runtime_comes_only_with_models_that_need_it(
    backend: str, loaded: list[str], notice: bytes, model: Path
) -> None:
    def runtime(files: dict[str, Path | bytes]) -> list[str]:
        found = (name.removeprefix("vendor/") for name in files)
        return sorted(name for name in found if name.startswith(("onnxruntime/", "webllm/")))

    assert runtime(site.files([model])) == []
    (model / "sampler.wasm").write_bytes(b"sampler")

    def change(manifest: dict[str, Any]) -> None:
        file = {"file": "sampler.wasm", "bytes": 7, "sha256": hashlib.sha256(b"sampler").hexdigest()}
        manifest["variants"].append({"name": "another", "backend": backend, "requires": [], "sampler": file})

    files = site.files([edited(model, change)])
    assert runtime(files) == loaded
    kept, notices = files["sw.js"], files["NOTICES.txt"]
    assert isinstance(kept, bytes) and not any(name.encode() in kept for name in loaded)  # megabytes: kept when used
    assert isinstance(notices, bytes) and notice in notices


def test_names_from_a_gguf_file_are_made_one_line(tmp_path: Path) -> None:
    from support.tiny import MODELS

    source = MODELS["nine"].write(tmp_path / "two\nlines.gguf")
    with first_ways():
        model = compile_model(str(source), tmp_path / "model", variants=("wasm-simd",), accept_license=True)
    assert parse_manifest((model / "manifest.json").read_bytes()).source.ref == "two lines.gguf"


def test_the_service_worker_keeps_what_a_page_loads_and_begins_anew_with_each_change(model: Path) -> None:
    files = site.files([model])

    def kept(worker: bytes) -> dict[str, Any]:
        line, _, script = worker.decode().partition("\n")
        assert script == f"{(WEB / 'offline.js').read_text()}\n{(WEB / 'sw.js').read_text()}"
        listed: dict[str, Any] = json.loads(line.removeprefix("self.inpageFiles = ").removesuffix(";"))
        return listed

    worker = files["sw.js"]
    assert isinstance(worker, bytes)
    listed = kept(worker)
    bundled = scripts.bundled().keys()
    assert {"app/app.js", "client/inpage.js", "router/worker.js"} <= bundled
    wanted = {name for name in files if not name.startswith(("models/", "python-"))}
    wanted -= {"sw.js", "NOTICES.txt", *scripts.apart()}
    assert listed["files"].keys() == wanted
    for name, digest in listed["files"].items():
        content = files[name]
        data = content if isinstance(content, bytes) else content.read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()
    assert listed["late"] == ["vendor/xgrammar/xgrammar.js"]
    changed = kept(service_worker.script({name: files[name] for name in wanted} | {"index.html": b"another"}))
    assert changed["revision"] != listed["revision"]
    assert kept(service_worker.script({name: files[name] for name in wanted})) == listed


def test_what_an_earlier_build_wrote_is_removed_and_nothing_else(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert build(model, out, "--examples") == 0
    assert (out / "examples" / "style.css").is_file()
    mine = {"notes.txt": "mine", "app/old.js": "mine", "examples/mine/page.html": "mine", "models/other/x.bin": "mine"}
    for name, text in mine.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    (out / "empty").mkdir()
    (out / "link").symlink_to(tmp_path)
    (out / "examples" / "javascript" / "index.html").write_text("changed by hand")
    assert build(model, out) == 0
    assert all((out / name).read_text() == text for name, text in mine.items())
    assert (out / "empty").is_dir() and (out / "link").is_symlink()
    left = {path.relative_to(out).as_posix() for path in (out / "examples").rglob("*") if path.is_file()}
    assert left == {"examples/mine/page.html", "examples/javascript/index.html"}
    assert set(json.loads((out / RECORD).read_text())["files"]) == set(tree(out)) - {
        RECORD, "link", "examples/javascript/index.html", *mine
    }  # fmt: skip


def test_a_site_without_the_compiler_is_without_the_page_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = examples.files()
    assert {"examples/search/top_k.wasm", "examples/search/page.js"} < set(whole) and examples.missing() == ""
    assert not [name for name in whole if name.endswith((".c", ".md")) or "/next/" in name]

    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("inpage.cli.wasm_module.version", version)
    assert set(examples.files()) == {name for name in whole if "/search/" not in name}
    assert "top_k.c needs ziglang" in examples.missing()


def test_a_second_build_writes_only_what_changed_and_heals_what_is_damaged(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "site"
    assert build(model, out) == 0
    before = {path: path.stat().st_ino for path in out.rglob("*") if path.is_file() and path.name != RECORD}
    shard = next((out / "models").glob("*/weights/00000.bin"))
    stat = shard.stat()
    shard.write_bytes(b"\0" * stat.st_size)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert build(model, out) == 0
    assert shard.read_bytes() == (model / "weights" / "00000.bin").read_bytes()
    assert {path for path, inode in before.items() if path.stat().st_ino != inode} == {shard}


@pytest.mark.parametrize("name", ["index.html", "app/app.js", "examples", "vendor/pyodide"])
@pytest.mark.parametrize("kind", ["file", "link", "link to a folder"])
def test_a_foreign_file_in_the_way_is_named_and_nothing_changes(
    model: Path, secret: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    out, outside = tmp_path / "site", tmp_path / "outside"
    outside.mkdir()
    assert build(model, out) == 0
    record = json.loads((out / RECORD).read_text())
    record["files"] = {path: hashes for path, hashes in record["files"].items() if not path.startswith(name)}
    (out / RECORD).write_text(json.dumps(record))
    path = out / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.write_text("mine") if kind == "file" else path.symlink_to(secret if kind == "link" else outside)
    before = tree(out)
    assert build(model, out, "--examples") == 1
    assert str(path) in capsys.readouterr().err.splitlines()[-1]
    assert tree(out) == before
    assert secret.read_text() == "no page may have this" and not any(outside.iterdir())


@pytest.mark.parametrize("name", ["site.json", "build.json", "index.html", "notes.txt", ".hidden"])
def test_a_folder_of_someone_else_is_refused_as_it_is(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text("{}")
    before = tree(out)
    assert build(model, out) == 1
    assert f"{out} is not empty and no site" in capsys.readouterr().err
    assert tree(out) == before
    assert build(model, out / name) == 1
    assert "is no folder" in capsys.readouterr().err


def test_a_record_cannot_reach_outside(
    model: Path, secret: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    digest = hashlib.sha256(secret.read_bytes()).hexdigest()
    assert build(model, out) == 0
    (out / "gone").symlink_to(tmp_path)
    for name in ("../secret.txt", str(secret), "gone/secret.txt", "a/../../secret.txt"):
        record = json.loads((out / RECORD).read_text())
        (out / RECORD).write_text(json.dumps({"files": {**record["files"], name: [digest]}}))
        build(model, out)
        assert secret.exists()
        (out / RECORD).write_text(json.dumps(record))
    for text in ("", "{", "[]", '{"files": []}', '{"files": {"a": "b"}}', "[" * 100_000):
        (out / RECORD).write_text(text)
        before = tree(out)
        capsys.readouterr()
        assert build(model, out) == 1
        assert "is damaged" in capsys.readouterr().err.splitlines()[-1]
        assert tree(out) == before


def test_a_build_that_was_cut_off_is_taken_up(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "site"
    for cut in (0, 1, 7, 30):
        left = [cut]

        def copy(source: Path, target: Path, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                target.write_bytes(source.read_bytes()[:3])
                raise OSError(28, "No space left on device", str(target))
            target.write_bytes(source.read_bytes())

        with monkeypatch.context() as patch:
            patch.setattr("inpage.cli.out_folder.shutil.copyfile", copy)
            assert build(model, out, "--examples") == 1
            assert "No space left" in capsys.readouterr().err
    assert build(model, out) == 0
    assert set(tree(out)) == {*site.files([model]), RECORD}


def test_one_build_at_a_time(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    out = tmp_path / "site"
    out.mkdir()
    folder = os.open(out, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    assert build(model, out) == 1
    assert "another build" in capsys.readouterr().err
    os.close(folder)
    assert build(model, out) == 0


def test_compiling_over_a_folder_keeps_what_no_compiler_wrote(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tiny_file("nine") as source:
        again = ["compile", str(source), "--variants", "wasm-simd", "--accept-license", "--out"]
        (model / "notes.txt").write_text("mine")
        assert main([*again, str(model)]) == 1
        assert "notes.txt" in capsys.readouterr().err.splitlines()[-1]
        assert (model / "notes.txt").read_text() == "mine"
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "build.json").write_text('{"scripts": {}}')
        (tmp_path / "mine" / "main.c").write_text("int main;")
        assert main([*again, str(tmp_path / "mine")]) == 1
        assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["build.json", "main.c"]
        (model / "notes.txt").unlink()
        assert main([*again, str(model)]) == 0


OLD_NODE = """#!/bin/sh
if [ "$1" = --version ]; then echo v12.22.0; exit; fi
echo "file:///made.mjs:1" >&2
echo "SyntaxError: Unexpected token" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("node", "why"), [(None, "no Node.js was found"), (OLD_NODE, "(v12.22.0) failed: SyntaxError")]
)
def test_a_site_is_built_without_node_or_with_one_that_is_too_old_and_says_so(
    node: str | None,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    model: Path,
) -> None:
    monkeypatch.setattr(snapshot, "kept", lambda: tmp_path / "none")
    (tmp_path / "bin").mkdir()
    if node:
        program = tmp_path / "bin/node"
        program.write_text(node)
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert build(model, tmp_path / "site") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "snapshot" in line]
    assert len(lines) == 1
    assert why in lines[0]
    record = json.loads((tmp_path / "site/python.json").read_text())
    assert record["file"] is None
    assert why in record["why"]
    assert not list((tmp_path / "site").glob("python-*"))
