"""MLC's converted folders (support/mlc_folder.py): their groups without loss, and with a library as they
are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inpage.errors import InvalidRequest, SourceInvalid
from inpage.models.source import bytes_without_plan
from inpage_compile.artifact.checks import verify
from inpage_compile.artifact.levels import rounded
from inpage_compile.artifact.weights import plan
from inpage_compile.artifact.writer import ArtifactWriter
from inpage_compile.mlc_model import open_carried_library
from inpage_compile.pipeline import compile_model
from inpage_compile.pruning.vocabulary import prune_vocabulary
from inpage_compile.quantize import quantize, unpack
from inpage_compile.quantize.int4_words import Int4Words
from inpage_compile.sources import dequantize, mlc_library, open_folder, open_source
from inpage_compile.sources.mlc import open_mlc
from support.folder import FOLDERS, change, write_folder
from support.mlc_folder import NO_TVM, exact, quantized, write_mlc

Array = npt.NDArray[Any]


@pytest.mark.parametrize(
    ("name", "quantization", "old"),
    [("f32", "q4f16_1", False), ("untied", "q4f32_1", True), ("llama3", "q4f16_1", False), ("qwen2", "q4f16_1", True),
     ("qwen3", "q4f32_1", False), ("qwen2", "q0f16", False)],
)  # fmt: skip
def test_groups_are_taken_without_loss(name: str, quantization: str, old: bool, tmp_path: Path) -> None:
    values = write_mlc(tmp_path / "m", name, quantization, old)
    source = open_source(str(tmp_path / "m"))
    floats = open_folder(write_folder(tmp_path / "f", name))
    assert source.architecture == floats.architecture
    assert (source.tokenizer, source.chat_template) == (floats.tokenizer, floats.chat_template)
    assert source.origin.kind == "mlc" and source.warnings == ()
    assert source.sampling is not None and (source.sampling.temperature, source.sampling.top_p) == (0.6, 0.9)
    np.testing.assert_array_equal(source.rope.divisors, floats.rope.divisors)
    tiny = FOLDERS[name]
    q, kv = tiny.heads * tiny.head_dim, tiny.kv_heads * tiny.head_dim
    for i in range(tiny.layers):
        blk, at = f"blk.{i}.", f"model.layers.{i}."
        whole = values[f"{at}self_attn.{'c_attn' if 'qwen' in name else 'qkv_proj'}.weight"]
        for ours, rows in (("attn_q", whole[:q]), ("attn_k", whole[q : q + kv]), ("attn_v", whole[q + kv :])):
            if ours != "attn_v" and "qwen" not in name:  # halves become neighbours
                rows = rows.reshape(-1, 2, tiny.head_dim // 2, tiny.hidden).swapaxes(1, 2).reshape(rows.shape)
            np.testing.assert_array_equal(dequantize(source.tensors[blk + ours]), rows)
        gate_up = values[f"{at}mlp.gate_up_proj.weight"]
        np.testing.assert_array_equal(dequantize(source.tensors[blk + "ffn_up"]), gate_up[tiny.ffn :])
        np.testing.assert_array_equal(
            dequantize(source.tensors[blk + "ffn_norm"]), values[f"{at}post_attention_layernorm.weight"]
        )
    np.testing.assert_array_equal(dequantize(source.tensors["token_embd"]), values["model.embed_tokens.weight"])
    # And so they lie in the artifact.
    (down,) = (p for p in plan(source) if p.entry.name == "blk.1.ffn_down")
    packed = unpack(down.make(), down.entry.format, *down.entry.shape).to_float32()
    np.testing.assert_array_equal(packed, values["model.layers.1.mlp.down_proj.weight"])


def fails(folder: Path, match: str) -> None:
    with pytest.raises(SourceInvalid, match=match) as e:
        open_mlc(folder)
    assert e.value.field and "\n" not in str(e.value)


def test_what_is_not_followed_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_mlc(folder, "f32")
    whole = json.loads((folder / "mlc-chat-config.json").read_text())
    for values, match in (
        ({"quantization": "q4f16_0"}, "'q4f16_0' is not supported; supported: q4f16_1, q4f32_1"),
        ({"model_type": "rwkv"}, "'rwkv' is not supported"),
        ({"model_config": None}, "model_config is missing"),
        ({"model_config": whole["model_config"] | {"tensor_parallel_shards": 2}}, "tensor_parallel_shards 2"),
        ({"model_config": whole["model_config"] | {"sliding_window_size": 64}}, "sliding_window"),
        ({"model_config": whole["model_config"] | {"num_attention_heads": 2}}, r"qkv_proj.q_weight: shape .*expected"),
        ({"eos_token_id": 999}, "999 is not a token"),
    ):
        (folder / "mlc-chat-config.json").write_text(json.dumps(whole))
        change(folder, "mlc-chat-config.json", **values)
        fails(folder, match)
    (folder / "mlc-chat-config.json").write_text(json.dumps(whole))
    (folder / "chat_template.jinja").unlink()
    assert open_mlc(folder).warnings == (
        "m: mlc-chat-config.json: conv_template is not taken, so that there is no chat",
    )
    (folder / "tensor-cache.json").unlink()
    fails(folder, "neither tensor-cache.json nor ndarray-cache.json")


def test_rows_of_words_keep_their_scales(tmp_path: Path) -> None:
    """In the pieces that a large matrix is converted in, without tokens that left, and rounded to fewer bits."""
    w = np.random.default_rng(3).standard_normal((48, 256), np.float32)
    words, scales = quantized(w, np.float16)
    tensor = Int4Words("token_embd", w.shape, "q4_0", words.view(np.uint8).reshape(-1), scales=scales)
    values, fewer = exact(words, scales), rounded(tensor, "q3_k")
    some = np.array([40, 3, 3])
    assert np.array_equal(dequantize(tensor.rows(some)), values[some])
    expected = quantize(values, "q3_k").to_float32()
    assert np.array_equal(dequantize(fewer), expected)
    assert np.array_equal(dequantize(fewer.rows(slice(16, 48))), expected[16:])

    embedding = write_mlc(tmp_path / "m", "f32")["model.embed_tokens.weight"]
    pruned = prune_vocabulary(open_mlc(tmp_path / "m"), "hello").tensors["token_embd"]
    kept = dequantize(pruned)
    assert len(kept) < len(embedding) and {row.tobytes() for row in kept} <= {row.tobytes() for row in embedding}


def test_damaged_weights(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_mlc(folder, "f32")
    path, good = folder / "tensor-cache.json", (folder / "tensor-cache.json").read_text()

    def with_entry(**values: Any) -> None:
        found = json.loads(good)
        entry = found["records"][0]["records"][1]  # a scale
        entry |= values
        path.write_text(json.dumps(found))

    for values, match in (
        ({"nbytes": 7}, "7 bytes for float16"),
        ({"byteOffset": 1 << 39}, "cut off"),
        ({"byteOffset": 0}, "begins within"),
        ({"byteOffset": -1}, "whole numbers"),
        ({"shape": [True]}, "whole numbers"),
        ({"dtype": "int4"}, "'int4' as 'raw', which is unknown"),
        ({"name": None}, "must have a name"),
        ({"name": "model.layers.0.mlp.gate_up_proj.q_weight"}, "stands twice"),
        ({"shape": [640, 1]}, "scales of shape"),
    ):
        with_entry(**values)
        fails(folder, match)
    found = json.loads(good)
    for change_it, match in (
        (lambda shard: shard.update(dataPath="../x.bin"), "not the name of a file"),
        (lambda shard: shard.update(dataPath="params_shard_1.bin"), "names a file twice"),
        (lambda shard: shard.update(format="raw"), "raw-shard"),
        (lambda shard: shard.update(records={}), "must be a list of tensors"),
        (lambda shard: shard["records"].pop(0), "has no quants beside it"),
    ):
        found = json.loads(good)
        change_it(found["records"][0])
        path.write_text(json.dumps(found))
        fails(folder, match)
    path.write_text(good)
    shard = folder / "params_shard_0.bin"
    data = shard.read_bytes()
    shard.write_bytes(b"\xff" + data[1:])
    fails(folder, "params_shard_0.bin is damaged: it is not what its md5Sum says")
    for damaged, match in ((b"\xff" + data[1:], "a quant of 15"), (data[:-1], "cut off")):
        shard.write_bytes(damaged)
        found = json.loads(good)
        found["records"][0]["md5Sum"] = hashlib.md5(damaged).hexdigest()
        path.write_text(json.dumps(found))
        with pytest.raises(SourceInvalid, match=match):
            dequantize(open_mlc(folder).tensors["token_embd"])


def test_with_a_library_the_folder_is_carried_as_it_is(tmp_path: Path) -> None:
    """Alone, of a quantization and a family that are none of ours, and beside other weights."""
    folder, library = tmp_path / "tiny-mlc", tmp_path / "lib.wasm"
    write_mlc(folder, "f32", "q4f16_1")
    library.write_bytes(NO_TVM)
    pin = hashlib.sha256(NO_TVM).hexdigest()
    carried = open_carried_library(str(folder), f"{library}#sha256={pin}", lambda *_: None)
    with ArtifactWriter(tmp_path / "both", open_mlc(folder), accept_license=True) as writer:
        writer.begin_section([""])
        writer.add_bytes(0, memoryview(b"what is compiled"))
        carried.add(writer, "")
        both = writer.finish()
    change(folder, "mlc-chat-config.json", quantization="q3f16_0", model_type="a-new-one")
    options: dict[str, Any] = {"variants": ("mlc-webgpu",), "mlc_lib": str(library), "accept_license": True}
    out = compile_model(str(folder), tmp_path / "alone", context=64, **options)
    alone = verify(out)
    assert both.mlc is not None and both.mlc.weights is not None and alone.mlc is not None and alone.mlc.weights is None
    a = alone.architecture
    assert (a.family, a.layers, a.kv_heads, a.context, a.vocab) == ("a-new-one", 2, 2, 64, 320)
    for manifest in (both, verify(tmp_path / "both"), alone):
        (variant,), mlc = manifest.variants, manifest.mlc
        assert mlc is not None and "shader-f16" in variant.requires  # its scales are halves
        assert variant.files["library"].sha256 == pin
        place = out if manifest is alone else tmp_path / "both"
        space = b"".join((place / shard.file).read_bytes() for shard in manifest.weights_of(variant).shards)
        assert space[: mlc.bytes] == (folder / "tensor-cache.json").read_bytes()
        for file in mlc.files:
            assert space[file.offset : file.offset + file.bytes] == (folder / file.path).read_bytes()
    # What a budget counts: keys and values of its 64 tokens, in halves, which the library keeps room for.
    needed = bytes_without_plan(alone, alone.variants[0])
    assert needed == alone.weights.bytes + 2 * a.layers * a.kv_heads * a.head_dim * 64 * 2
    made = (out / "manifest.json").stat().st_mtime_ns
    compile_model(str(folder), out, context=64, **options)
    assert (out / "manifest.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("library", "said"),
    [
        ("lib.wasm#sha256=" + 64 * "0", "expected 0000"),
        ("text.wasm", "not WebAssembly"),
        ("old.wasm", "no TVMFFIFunctionCall"),
        ("none.wasm", "No such file"),
    ],
)
def test_a_library_that_cannot_be_run_is_refused_by_name(library: str, said: str, tmp_path: Path) -> None:
    write_mlc(tmp_path / "m", "f32")
    (tmp_path / "lib.wasm").write_bytes(NO_TVM)
    (tmp_path / "text.wasm").write_text("TVMFFIFunctionCall")
    (tmp_path / "old.wasm").write_bytes(NO_TVM.replace(b"TVMFFIFunctionCall", b"TVMFuncCall_______"))
    with pytest.raises(InvalidRequest, match=said) as error:
        compile_model(str(tmp_path / "m"), tmp_path / "out", variants=("mlc-webgpu",), mlc_lib=str(tmp_path / library))
    assert error.value.field == "mlc_lib"


def test_a_download_that_is_refused_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the network: the address gave something else at first."""
    given = iter([b"<!doctype html>", NO_TVM])

    def fetch_url(url: str, cache: Path, progress: Any, *, suffix: str) -> Path:
        path = cache / f"lib{suffix}"
        if not path.exists():
            path.write_bytes(next(given))
        return path

    monkeypatch.setattr(mlc_library, "fetch_url", fetch_url)
    with pytest.raises(InvalidRequest, match="not WebAssembly"):
        mlc_library.read_library("https://host/lib.wasm", cache=tmp_path)
    assert mlc_library.read_library("https://host/lib.wasm", cache=tmp_path) == NO_TVM


def test_a_library_needs_a_folder_of_mlc(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none of MLC's folders \(mlc-chat-config.json\)") as error:
        compile_model(str(write_folder(tmp_path / "f", "f32")), tmp_path / "out", mlc_lib="lib.wasm")
    assert error.value.field == "mlc_lib"
