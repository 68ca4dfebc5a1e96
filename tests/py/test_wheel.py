"""The wheel alone, in an environment of its own and an empty folder: what somebody has who installed inpage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from inpage.cli import scripts

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    offline = ["--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-qq", *offline, "-w", out, ROOT], check=True)
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a fresh environment with the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "-qq", "--no-index", "--no-deps", wheel], check=True)
    return folder / "bin"


def call(program: Path, *arguments: str, cwd: Path, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache or cwd / "cache")}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_is_pure_and_carries_what_it_needs(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "inpage/router/router.py",
        "inpage/_web/app/index.html",
        "inpage/_web/engine/worker.js",
        "inpage/_web/bundled/bundled.json",
        "inpage/_web/vendor.json",
        "inpage/_web/notices/pyodide.txt",
        "inpage/_models/smollm2-135m-instruct.toml",
        "inpage_compile/runtime/abi.h",
        "inpage_bench/command.py",
    ):
        assert name in names
    assert not [name for name in names if "/vendor/" in name or name.startswith("tests")]
    assert {Path(name).name for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_plain_wheel_runs_without_any_dependency(installed: Path, tmp_path: Path) -> None:
    version = call(installed / "inpage", "--version", cwd=tmp_path)
    assert version.stdout.startswith("inpage ")
    done = call(installed / "python", "-c", "from inpage import Router; print(Router.__name__)", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("Router\n", "")
    doctor = call(installed / "inpage", "doctor", cwd=tmp_path)
    assert doctor.returncode == 1
    assert "pip install 'inpage[compile]'" in doctor.stdout
    assert "pip install 'inpage[cli]'" in doctor.stdout
    refused = call(installed / "inpage", "compile", "smollm2-135m-instruct", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("inpage: compiling needs more packages")
    assert refused.stderr.count("\n") == 1
    refused = call(installed / "inpage", "chat", "hello", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)


def test_a_site_is_built_from_the_wheel(installed: Path, artifact: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(ROOT / "web" / "vendor", cache / "inpage" / "vendor")  # as the first build fetches it from npm
    done = call(installed / "inpage", "build", "--model", str(artifact), cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    site = tmp_path / "build" / "site"
    assert done.stdout.strip() == str(site)
    assert (site / "router" / "worker.js").read_bytes() == scripts.bundled()["router/worker.js"].read_bytes()
    assert (site / "index.html").read_bytes() == (ROOT / "web" / "app" / "index.html").read_bytes()
    assert "Apache License" in (site / "NOTICES.txt").read_text()
