"""A model's licence by what lies in its folder: the model card's front matter, or a licence's file."""

from __future__ import annotations

import re

from inpage.errors import SourceInvalid
from inpage.format.structure import one_line

from ..checkpoints.files import ModelFolder
from .base import LicenseInfo

_CARD = "README.md"
_BYTES = 1 << 20
_FILE = re.compile(r"(licen[cs]e|copying)(\.(md|txt))?", re.IGNORECASE)
_FRONT = re.compile(r"\A\ufeff?---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)
_LINE = re.compile(r"(license|license_name):[ \t]*(.*?)[ \t]*(?:#.*)?")
_LINE_CHARS = 300
# How licence texts begin, for a folder without a card.
_BEGINS = (("apache license version 2.0", "Apache-2.0"), ("mit license", "MIT"))


def license_of(folder: ModelFolder) -> LicenseInfo:
    """No card and no file is no error here: who compiles a model must know its terms (`check_license`)."""
    text = next((found for name in folder.names if _FILE.fullmatch(name) and (found := _text(folder, name))), None)
    front = _FRONT.match(_text(folder, _CARD) or "")
    lines = front[1].splitlines() if front else []
    matches = [_LINE.fullmatch(line) for line in lines if len(line) <= _LINE_CHARS]
    said = {match[1]: match[2].strip("'\"") for match in matches if match}
    name = said.get("license")
    if name in ("other", "") or (name or "").startswith(("[", "{", "|", ">", "&", "*", "!")):
        name = said.get("license_name") or (name if name == "other" else None)
    if name is None and text is not None:
        start = " ".join(text.lower().split())[:200]
        name = next((spdx for begin, spdx in _BEGINS if start.startswith(begin)), None)
    return LicenseInfo(one_line(name or "") or None, text)


def _text(folder: ModelFolder, name: str) -> str | None:
    if not folder.has(name):
        return None
    try:
        return folder.read(name, _BYTES).decode("utf-8", "replace")
    except SourceInvalid:
        return None
