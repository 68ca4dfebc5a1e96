"""What set-up installs is pinned, the same everywhere, and names no registry."""

import hashlib
import json
import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

from inpage.cli import vendor

ROOT = Path(__file__).resolve().parents[2]


def test_vendored_versions_are_those_of_package_json() -> None:
    declared = json.loads((ROOT / "package.json").read_text())["dependencies"]
    assert {package["name"]: package["version"] for package in vendor.packages()} == declared
    locked = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert {name: locked[f"node_modules/{name}"]["version"] for name in declared} == declared


def test_vendored_python_is_what_requirements_pin() -> None:
    """And what is installed: the page and CPython render with the same files."""
    locked = re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    for package in vendor.python_packages():
        assert f"{package['name']}=={package['version']}" in locked
        place = Path(str(distribution(package["name"]).locate_file("")))
        for name, digest in package["files"].items():
            assert hashlib.sha256((place / name).read_bytes()).hexdigest() == digest, name


def test_locks_name_no_registry_and_hash_everything() -> None:
    for folder in (".", "examples/next", "examples/vite-react", "tests/npm/webpack", "tests/lighthouse"):
        lock = json.loads((ROOT / folder / "package-lock.json").read_text())["packages"]
        assert not [name for name, entry in lock.items() if "resolved" in entry]
        assert not [name for name, entry in lock.items() if name and "integrity" not in entry]
    for file in ("requirements.txt", "requirements-node.txt"):
        text = (ROOT / file).read_text()
        assert "://" not in text
        pins = re.findall(r"^[\w.-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) > 0


def test_requirements_hold_what_pyproject_pins() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = re.findall(r"^([\w.-]+==[\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    for wanted in (line for lines in extras.values() for line in lines if "==" in line):
        assert wanted in locked
