"""Folders that MLC's converter made: mlc-chat-config.json, tensor-cache.json and params_shard_*.bin, whose groups are
taken as they are. Their kernels are not used, and neither is ``conv_template``: the chat template is the tokenizer's
own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inpage.errors import SourceInvalid, brief, quoted
from inpage.format.schema import SourceRef

from ..checkpoints.config import Config
from ..checkpoints.files import ModelFolder
from ..checkpoints.safetensors import Stored
from ..checkpoints.tensor_cache import index_of, read_tensor_cache, shard_files
from ..families import Family, family_of_checkpoint
from ..quantize.int4_words import GROUP, Int4Words
from ..quantize.tensor import SourceTensor
from .base import LicenseInfo, Source
from .folder import (
    BESIDE,
    Opened,
    model_of,
    read_beside,
    source_of,
    template_and_terms,
    tensors_of,
    tokenizer_of,
    without_tensors,
)
from .problems import Problems
from .sampling import from_generation_config
from .sizes import architecture_of, size_of

CONFIG = "mlc-chat-config.json"
QUANTIZATIONS = ("q4f16_1", "q4f32_1", "q0f16", "q0f32")
# Matrices that hold several: queries, keys and values, or gate and up.
_QKV = re.compile(r"(model\.layers\.\d+\.self_attn)\.(?:qkv_proj|c_attn)\.(weight|bias|q_weight|q_scale)")
_GATE_UP = re.compile(r"(model\.layers\.\d+\.mlp)\.gate_up_proj\.(weight|q_weight|q_scale)")
# Keys of `model_config` by the names of a config.json; what is not here is called the same.
_RENAMED = {"position_embedding_base": "rope_theta", "context_window_size": "max_position_embeddings"}
# How a model runs elsewhere.
_RUNTIME = frozenset(
    [
        "tensor_parallel_shards",
        "pipeline_parallel_stages",
        "prefill_chunk_size",
        "max_batch_size",
        "sliding_window_size",
        "attention_sink_size",
        "disaggregation",
    ]
)


def is_mlc_folder(path: Path) -> bool:
    return path.is_dir() and (path / CONFIG).exists()


def open_mlc(
    path: Path, *, sha256: str | None = None, licensed: Callable[[LicenseInfo], object] = lambda _: None,
    whole: bool = False,
) -> Source:  # fmt: skip
    """Parameters and errors as `open_folder`'s. ``whole``: for a library of MLC's, which may be of any family and
    quantization; without tensors of ours."""
    folder, problems = ModelFolder(path), Problems("this folder")
    config = problems.of(lambda: _config(folder, whole))
    stored = problems.of(lambda: read_tensor_cache(folder))
    own = problems.of(lambda: model_config(config)) if config is not None else None
    family = problems.of(lambda: _family(config or {})) if own is not None and not whole else None
    beside = read_beside(folder, problems)
    model = None
    if own is not None and stored is not None and family is not None:
        model = problems.of(lambda: _model(family, own, stored))
    elif own is not None and whole:
        model = problems.of(lambda: _sizes(own))
    tokenizer = None
    if model is not None:
        rows, ids = model[0].vocab, own or {}
        named = {**ids, **{key: value for key, value in (config or {}).items() if key.endswith("_token_id")}}
        tokenizer = problems.of(lambda: tokenizer_of(folder, named, beside, rows))
    template, terms = template_and_terms(folder, beside, problems, licensed)
    assert config is not None and model is not None and tokenizer is not None
    names = [CONFIG, "tokenizer.json", *BESIDE, "chat_template.jinja", index_of(folder)]
    digest = folder.sha256([*(name for name in names if folder.has(name)), *shard_files(folder)])
    sampling, more = from_generation_config({**config, **beside["generation_config.json"]})
    if template[0] is None and config.get("conv_template"):
        more = [*more, f"{CONFIG}: conv_template is not taken, so that there is no chat"]
    return source_of(
        path, folder, SourceRef("mlc", "", index_of(folder), digest), sha256,
        model, tokenizer, template, terms, sampling, more,
    )  # fmt: skip


def _config(folder: ModelFolder, every: bool) -> dict[str, Any]:
    """``every``: of whatever quantization."""
    folder.file(CONFIG)
    found = folder.json(CONFIG)
    kind = found.get("quantization")
    if not every and kind not in QUANTIZATIONS:
        raise SourceInvalid(
            f"{CONFIG}: quantization {quoted(kind)} is not supported; supported: {', '.join(QUANTIZATIONS)}",
            field="quantization",
        )
    return found


def _sizes(config: Mapping[str, Any]) -> Opened:
    said = Config(config)
    layers, vocab = size_of(said, "num_hidden_layers"), size_of(said, "vocab_size")
    return without_tensors(architecture_of(said, layers=layers, vocab=vocab))


def _family(config: Mapping[str, Any]) -> Family:
    kind = config.get("model_type")
    return family_of_checkpoint(kind if isinstance(kind, str) else quoted(kind), f"{CONFIG}.model_type")


def model_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """As a config.json would have it."""
    own = config.get("model_config")
    if not isinstance(own, Mapping):
        raise SourceInvalid(f"{CONFIG}: model_config is missing", field=f"{CONFIG}.model_config")
    for name in ("tensor_parallel_shards", "pipeline_parallel_stages"):
        if own.get(name, 1) != 1:
            raise SourceInvalid(f"{CONFIG}: {name} {quoted(own[name])} is not supported; only 1 is", field=name)
    kept = {name: value for name, value in own.items() if name not in _RUNTIME}
    # A context of its own, as the model has it or shorter.
    for name, theirs in _RENAMED.items():
        value = kept.pop(name, None)
        if value is not None and (theirs not in kept or name == "context_window_size"):
            kept[theirs] = value
    window = own.get("sliding_window_size", -1)
    if window not in (None, -1):
        raise SourceInvalid(f"{CONFIG}: a sliding_window_size of {quoted(window)} is not supported", field=CONFIG)
    return kept | {"model_type": config.get("model_type")}


def _model(family: Family, config: Mapping[str, Any], stored: Mapping[str, Stored]) -> Opened:
    checkpoint = family.checkpoint
    assert checkpoint is not None
    keys = checkpoint.keys(config)
    heads, ffn = keys.size("heads"), keys.size("ffn")
    head_dim = keys.size("head_dim", max(keys.size("hidden") // heads, 1))
    kv = keys.size("kv_heads", heads) * head_dim
    apart: dict[str, Stored] = {}
    for tensor in stored.values():
        for name, part in _parted(tensor, [heads * head_dim, kv, kv], ffn):
            if name in apart:
                raise SourceInvalid(f"tensor {brief(name)} stands twice", field=brief(name))
            apart[name] = part
    plain = {name: t for name, t in apart.items() if not name.endswith((".q_weight", ".q_scale"))}
    tensors = tensors_of(checkpoint, plain)
    for name, words in apart.items():
        base, _, kind = name.rpartition(".")
        if kind != "q_weight":
            continue
        ours = checkpoint.name_of(f"{base}.weight")
        if ours is None or ours in tensors:
            raise SourceInvalid(f"tensor {brief(name)} stands twice", field=brief(name))
        tensors[ours] = _groups(ours, words, apart.get(f"{base}.q_scale"))
    for name in apart:
        if name.endswith(".q_scale") and f"{name.removesuffix('.q_scale')}.q_weight" not in apart:
            raise SourceInvalid(f"tensor {brief(name)} has no quants beside it", field=brief(name))
    return model_of(family, config, tensors, CONFIG, norm_offset=0.0)  # MLC's converter has added it


def _parted(tensor: Stored, qkv: list[int], ffn: int) -> list[tuple[str, Stored]]:
    """The tensor, or those that it holds behind one another."""
    if match := _QKV.fullmatch(tensor.name):
        names, sizes = [f"{match[1]}.{x}_proj.{match[2]}" for x in "qkv"], qkv
    elif match := _GATE_UP.fullmatch(tensor.name):
        names, sizes = [f"{match[1]}.{x}_proj.{match[2]}" for x in ("gate", "up")], [ffn, ffn]
    else:
        return [(tensor.name, tensor)]
    if not tensor.shape or tensor.shape[0] != sum(sizes):
        raise SourceInvalid(
            f"{brief(tensor.name)}: shape {list(tensor.shape)}, expected {sum(sizes)} rows", field=brief(tensor.name)
        )
    rows = tensor.data.reshape(tensor.shape[0], -1)
    ends = np.cumsum(sizes)
    return [
        (name, replace(tensor, name=name, shape=(size, *tensor.shape[1:]), data=rows[end - size : end].reshape(-1)))
        for name, size, end in zip(names, sizes, ends, strict=True)
    ]


def _groups(name: str, words: Stored, scales: Stored | None) -> SourceTensor:
    field = brief(words.name)
    if scales is None or words.dtype != "U32" or len(words.shape) != 2 or 0 in words.shape:
        raise SourceInvalid(f"{field}: expected uint32 [rows, columns / 8] and scales beside it", field=field)
    rows, columns = words.shape[0], words.shape[1] * 8
    if columns % GROUP or scales.shape != (rows, columns // GROUP):
        raise SourceInvalid(
            f"{field}: scales of shape {list(scales.shape)}, expected {[rows, columns // GROUP]}: only groups "
            f"of {GROUP} along the columns are supported",
            field=field,
        )
    if scales.dtype == "BF16":
        values: Any = (scales.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif scales.dtype in ("F16", "F32"):
        values = scales.data.view(np.float16 if scales.dtype == "F16" else np.float32)
    else:
        raise SourceInvalid(f"{field}: scales of type {scales.dtype}", field=field)
    return Int4Words(name, (rows, columns), "q4_0", words.data, scales=values.reshape(scales.shape))
