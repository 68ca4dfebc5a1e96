"""Weight space, shards and the writer's promises: exact, in order of use, whole or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inpage.errors import ArtifactInvalid, InvalidRequest, SourceInvalid
from inpage.format.schema import Manifest
from inpage_compile.artifact import weights, writer
from inpage_compile.artifact.fingerprint import fingerprint
from inpage_compile.artifact.scratch import KINDS
from inpage_compile.artifact.weights import load_tensor, plan, plan_and_write
from inpage_compile.artifact.writer import ArtifactWriter, is_current, load_manifest, verify
from inpage_compile.sources import LicenseInfo, Source, dequantize, open_source
from support.tiny import MODELS, Tiny


def write(source: Source, out: Path, *, variant: bool = False, mark: str = "") -> Manifest:
    with ArtifactWriter(out, source, fingerprint=mark) as writer:
        plan_and_write(source, writer)
        if variant:
            writer.add_variant("wasm-simd", "wasm", ["simd128"], {"plan.json": b"{}", "kernels.wasm": b"\0asm"})
        return writer.finish()


def listing(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def neighbours(values: np.ndarray, tiny: Tiny) -> np.ndarray:
    """Rows of heads whose halves turn together: element 0, the one half of what turns behind it, element 1, …; the rest
    of the head as it was."""
    half = tiny.rope_dim // 2
    heads = values.reshape(-1, tiny.head_dim, *values.shape[1:])
    turning = np.stack([heads[:, :half], heads[:, half : 2 * half]], axis=2).reshape(
        len(heads), 2 * half, *values.shape[1:]
    )
    return np.concatenate([turning, heads[:, 2 * half :]], axis=1).reshape(values.shape)


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_comes_back_exactly(
    name: str, tiny_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 4096)  # so that tensors straddle shards
    monkeypatch.setattr(weights, "_AT_ONCE", 2000)  # so that matrices are converted in pieces
    source, tiny = open_source(str(tiny_files[name])), MODELS[name]
    m = write(source, tmp_path / "out")
    values = tiny.dequantized()
    names = {t.name for t in m.tensors}
    assert len(m.weights.shards) > 3

    def check(ours: str, expected: np.ndarray) -> None:
        got = load_tensor(tmp_path / "out", m, ours)
        assert np.array_equal(got.view(np.uint32), np.ascontiguousarray(expected, np.float32).view(np.uint32)), ours
        names.discard(ours)

    check("token_embd", values["token_embd"])
    for table, frequencies in source.rope.tables(source.architecture).items():
        check(table, frequencies)
    check("output_norm", values["output_norm"] / np.float32(tiny.number("logit_scale", 1.0)))
    if not tiny.tied:
        check("output", values["output"])
    for i in range(tiny.layers):
        b = f"blk.{i}."
        for same in ("attn_norm", "ffn_norm", "ffn_down"):
            check(b + same, values[b + same])
        pair = [values[f"{b}ffn_{x}"].reshape(-1, 16, tiny.hidden) for x in ("gate", "up")]
        if not name.endswith("apart"):
            check(b + "ffn_gate_up", np.stack(pair, axis=1).reshape(-1, tiny.hidden))
        if tiny.convolves(i):
            check(b + "conv_in", values[b + "shortconv.in_proj"])
            check(b + "conv_taps", values[b + "shortconv.conv"].T.reshape(-1))
            check(b + "conv_out", values[b + "shortconv.out_proj"])
            continue
        out = values[b + "attn_output"]  # with columns of zeros where all heads together make no whole groups
        check(b + "attn_out", np.pad(out, ((0, 0), (0, -out.shape[1] % 32))))
        q, k, v = (values[f"{b}attn_{x}"] for x in "qkv")
        if tiny.traits.halves:
            q, k = neighbours(q, tiny), neighbours(k, tiny)
        if tiny.traits.post_norms:
            check(b + "attn_post_norm", values[b + "post_attention_norm"])
            check(b + "ffn_post_norm", values[b + "post_ffw_norm"])
        if tiny.traits.bias:
            biases = [values[f"{b}attn_{x}.bias"] for x in "qkv"]
            turned = [neighbours(bias, tiny) for bias in biases[:2]]
            check(b + "attn_qkv_bias", np.concatenate([*turned, biases[2]]))
        if tiny.traits.head_norms:
            norms = [neighbours(values[f"{b}attn_{x}_norm"], tiny) for x in "qk"]
            check(b + "attn_qk_norm", np.concatenate(norms))
        if name.endswith("apart"):
            for part, value in (("attn_q", q), ("attn_k", k), ("attn_v", v)):
                check(b + part, value)
            for part in ("ffn_gate", "ffn_up"):
                check(b + part, values[b + part])
        else:
            check(b + "attn_qkv", np.concatenate([q, k, v]))
    assert not names


def test_order_of_use_and_alignment(tiny: Source) -> None:
    entries = [p.entry for p in plan(tiny)]
    assert [t.name for t in entries[:9]] == [
        "token_embd",
        "rope_freqs",
        "blk.0.attn_norm",
        "blk.0.attn_qkv",
        "blk.0.attn_out",
        "blk.0.ffn_norm",
        "blk.0.ffn_gate_up",
        "blk.0.ffn_down",
        "blk.1.attn_norm",
    ]
    assert entries[-1].name == "output_norm"
    assert all(t.offset % 256 == 0 for t in entries)


def test_fused_only_in_whole_blocks(tiny: Source) -> None:
    """24 rows of gate and up cannot interleave by 16: they stay apart."""
    small = {n: replace(t, shape=(24, 64)) if "gate" in n or "up" in n else t for n, t in tiny.tensors.items()}
    source = replace(tiny, tensors=small, architecture=replace(tiny.architecture, ffn=24))
    names = [p.entry.name for p in plan(source)]
    assert "blk.0.ffn_gate" in names
    assert "blk.0.ffn_gate_up" not in names


def test_files_are_what_the_manifest_says(tiny: Source, tmp_path: Path) -> None:
    out = tmp_path / "models" / "tiny"
    m = write(tiny, out, variant=True)
    assert verify(out) == m == load_manifest(out)
    listed = {s.file for s in m.weights.shards} | {"tokenizer.json", "tokenizer.bin"}
    listed |= {"NOTICES.txt", "manifest.json", "build.json"}
    listed |= {f.file for v in m.variants for f in v.files.values()}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == listed
    assert m.variants[0].files["kernels"].sha256 == hashlib.sha256(b"\0asm").hexdigest()
    assert json.loads((out / "tokenizer.json").read_text("utf-8")) == tiny.tokenizer_json
    assert listing(out.parent) == ["tiny"]


def test_the_same_input_gives_the_same_bytes(tiny: Source, tmp_path: Path) -> None:
    assert write(tiny, tmp_path / "a") == write(tiny, tmp_path / "b")
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()


def test_nothing_half_written_gets_the_name(tiny: Source, tmp_path: Path) -> None:
    out = tmp_path / "tiny"

    def interrupted() -> None:
        with ArtifactWriter(out, tiny) as writer:
            plan_and_write(tiny, writer)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert listing(tmp_path) == []
    good = write(tiny, out)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert listing(tmp_path) == ["tiny"]
    assert verify(out) == good


def test_leftovers_of_killed_compilers_go(tiny: Source, tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for kind in KINDS:
        (tmp_path / f".tiny.{dead.pid}.{kind}").mkdir()
    alive = tmp_path / f".tiny.{os.getppid()}.partial"
    alive.mkdir()
    write(tiny, tmp_path / "tiny")
    assert listing(tmp_path) == [alive.name, "tiny"]


def test_foreign_folders_are_not_replaced(tiny: Source, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(InvalidRequest) as e:
        write(tiny, tmp_path)
    assert e.value.field == "out"
    assert listing(tmp_path) == ["precious.txt"]


def test_unchanged_means_every_byte(tiny: Source, tmp_path: Path) -> None:
    out, mark = tmp_path / "tiny", fingerprint(tiny, {"variants": ["native"]})
    assert not is_current(out, mark)
    write(tiny, out, variant=True, mark=mark)
    assert is_current(out, mark)
    assert not is_current(out, fingerprint(tiny, {"variants": ["wasm-simd"]}))
    assert not is_current(out, fingerprint(replace(tiny, name="Other"), {"variants": ["native"]}))
    shard = out / "weights/00000.bin"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 1
    shard.write_bytes(data)
    assert not is_current(out, mark)
    shard.unlink()
    assert not is_current(out, mark)


@pytest.mark.parametrize(
    ("file", "damage", "match"),
    [
        ("weights/00000.bin", "flip", "does not match its sha256"),
        ("weights/00000.bin", "cut", "bytes, the manifest says"),
        ("weights/00000.bin", "remove", "No such file"),
        ("tokenizer.json", "flip", "does not match its sha256"),
        ("tokenizer.bin", "flip", "does not match its sha256"),
        ("wasm-simd/kernels.wasm", "remove", "No such file"),
    ],
)
def test_damage_is_found_and_named(file: str, damage: str, match: str, tiny: Source, tmp_path: Path) -> None:
    out = tmp_path / "tiny"
    write(tiny, out, variant=True)
    data = bytearray((out / file).read_bytes())
    data[len(data) // 2] ^= 0x40
    if damage == "remove":
        (out / file).unlink()
    else:
        (out / file).write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(ArtifactInvalid, match=match) as e:
        verify(out)
    assert e.value.field == file


def test_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(ArtifactInvalid) as e:
        load_manifest(tmp_path)
    assert e.value.field == "manifest.json"


@pytest.mark.parametrize("name", [None, "other", "llama3.2"])
def test_unknown_licences_must_be_acknowledged(name: str | None, tiny: Source, tmp_path: Path) -> None:
    source = replace(tiny, license=LicenseInfo(name))
    with pytest.raises(SourceInvalid, match="accept-license") as e:
        write(source, tmp_path / "a")
    assert e.value.field == "license"
    assert listing(tmp_path) == []
    with ArtifactWriter(tmp_path / "a", source, accept_license=True) as writer:
        plan_and_write(source, writer)
        assert writer.finish().license.id == (name or "LicenseRef-unknown")


def test_notices_say_whose_model_it_is(tiny: Source, tmp_path: Path) -> None:
    source = replace(tiny, license=LicenseInfo("apache-2.0", "The licence's own text.", "Tiny by Nobody"))
    assert write(source, tmp_path / "a").license.id == "Apache-2.0"
    text = (tmp_path / "a/NOTICES.txt").read_text("utf-8")
    for part in ("Tiny Llama", "Tiny by Nobody", "Apache-2.0", "The licence's own text.", source.origin.sha256):
        assert part in text


def test_progress_reaches_the_total(tiny: Source, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    with ArtifactWriter(tmp_path / "a", tiny, progress=lambda *p: seen.append(p)) as writer:
        plan_and_write(tiny, writer)
        writer.finish()
    done = [d for phase, d, _ in seen if phase == "weights"]
    assert done == sorted(done)
    assert seen[-1][1] == seen[-1][2] > 0


def _resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory (proc_pid_smaps(5))."""
    kilobytes, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, rest = line.partition(" ")
        if not key.endswith(":"):
            counts = line.endswith(str(path))
        elif key == "Rss:" and counts:
            kilobytes += int(rest.split()[0])
    return kilobytes << 10


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_source_is_held_a_tensor_at_a_time(tmp_path: Path) -> None:
    """What was read of a mapped file is given back: memory does not grow with the model."""
    path = Tiny(hidden=256, layers=3, ffn=2048).write(tmp_path / "source.gguf")
    source, held = open_source(str(path)), []
    read = dequantize(source.tensors["blk.0.ffn_down"]).copy()
    assert _resident(path) >= read.nbytes  # what is read is seen here
    with ArtifactWriter(tmp_path / "a", source, progress=lambda *_: held.append(_resident(path))) as writer:
        plan_and_write(source, writer)
        writer.finish()
    assert max(held) < 1 << 16 < path.stat().st_size // 50


def test_dequantize_is_public(tiny: Source) -> None:
    assert dequantize(tiny.tensors["output_norm"]).shape == (64,)
