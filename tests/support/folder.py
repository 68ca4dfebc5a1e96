"""Tiny models as folders of the Hugging Face kind: the files beside the weights as transformers wrote them
(tests/reference/folders.json), the weights under its names by a few lines of numpy."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .tiny import FAMILY_MODELS, MODELS, Tiny

REFERENCE = Path(__file__).parents[1] / "reference" / "folders.json"
Array = npt.NDArray[Any]
# The models of `tiny` that have a folder: in floats, since folders hold no others.
FOLDERS: dict[str, Tiny] = {
    name: replace(MODELS[name], default="F32", types=())
    for name in ("f32", "untied", "llama3", "linear", "yarn", "qwen2", "qwen3", "qwen3-yarn", *FAMILY_MODELS)
}


def reference() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REFERENCE.read_text("utf-8"))
    return found


def checkpoint(tiny: Tiny) -> dict[str, Array]:
    """The weights, float32, under Hugging Face's names and in its order of rows."""
    names = tiny.traits.names()
    top = {name: f"model.{names[name]}" for name in ("token_embd", "output_norm")} | {"output": "lm_head"}
    out: dict[str, Array] = {}
    for name, w in tiny.weights().items():
        name, _, kind = name.partition(".bias") if name.endswith(".bias") else (name, "", "weight")
        kind = kind or "bias"
        if name in top:
            out[f"{top[name]}.{kind}"] = w
            continue
        _, layer, own = name.split(".", 2)
        if own == "shortconv.conv":
            w = w[:, None]
        if not tiny.traits.halves and own in ("attn_q", "attn_k"):  # neighbours turn in GGUF files, halves here
            w = w.reshape(-1, tiny.head_dim // 2, 2, tiny.hidden).swapaxes(1, 2).reshape(w.shape)
        out[f"model.layers.{layer}.{names[own]}.{kind}"] = w
    for i in range(tiny.layers if tiny.traits.fused else 0):
        at = f"model.layers.{i}"
        for whole, parts in (("self_attn.qkv", ("self_attn.q", "self_attn.k", "self_attn.v")),
                             ("mlp.gate_up", ("mlp.gate", "mlp.up"))):  # fmt: skip
            out[f"{at}.{whole}_proj.weight"] = np.concatenate([out.pop(f"{at}.{part}_proj.weight") for part in parts])
    if tiny.traits.shifted:
        out |= {name: w - 1 for name, w in out.items() if "norm" in name}
    return out


def safetensors(tensors: Mapping[str, Array], dtype: str = "F32") -> bytes:
    """A safetensors file. BF16: the upper halves, which loses what lies in the lower ones."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    at = 0
    for name, values in tensors.items():
        parts.append(stored(values, dtype))
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + len(parts[-1])]}
        at += len(parts[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def stored(values: Array, dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(values, {"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def write_folder(folder: Path, name: str, dtype: str = "F32", shards: int = 1) -> Path:
    """A model of `FOLDERS`; in several files with an index where there are several ``shards``."""
    found = reference()
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in found["tokenizer"].items():
        (folder / file).write_text(text)
    for file, content in found["models"][name]["files"].items():
        (folder / file).write_text(json.dumps(content))
    tensors = checkpoint(FOLDERS[name])
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(tensors, dtype))
        return folder
    places = {key: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, key in enumerate(tensors)}
    for file in set(places.values()):
        own = {key: tensors[key] for key, place in places.items() if place == file}
        (folder / file).write_bytes(safetensors(own, dtype))
    index = {"metadata": {"total_size": sum(w.nbytes for w in tensors.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def change(folder: Path, file: str, **values: Any) -> None:
    """Set keys of a JSON file; None takes one out."""
    path = folder / file
    found = json.loads(path.read_text()) if path.exists() else {}
    found |= values
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))
