"""MLC's converted folders: written here as MLC's converter writes them, in a few lines of numpy, from a float
checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inpage.errors import SourceInvalid
from inpage_compile.artifact.levels import rounded
from inpage_compile.artifact.weights import plan
from inpage_compile.pruning.vocabulary import prune_vocabulary
from inpage_compile.quantize import quantize, unpack
from inpage_compile.quantize.int4_words import Int4Words
from inpage_compile.sources import dequantize, open_folder, open_source
from inpage_compile.sources.mlc import open_mlc
from support.folder import FOLDERS, change, checkpoint, write_folder

Array = npt.NDArray[Any]


def quantized(w: Array, scale_type: type) -> tuple[Array, Array]:
    """Groups of 32 along the columns, 8 numbers of -7 to 7, kept as 0 to 14, in a word: lowest bits first."""
    groups = w.reshape(w.shape[0], -1, 32)
    scales = (np.abs(groups).max(axis=2) / 7).astype(scale_type)
    q = np.clip(np.rint(groups / np.maximum(scales.astype(np.float32), 1e-9)[..., None]) + 7, 0, 14).astype(np.uint32)
    words = (q.reshape(w.shape[0], -1, 8) << (4 * np.arange(8, dtype=np.uint32))).sum(axis=2, dtype=np.uint32)
    return words, scales


def exact(words: Array, scales: Array) -> Array:
    """What the words stand for, float32."""
    q = (words[..., None] >> (4 * np.arange(8, dtype=np.uint32)) & 15).reshape(words.shape[0], -1, 32)
    values = (q.astype(np.float32) - 7) * scales.astype(np.float32)[..., None]
    return np.asarray(values.reshape(words.shape[0], -1), np.float32)


def fused(tensors: Mapping[str, Array], qkv: str) -> dict[str, Array]:
    """As MLC's models have them: queries, keys and values in one matrix, and gate and up."""
    out = dict(tensors)
    for name in tensors:
        base, _, last = name.rpartition(".")
        if base.endswith("self_attn.q_proj"):
            at = base.removesuffix("q_proj")
            out[f"{at}{qkv}.{last}"] = np.concatenate([out.pop(f"{at}{x}_proj.{last}") for x in "qkv"])
        if base.endswith("mlp.gate_proj"):
            at = base.removesuffix("gate_proj")
            out[f"{at}gate_up_proj.{last}"] = np.concatenate([out.pop(f"{at}{x}_proj.{last}") for x in ("gate", "up")])
    return out


def bf16(values: Array) -> Array:
    """The upper halves of float32 numbers, as words of 16 bits."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_mlc(folder: Path, name: str, quantization: str = "q4f16_1", old: bool = False) -> dict[str, Array]:
    """Writes the folder; returns the numbers that its tensors stand for, by Hugging Face's names before the fusing."""
    write_folder(folder, name)
    config = json.loads((folder / "config.json").read_text())
    for file in ("config.json", "generation_config.json", "model.safetensors"):
        (folder / file).unlink()
    wide = quantization == "q4f32_1"  # floats, stored as their upper halves
    records: list[dict[str, Any]] = []
    shards: list[dict[str, Any]] = []
    data = b""
    values: dict[str, Array] = {}

    def add(tensor: str, array: Array, dtype: str) -> None:
        nonlocal data
        kind = "f32-to-bf16" if dtype == "float32" else "raw"
        records.append({"name": tensor, "shape": list(array.shape), "dtype": dtype, "format": kind,
                        "nbytes": array.nbytes, "byteOffset": len(data)})  # fmt: skip
        data += array.tobytes()

    def end_shard() -> None:
        nonlocal data, records
        file = f"params_shard_{len(shards)}.bin"
        (folder / file).write_bytes(data)
        shards.append({"dataPath": file, "format": "raw-shard", "nbytes": len(data), "records": records,
                       "md5Sum": hashlib.md5(data).hexdigest()})  # fmt: skip
        data, records = b"", []

    qkv = "c_attn" if name.startswith("qwen") else "qkv_proj"
    for i, (tensor, w) in enumerate(fused(checkpoint(FOLDERS[name]), qkv).items()):
        base = tensor.removesuffix("weight")
        if w.ndim == 2 and quantization.startswith("q4"):
            words, scales = quantized(w, np.float32 if wide else np.float16)
            if wide:
                scales = (bf16(scales).astype(np.uint32) << 16).view(np.float32)
            add(f"{base}q_weight", words, "uint32")
            add(f"{base}q_scale", bf16(scales) if wide else scales, "float32" if wide else "float16")
            values[tensor] = exact(words, scales)
        elif wide:
            add(tensor, bf16(w), "float32")
            values[tensor] = (bf16(w).astype(np.uint32) << 16).view(np.float32)
        else:
            add(tensor, w.astype(np.float16), "float16")
            values[tensor] = w.astype(np.float16).astype(np.float32)
        if i == 3:
            end_shard()
    end_shard()
    cache = {"metadata": {"ParamSize": len(values), "BitsPerParam": 4.5}, "records": shards}
    (folder / ("ndarray-cache.json" if old else "tensor-cache.json")).write_text(json.dumps(cache))
    kept = (
        "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads",
        "head_dim", "rms_norm_eps", "vocab_size", "hidden_act", "tie_word_embeddings",
    )  # fmt: skip
    rope = config["rope_parameters"]
    own = {key: config[key] for key in kept} | {
        "position_embedding_base": rope["rope_theta"], "context_window_size": config["max_position_embeddings"],
        "prefill_chunk_size": 2048, "tensor_parallel_shards": 1, "pipeline_parallel_stages": 1, "max_batch_size": 80,
        "disaggregation": False,
    }  # fmt: skip
    if rope["rope_type"] != "default":
        own["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    chat = {
        "version": "0.1.0", "model_type": config["model_type"], "quantization": quantization, "model_config": own,
        "vocab_size": config["vocab_size"], "context_window_size": config["max_position_embeddings"],
        "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.0, "bos_token_id": 1, "eos_token_id": [2, 0],
        "conv_template": {"name": "chatml"}, "tokenizer_files": ["tokenizer.json", "tokenizer_config.json"],
    }  # fmt: skip
    (folder / "mlc-chat-config.json").write_text(json.dumps(chat))
    return values


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
