"""MLC's converted folders: written here as MLC's converter writes them, in a few lines of numpy, from a float
checkpoint. And what stands in a library's place where there is none: WebAssembly that is no TVM module."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .folder import FOLDERS, checkpoint, write_folder

Array = npt.NDArray[Any]
# A module of one function, () -> (), exported by the name that web-llm calls first.
_EXPORT = b"TVMFFIFunctionCall"
NO_TVM = (
    b"\0asm\1\0\0\0"
    b"\1\4\1\x60\0\0"  # types
    b"\3\2\1\0"  # functions
    b"\7" + bytes([len(_EXPORT) + 4, 1, len(_EXPORT)]) + _EXPORT + b"\0\0"  # exports
    b"\x0a\4\1\2\0\x0b"  # code
)


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


def mlc_artifact() -> Path:
    """Of a folder alone, with a library that is none; kept between runs."""
    from inpage_compile.mlc_model import compile_mlc  # without TVM

    with tempfile.TemporaryDirectory() as scratch:
        folder, library = Path(scratch) / "tiny-llama", Path(scratch) / "library.wasm"
        write_mlc(folder, "f32", "q4f32_1")
        library.write_bytes(NO_TVM)
        out = Path(__file__).parents[2] / "build" / "tests" / "tiny-llama-mlc"
        return compile_mlc(str(folder), str(library), out, out.parent, None, lambda *_: None, accept_license=True)
