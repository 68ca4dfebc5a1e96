"""The contract of three languages is written once: what is made of it is current, and a change reaches them all."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("inpage_contract", ROOT / "format" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_what_is_made_is_current(generate: ModuleType) -> None:
    for name, text in generate.files():
        assert (ROOT / name).read_text("utf-8") == text, f"{name}: run python format/generate.py"


def test_one_limit_changes_all_three_languages(generate: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    read = generate._toml

    def larger(name: str) -> Any:
        content = copy.deepcopy(read(name))
        if name == "abi":
            content["constants"]["MAX_STOP"]["value"] = 12
            content["constants"]["MAX_FUNCTIONS"]["value"] = 99
        if name == "limits":
            content["files"]["plan"] = 12345
        return content

    monkeypatch.setattr(generate, "_toml", larger)
    made = dict(generate.files())
    assert "#define INPAGE_MAX_STOP 12 " in made[generate.C_HEADER]
    assert "export const MAX_STOP = 12;" in made[generate.JS_ABI]
    assert "MAX_STOP: Final = 12 " in made[generate.PY_ABI]
    for file in (generate.JS_LIMITS, generate.PY_LIMITS):
        assert "12345," in made[file]
    for file in (generate.JS_STRUCTURE, generate.PY_STRUCTURE):
        assert '"high": 99' in made[file] and '"high": 12345' in made[file]


def test_a_new_field_of_a_struct_needs_no_hand(generate: ModuleType) -> None:
    """It gets its place in C and JavaScript, and Python packs it by name."""
    abi = generate._toml("abi")
    fields = abi["structs"]["sequence"]["fields"]
    place = [f["name"] for f in fields].index("n_stop")
    fields.insert(place, {"name": "patience", "type": "float"})
    assert "  float patience;\n  int32_t n_stop;\n" in generate.c_header(abi)
    assert "  patience: 14, // (f)\n  n_stop: 15,\n" in generate.js_abi(abi)
    made: dict[str, Any] = {}
    exec(generate.py_abi(abi), made)
    words = made["pack_sequence"](patience=1.0, n_stop=3, history=[7, 8])
    assert len(words) == made["SEQUENCE_WORDS"] == 287
    assert words[14] == 0x3F800000 and words[15] == 3
    assert words[made["SEQUENCE"]["history"]] == 7
