"""What the native engine needs beside itself to follow grammars, and whether this machine has it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..errors import ArtifactInvalid
from ..format import bounded
from ..host.folders import vendor, web

PACKAGE = "@mlc-ai/web-xgrammar"


def library() -> tuple[Path, str]:
    """The file of XGrammar that pages load too, and the hash that it must have."""
    packages = bounded.read((web() / "vendor.json").read_text("utf-8"))["packages"]
    for package in packages:
        if package["name"] == PACKAGE:
            name = package["module"]
            return vendor() / package["folder"] / name, package["files"][name]["sha256"]
    raise ArtifactInvalid(f"vendor.json does not list {PACKAGE}", field="vendor.json")


def lacking() -> dict[str, str]:
    """Flags of the native engine that this machine does not have, and what would help."""
    if find_spec("wasmtime") is None:
        return {"grammars": "install wasmtime, which `inpage[api]` brings"}
    if not library()[0].is_file():
        return {"grammars": "`inpage serve --api` and `inpage build` fetch what follows them, with npm"}
    return {}
