"""A model by shape as a GGUF file, with the very rows that the artifact has: for engines measured beside it."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from .base import Source

_PRE = "smollm"  # the pre-tokenizer's name where the tokenizer splits digits; what is compared are ids


def write_gguf(source: Source, path: Path) -> None:
    """Write ``source``, one tensor in memory at a time."""
    a = source.architecture
    w = gguf.GGUFWriter(path, a.family)
    w.add_name(source.name)
    w.add_block_count(a.layers)
    w.add_context_length(a.context)
    w.add_embedding_length(a.hidden)
    w.add_feed_forward_length(a.ffn)
    w.add_head_count(a.heads)
    w.add_head_count_kv(a.kv_heads)
    w.add_key_length(a.head_dim)
    w.add_value_length(a.head_dim)
    w.add_rope_dimension_count(a.head_dim)
    w.add_rope_freq_base(a.rope_theta)
    w.add_layer_norm_rms_eps(a.norm_eps)
    w.add_vocab_size(a.vocab)
    if a.window:
        w.add_sliding_window(a.window)
    model, control = source.tokenizer_json["model"], source.tokenizer.special.values()
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(_PRE)
    w.add_token_list(sorted(model["vocab"], key=model["vocab"].__getitem__))
    kinds = [gguf.TokenType.NORMAL] * a.vocab
    for token in control:
        kinds[token] = gguf.TokenType.CONTROL
    w.add_token_types(kinds)
    w.add_token_merges([" ".join(pair) for pair in model["merges"]])
    w.add_add_bos_token(source.tokenizer.add_bos)
    for t in source.tensors.values():
        kind = gguf.GGMLQuantizationType[t.format.upper()]
        row = t.data.size // t.stored_rows
        if len(t.shape) == 1:
            w.add_tensor_info(f"{t.name}.weight", t.shape, np.dtype(np.float32), t.data.nbytes, kind)
        else:
            size = (t.shape[0], row)
            w.add_tensor_info(f"{t.name}.weight", size, np.dtype(np.uint8), row * t.shape[0], kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for t in source.tensors.values():
        w.write_tensor_data(np.tile(t.data.reshape(t.stored_rows, -1), (t.repeats, 1)))
    w.close()
