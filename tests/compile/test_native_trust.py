"""Native kernels run only where this user compiled them, or where the caller says so."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inpage import Router
from inpage.cli import doctor, main, paths
from inpage.engines import native
from inpage.engines.native import NativeEngine
from inpage.engines.native_trust import RECORD, config_folder, stamp
from inpage.errors import Unsupported, Untrusted
from inpage.format.manifest import parse_manifest, revision_of
from inpage.models import Models
from inpage_compile.pipeline import compile_model
from support.models import manifest_of, tiny_artifact
from support.toy import write_toy


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another user's config folder, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "inpage"


def moved(folder: Path) -> Path:
    """A compiled model whose stamps come from the machine that runs the tests."""
    return Path(shutil.copytree(tiny_artifact("nine"), folder / "model"))


async def refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message of the refusal, which comes before the library is opened."""
    with monkeypatch.context() as patch:
        patch.setattr(native, "open_kernels", lambda _: pytest.fail("the library was opened"))
        with pytest.raises(Untrusted) as e:
            await NativeEngine.load(folder, manifest_of.__wrapped__(folder), threads=1)
    assert isinstance(e.value, Unsupported) and (e.value.code, e.value.field) == ("untrusted", "trust")
    assert "trust=True" in str(e.value) and "--trust" in str(e.value) and "kernels.so" in str(e.value)
    return str(e.value)


async def runs(folder: Path, **options: Any) -> None:
    engine = await NativeEngine.load(folder, manifest_of.__wrapped__(folder), threads=1, **options)
    await engine.unload()


async def test_what_this_machine_compiled_runs_wherever_it_is_copied(tmp_path: Path) -> None:
    await runs(moved(tmp_path))


async def test_a_folder_of_another_machine_runs_only_with_trust(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = moved(tmp_path)
    assert f"there is no {home / 'key'}" in await refused(folder, monkeypatch)
    assert not home.exists()  # looking makes no key
    stamp("0" * 64)
    assert "no stamp under" in await refused(folder, monkeypatch)
    await runs(folder, trust=True)


def strip(record: dict[str, Any]) -> Any:
    return {**record, "stamps": {}}


def borrowed(record: dict[str, Any]) -> Any:
    """The stamp of other kernels."""
    return {**record, "stamps": dict.fromkeys(record["stamps"], stamp("1" * 64))}


@pytest.mark.parametrize(
    "change",
    [
        strip,
        borrowed,
        lambda record: {**record, "stamps": dict.fromkeys(record["stamps"], None)},
        lambda record: {**record, "stamps": dict.fromkeys(record["stamps"], "ü" * 64)},
        lambda record: {**record, "stamps": list(record["stamps"])},
        lambda record: {"fingerprint": record["fingerprint"]},
        lambda record: [],
        lambda record: "[" * 100_000,
    ],
)
async def test_a_record_without_the_right_stamp_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]
) -> None:
    folder = moved(tmp_path)
    changed = change(json.loads((folder / RECORD).read_text()))
    (folder / RECORD).write_text(changed if isinstance(changed, str) else json.dumps(changed))
    await refused(folder, monkeypatch)


async def test_a_stamp_is_for_those_bytes_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that were exchanged, with a manifest that says so and the record of what was there before."""
    folder = moved(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    kernels = (folder / "native" / "kernels.so").read_bytes() + b"\0"
    (folder / "native" / "kernels.so").write_bytes(kernels)
    entry = next(v for v in manifest["variants"] if v["name"] == "native")["kernels"]
    entry |= {"bytes": len(kernels), "sha256": hashlib.sha256(kernels).hexdigest()}
    manifest["revision"] = revision_of(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    await refused(folder, monkeypatch)
    await runs(folder, trust=True)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
async def test_a_key_that_others_can_read_vouches_for_nothing(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    write_toy(tmp_path)
    key = home / "key"
    assert (stat.S_IMODE(key.stat().st_mode), stat.S_IMODE(home.stat().st_mode)) == (0o600, 0o700)
    await runs(tmp_path)
    key.chmod(mode)
    assert "chmod 600" in await refused(tmp_path, monkeypatch)
    key.chmod(0o600)
    key.write_bytes(key.read_bytes()[:-1])
    await refused(tmp_path, monkeypatch)
    assert [path.name for path in home.iterdir()] == ["key"]


def test_without_a_place_for_a_key_a_model_compiles_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert stamp("0" * 64) is None
    assert config_folder() == tmp_path / "config" / "inpage"


async def test_every_way_to_load_takes_trust(tmp_path: Path, home: Path) -> None:
    folder = moved(tmp_path)
    with pytest.raises(Untrusted):
        await Router.load(folder)
    async with await Router.load(folder, trust=True) as router:
        assert router.info["backend"] == "native"
    async with Models() as models:
        models.add(folder, name="plain")
        models.add(folder, name="trusted", trust=True)
        with pytest.raises(Untrusted):
            await models.preload("plain")
        await models.preload("trusted")
        assert [state.name for state in models.loaded()] == ["trusted"]


@pytest.mark.parametrize("command", ["chat", "score"])
def test_the_command_line_takes_trust(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    more = {"chat": ["--max-tokens", "2"], "score": ["--window", "32"]}[command]
    asked = [command, "hello hello", "--backend", "native", "--model", str(moved(tmp_path)), *more]
    assert main(asked) == 1
    assert "--trust" in capsys.readouterr().err
    assert main([*asked, "--trust"]) == 0


def test_an_unstamped_model_is_compiled_again_and_not_blessed(tmp_path: Path, home: Path) -> None:
    """Its record came with the folder: it says what the compiler would write, and nothing of who made the kernels."""
    from support.models import first_ways, tiny_file

    with tiny_file("nine") as source, first_ways():
        folder = compile_model(str(source), tmp_path / "model", variants=("native",))
        before = (folder / RECORD).stat().st_ino
        assert compile_model(str(source), folder, variants=("native",)) == folder
        assert (folder / RECORD).stat().st_ino == before
        (home / "key").unlink()
        compile_model(str(source), folder, variants=("native",))
        assert (folder / RECORD).stat().st_ino != before
    record = json.loads((folder / RECORD).read_text())
    assert record["revision"] == parse_manifest((folder / "manifest.json").read_bytes()).revision


def test_doctor_says_whether_the_native_kernels_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = moved(tmp_path)
    monkeypatch.setattr(paths, "artifact", lambda _: folder)
    (finding,) = [each for each in doctor.examine() if each.name == "native kernels"]
    assert finding.found is not None
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (finding,) = [each for each in doctor.examine() if each.name == "native kernels"]
    assert finding.found is None and "--trust" in finding.remedy and "inpage compile" in finding.remedy
