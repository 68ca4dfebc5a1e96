"""Folders of the Hugging Face kind: the model that transformers saved is the one that a GGUF file of the same weights
holds, to the bit; what is damaged or not followed is refused by name."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.errors import SourceInvalid
from inpage_compile.artifact.levels import sources_of
from inpage_compile.artifact.licenses import check_license
from inpage_compile.artifact.weights import plan
from inpage_compile.checkpoints.files import ModelFolder
from inpage_compile.checkpoints.safetensors import read_safetensors
from inpage_compile.pipeline import compile_model
from inpage_compile.sources import Source, dequantize, open_folder, open_source
from support.folder import FOLDERS, change, checkpoint, reference, safetensors, stored, write_folder
from support.models import ROOT, feed, first_ways, one_function, open_engine, tiny_artifact
from support.tiny import MODELS

WITNESS = json.loads((Path(__file__).parents[1] / "reference" / "tiny.json").read_text("utf-8"))["models"]


def weights(source: Source) -> list[Any]:
    """The artifact's tensors: entries and bytes."""
    return [(planned.entry, planned.make().tobytes()) for planned in plan(source)]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_is_the_file_of_the_same_weights(name: str, tmp_path: Path) -> None:
    """What is the same in weights, frequencies and architecture gives the same logits."""
    file = open_source(str(FOLDERS[name].write(tmp_path / f"{name}.gguf")))
    folder = open_source(str(write_folder(tmp_path / name, name)))
    assert folder.architecture == file.architecture
    assert weights(folder) == weights(file)
    assert folder.tokenizer == file.tokenizer
    assert folder.chat_template == file.chat_template
    assert (folder.id, folder.origin.kind, folder.warnings) == (name, "safetensors", ())
    saved = reference()["models"][name]["tensors"]  # what transformers calls them
    assert {key: list(w.shape) for key, w in checkpoint(FOLDERS[name]).items()} == saved


async def test_logits_are_transformers_and_the_files_to_the_bit(tmp_path: Path) -> None:
    """Llama 3's rotary positions, and rows that change places."""
    with first_ways(), one_function():
        made = compile_model(
            str(write_folder(tmp_path / "llama3", "llama3")), tmp_path / "out", variants=("native-f32",),
            levels=("source",), accept_license=True,
        )  # fmt: skip
    by_folder, by_file = await open_engine(made, "native-f32"), await open_engine(tiny_artifact("llama3"), "native-f32")
    for prompt in WITNESS["llama3"]["prompts"]:
        out = await feed(by_folder, prompt["ids"], [5, 2, 9, 0, 7])
        assert out.logits == (await feed(by_file, prompt["ids"], [5, 2, 9, 0, 7])).logits
        wanted = np.array(prompt["logits"])
        assert np.abs(np.array(out.logits) - wanted).max() <= 1e-3 * np.abs(wanted).max()
    await by_folder.unload()
    await by_file.unload()
    assert ROOT in tiny_artifact("llama3").parents


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_floats_stay_as_they_are(dtype: str, tmp_path: Path) -> None:
    source = open_folder(write_folder(tmp_path / "m", "qwen2", dtype))
    exact = open_folder(write_folder(tmp_path / "f32", "qwen2"))
    for name, tensor in source.tensors.items():
        assert tensor.format == dtype.lower()
        values = exact.tensors[name].data.view(np.float32)
        assert tensor.data.tobytes() == stored(values, dtype)
    levels = sources_of(source, ["source", "q8_0"])
    assert {t.format for t in levels["q8_0"].tensors.values()} == {dtype.lower(), "q8_0"}  # norms and biases stay


def test_a_rounded_level_keeps_the_order_of_rows(tmp_path: Path) -> None:
    tiny = FOLDERS["f32"]
    folder = open_folder(write_folder(tmp_path / "m", "f32"))
    file = open_source(str(tiny.write(tmp_path / "m.gguf")))
    rounded = [sources_of(source, ["q8_0"])["q8_0"] for source in (folder, file)]
    for name, tensor in rounded[1].tensors.items():
        np.testing.assert_array_equal(dequantize(rounded[0].tensors[name]), dequantize(tensor))


def test_shards_make_the_whole(tmp_path: Path) -> None:
    whole = open_folder(write_folder(tmp_path / "whole", "untied"))
    parts = open_folder(write_folder(tmp_path / "parts", "untied", shards=3))
    assert weights(parts) == weights(whole)
    assert parts.origin.sha256 != whole.origin.sha256
    moved = open_folder((tmp_path / "parts").rename(tmp_path / "moved"))
    assert moved.origin.sha256 == parts.origin.sha256  # of contents, not of places


@pytest.mark.parametrize("name", ["llama3", "linear", "qwen3-yarn"])
def test_config_as_before_transformers_5(name: str, tmp_path: Path) -> None:
    """``rope_theta`` at the top, ``rope_scaling`` with the kind's old key, null where nothing is scaled."""
    folder = write_folder(tmp_path / name, name)
    before = open_folder(folder)
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    theta, kind = rope.pop("rope_theta"), rope.pop("rope_type")
    change(folder, "config.json", rope_parameters=None, rope_theta=theta, rope_scaling={"type": kind, **rope},
           torch_dtype="float32", dtype=None)  # fmt: skip
    after = open_folder(folder)
    assert (after.architecture, after.warnings) == (before.architecture, ())
    np.testing.assert_array_equal(after.rope.divisors, before.rope.divisors)


# --- what is refused ------------------------------------------------------------------------------------------------


def fails(folder: Path, field: str, match: str | None = None) -> None:
    with pytest.raises(SourceInvalid, match=match) as e:
        open_folder(folder)
    assert e.value.field == field
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("values", "field", "match"),
    [
        (
            {"model_type": "mamba"},
            "model_type",
            "'mamba' is not supported; supported: bert, gemma2, gemma3_text, granite",
        ),
        ({"model_type": None}, "model_type", "must be a text"),
        ({"num_hidden_layers": None}, "num_hidden_layers", "missing"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers", "must be an integer"),
        ({"num_hidden_layers": 1 << 40}, "num_hidden_layers", "outside"),
        ({"num_key_value_heads": 3}, "num_key_value_heads", "do not divide"),
        ({"rms_norm_eps": 0}, "rms_norm_eps", "positive"),
        ({"hidden_act": "gelu"}, "hidden_act", "'gelu' is not supported; only silu is"),
        ({"attention_bias": True}, "attention_bias", "True is not supported"),
        ({"num_local_experts": 8}, "num_local_experts", "8 is not supported"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping", "30.0 is not supported"),
        ({"model_type": "mistral", "sliding_window": -64}, "sliding_window", "a window of -64"),
        ({"use_sliding_window": True}, "use_sliding_window", "True is not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types", "only full_attention"),
        ({"partial_rotary_factor": 1e12}, "partial_rotary_factor", "more than all of a head"),
        ({"head_dim": 1 << 50}, "head_dim", "outside"),
        ({"partial_rotary_factor": 0.19}, "partial_rotary_factor", "3 of a head's 16 elements"),
        ({"rope_parameters": {"rope_type": "longrope", "short_factor": 1}}, "rope_parameters.short_factor", "list of"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantization_config", "'gptq'.*GGUF"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings", "true or false"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_parameters.rope_type", "'dynamic'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "rope_parameters.low_freq_factor", "missing"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "truncate": False}},
            "rope_parameters.truncate",
            "False is",
        ),
        ({"rope_parameters": {"rope_type": "linear", "factor": -1.0}}, "rope_parameters.factor", "negative"),
    ],
)
def test_wrong_config(values: dict[str, Any], field: str, match: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    change(folder, "config.json", **values)
    fails(folder, f"config.json.{field}", match)


def test_a_window_counts_where_transformers_has_one(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen2")
    change(folder, "config.json", sliding_window=64, use_sliding_window=False)
    assert (open_folder(folder).architecture.window, open_folder(folder).warnings) == (0, ())
    assert open_folder(write_folder(tmp_path / "mistral", "mistral")).architecture.window == 12


def test_what_a_familys_config_says_as_older_files_do(tmp_path: Path) -> None:
    """Gemma 3's two rotary bases and its pattern, each under its old name; Phi-3's `su`."""
    folder = write_folder(tmp_path / "m", "gemma3")
    before = open_folder(folder)
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    scaling = {"rope_type": "linear", "factor": rope["full_attention"]["factor"]}
    older = {"rope_theta": rope["full_attention"]["rope_theta"], "rope_scaling": scaling, "sliding_window_pattern": 6}
    older |= {"rope_local_base_freq": rope["sliding_attention"]["rope_theta"]}
    change(folder, "config.json", rope_parameters=None, layer_types=None, **older)
    after = open_folder(folder)
    assert (after.architecture, after.warnings) == (before.architecture, ())
    assert after.rope.local_theta == before.rope.local_theta == 10000.0
    change(folder, "config.json", query_pre_attn_scalar=64)
    assert open_folder(folder).architecture.attention_scale == 0.125
    folder = write_folder(tmp_path / "phi", "phi3")
    before = open_folder(folder)
    rope = json.loads((folder / "config.json").read_text())["rope_parameters"]
    original = rope.pop("original_max_position_embeddings")
    change(folder, "config.json", rope_parameters=None, original_max_position_embeddings=original,
           rope_theta=rope.pop("rope_theta"), partial_rotary_factor=rope.pop("partial_rotary_factor"),
           rope_scaling=rope | {"rope_type": None, "type": "su"})  # fmt: skip
    assert open_folder(folder).architecture == before.architecture
    folder = write_folder(tmp_path / "smol", "smollm3")
    change(folder, "config.json", no_rope_layers=[1, 0, 1, 0])
    fails(folder, "config.json.no_rope_layers", "may be without rotary positions")
    folder = write_folder(tmp_path / "gemma2", "gemma2")
    change(folder, "config.json", layer_types=["full_attention", "chunked_attention"] * 2)
    fails(folder, "config.json.layer_types", "must name full_attention or sliding_attention")


def test_liquids_own_config_says_the_same(tmp_path: Path) -> None:
    """LFM2 as Liquid AI publishes it: which layers attend, a width to be adjusted, the norm's size by two names."""
    folder = write_folder(tmp_path / "m", "lfm2")
    before = open_folder(folder)
    change(folder, "config.json", layer_types=None, full_attn_idxs=[2, 5], intermediate_size=None, block_ff_dim=128,
           block_auto_adjust_ff_dim=True, block_ffn_dim_multiplier=1.0, block_multiple_of=32, block_dim=64,
           block_norm_eps=1e-5, block_use_swiglu=True, conv_dim=64, conv_bias=False, num_heads=4, use_pos_enc=True,
           tie_word_embeddings=None, tie_embedding=True)  # fmt: skip
    after = open_folder(folder)
    assert (after.architecture, after.warnings) == (before.architecture, ())
    change(folder, "config.json", block_ffn_dim_multiplier=1.2)
    fails(folder, "model.layers.0.feed_forward.w1.weight", r"expected \[128, 64\]")  # 2/3 · 1.2 of 128, up to 32s
    change(folder, "config.json", full_attn_idxs=[], block_ffn_dim_multiplier=1.0)
    fails(folder, "config.json.layer_types", "no layer has attention")
    change(folder, "config.json", full_attn_idxs=None, layer_types=["conv", "mamba"] * 3)
    fails(folder, "config.json.layer_types", "must name full_attention or conv")
    change(folder, "config.json", conv_bias=True)
    fails(folder, "config.json.conv_bias", "True is not supported")


def test_keys_that_nothing_follows_are_told_by_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    change(folder, "config.json", novelty=3, auto_map={"AutoModel": "evil.Model"})
    (warning,) = open_folder(folder).warnings
    assert "'novelty'" in warning


def test_all_that_stands_against_a_folder_is_told_at_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    change(folder, "config.json", hidden_act="gelu")
    change(folder, "tokenizer.json", model={"type": "Unigram", "vocab": []})
    change(folder, "tokenizer_config.json", chat_template=7)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(SourceInvalid) as e:
        open_source(str(folder), licensed=lambda terms: check_license(terms, False))
    said = str(e.value)
    assert said.startswith("4 things stand against this folder: (1) config.json.hidden_act") and "\n" not in said
    for each in ("'Unigram' is not supported; only BPE is", "chat_template: must be a text", "--accept-license"):
        assert each in said


def test_tensors_are_named_as_in_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "untied")
    tensors = checkpoint(FOLDERS["untied"])

    def with_tensors(**changes: Any) -> Path:
        named = {name.replace("__", "."): values for name, values in changes.items()}
        made = {name: values for name, values in (tensors | named).items() if values is not None}
        (folder / "model.safetensors").write_bytes(safetensors(made))
        return folder

    q = "model__layers__1__self_attn__q_proj__weight"
    fails(with_tensors(**{q: None}), q.replace("__", "."), "is missing")
    fails(with_tensors(**{q: np.zeros((8, 8))}), q.replace("__", "."), r"shape \[8, 8\], expected \[64, 64\]")
    fails(with_tensors(lm_head__weight=None), "lm_head.weight", "missing, and config.json ties no embeddings")
    extra = {"model__layers__0__self_attn__q_proj__lora": np.zeros((8, 8)), "score__weight": np.zeros((2, 64))}
    fails(with_tensors(**extra), "model.layers.0.self_attn.q_proj.lora", "score.weight has no place in a llama model")
    fails(with_tensors(embed_tokens__weight=np.zeros((320, 64))), "embed_tokens.weight", "stands twice")
    fails(with_tensors(token_embd=np.zeros((320, 64))), "token_embd of the file", "has no place")
    open_folder(with_tensors(model__layers__0__self_attn__rotary_emb__inv_freq=np.zeros(8)))  # of old files
    change(folder, "config.json", tie_word_embeddings=True)
    assert open_folder(with_tensors()).architecture.tied  # the head that lies there is a copy


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    end = 8 + struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:end]), data[end:]


def write_header(path: Path, header: Any, body: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_a_tokenizer_may_have_as_many_keys_as_real_ones(tmp_path: Path) -> None:
    vocab = {f"t{i}": i for i in range(30_000)}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    assert ModelFolder(tmp_path).json("tokenizer.json", 1 << 20, 1 << 17)["model"]["vocab"] == vocab


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    good = safetensors({"a": np.ones((2, 3)), "b": np.ones(4)})
    header, body = header_of(good)
    path.write_bytes(good)
    assert read_safetensors(path)["b"].shape == (4,)

    def entry(**changes: Any) -> dict[str, Any]:
        return header | {"a": header["a"] | changes}

    for wrong, match in (
        (entry(data_offsets=[0, 23]), "23 bytes for F32"),
        (entry(data_offsets=[24, 0]), "-24 bytes"),
        (entry(data_offsets=[-24, 0]), "whole numbers"),
        (entry(data_offsets=[4, 28]), "begins within"),
        (entry(data_offsets=[0, 24, 24]), "whole numbers"),
        (entry(data_offsets=[1 << 61, (1 << 61) + 24]), "cut off"),
        (entry(shape=[1 << 40, 1 << 40]), "bytes for F32"),
        (entry(shape=[2.0, 3]), "whole numbers"),
        (entry(shape=[True, 6]), "whole numbers"),
        (entry(shape=[1] * 9), "whole numbers"),
        (entry(dtype="Q4"), "unknown type 'Q4'"),
        (entry(dtype=["F32"]), "unknown type"),
        (entry(more=1), "must have dtype"),
        (header | {"a": []}, "must have dtype"),
        ([header], "no object"),
        (b"{", "not a safetensors file"),
        (b"[" * 200_000, "not a safetensors file"),
        (json.dumps(header).encode().replace(b'"b"', b'"a"'), "a stands twice"),
    ):
        with pytest.raises(SourceInvalid, match=match) as e:
            read_safetensors(write_header(path, wrong, body))
        assert e.value.field
    for cut in (0, 5, 8, 40, len(good) - 1):
        path.write_bytes(good[:cut])
        with pytest.raises(SourceInvalid, match=r"cut off|not a safetensors"):
            read_safetensors(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + good[8:])
    with pytest.raises(SourceInvalid, match="a header of"):
        read_safetensors(path)


def test_damaged_headers_are_read_or_refused(tmp_path: Path) -> None:
    good = safetensors({name: w for name, w in checkpoint(FOLDERS["f32"]).items() if w.size < 5000})
    end = 8 + struct.unpack("<Q", good[:8])[0]
    rng, path = np.random.default_rng(11), tmp_path / "model.safetensors"
    refused = 0
    for _ in range(200):
        data = bytearray(good)
        for at in rng.integers(0, end, rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            found = read_safetensors(path)
        except SourceInvalid as e:
            refused += e.field is not None
        else:
            assert all(tensor.data.nbytes <= len(good) for tensor in found.values())
    assert refused > 100


@pytest.mark.parametrize(
    ("change_index", "match"),
    [
        (lambda index: index.update(weight_map={}), "must name a file"),
        (lambda index: index["weight_map"].update({"model.norm.weight": "../model.safetensors"}), "not the name of"),
        (lambda index: index["weight_map"].update({"model.norm.weight": "/etc/passwd"}), "not the name of"),
        (lambda index: index["weight_map"].update({"model.norm.weight": 1}), "must name a file"),
        (lambda index: index["weight_map"].update({"model.norm.weight": "model-9.safetensors"}), "is missing in"),
        (lambda index: index["weight_map"].update({"more": "model-00001-of-00002.safetensors"}), "lacks 'more'"),
        (lambda index: index["weight_map"].pop("model.norm.weight"), "which the index says is in no file"),
    ],
)
def test_wrong_index(change_index: Any, match: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32", shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change_index(index)
    path.write_text(json.dumps(index))
    with pytest.raises(SourceInvalid, match=match):
        open_folder(folder)


def test_links_do_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    weights_file = (folder / "model.safetensors").rename(tmp_path / "elsewhere")
    (folder / "model.safetensors").symlink_to(weights_file)
    fails(folder, "model.safetensors", "link out of the model's folder")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(folder / "model.safetensors")
    fails(folder, "model.safetensors")
    # The hub's own cache: links into `blobs`.
    hub = tmp_path / "models--someone--tiny"
    snapshot, blobs = hub / "snapshots" / "0a1b", hub / "blobs"
    blobs.mkdir(parents=True)
    write_folder(snapshot, "f32")
    for file in list(snapshot.iterdir()):
        target = file.rename(blobs / f"blob-{file.name}")
        file.symlink_to(Path("../..") / "blobs" / target.name)
    assert open_folder(snapshot).architecture.layers == 2


def test_other_weights_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, "model.safetensors", r"neither model.safetensors nor .*\(pytorch_model.bin cannot be read\)")
    (folder / "tokenizer.json").unlink()
    (folder / "pytorch_model.bin").rename(folder / "model.safetensors")
    fails(folder, "tokenizer.json", "transformers makes it")
    header, body = header_of((folder / "model.safetensors").read_bytes())
    header["model.norm.weight"]["dtype"] = "I32"
    write_folder(folder, "f32")
    write_header(folder / "model.safetensors", header, body)
    fails(folder, "model.norm.weight", "type I32 is not supported; supported are F32, F16, BF16")
    with pytest.raises(SourceInvalid, match="expected 0000"):
        open_folder(write_folder(folder, "f32"), sha256="0" * 64)


# --- what lies beside the weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "file", "expected"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# A model", None, "apache-2.0"),
        ("---\r\nlicense: 'mit'  # of the weights\r\n---\r\ntext", None, "mit"),
        ("---\nlicense: other\nlicense_name: llama3.2\n---\n", "Terms.", "llama3.2"),
        ("---\nlicense: other\n---\n", None, "other"),
        ("no front matter\nlicense: mit", None, None),
        ("---\ntags: x\n---\n", "                  Apache License\n  Version 2.0, January 2004", "Apache-2.0"),
        (None, "MIT License\n\nCopyright", "MIT"),
        (None, None, None),
        ("---\nlicense: " + " " * 500_000 + "x\n---\n", None, None),
    ],
)
def test_licences(card: str | None, file: str | None, expected: str | None, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    if card is not None:
        (folder / "README.md").write_text(card, newline="")
    if file is not None:
        (folder / "LICENSE.txt").write_text(file)
    found = open_folder(folder).license
    assert (found.id, found.text) == (expected, file)


def test_sampling_is_what_its_makers_say(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "f32")
    assert open_folder(folder).sampling is None
    change(folder, "generation_config.json", do_sample=True, temperature=0.6, top_p=0.9, top_k=20,
           repetition_penalty=1.05, min_p=0.0)  # fmt: skip
    found = open_folder(folder).sampling
    assert found is not None
    assert (found.temperature, found.top_p, found.top_k) == (0.6, 0.9, 20)
    assert (found.min_p, found.repetition_penalty) == (None, 1.05)
    change(folder, "generation_config.json", do_sample=False)
    found = open_folder(folder).sampling
    assert found is not None and (found.temperature, found.top_k, found.repetition_penalty) == (None, 1, 1.05)
    change(folder, "generation_config.json", do_sample=True, temperature=0)
    found = open_folder(folder).sampling
    assert found is not None and (found.temperature, found.top_p, found.top_k) == (None, None, 1)
    change(folder, "generation_config.json", do_sample=True, temperature=9, top_p="high", top_k=2.5)
    source = open_folder(folder)
    assert source.sampling is not None and source.sampling.temperature is None
    assert [warning.partition(": ")[2].partition(" is left")[0] for warning in source.warnings] == [
        "generation_config.json: temperature: 9", "generation_config.json: top_p: 'high'",
        "generation_config.json: top_k: 2.5",
    ]  # fmt: skip


def test_a_gguf_file_says_it_too(tmp_path: Path) -> None:
    path = MODELS["f32"].write(tmp_path / "m.gguf", {"general.sampling.temp": 0.6, "general.sampling.top_k": 20})
    found = open_source(str(path)).sampling
    assert found is not None and (round(found.temperature or 0, 6), found.top_k, found.top_p) == (0.6, 20, None)


def test_who_compiles_may_say_what_a_folder_is(tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid, match=r"a folder with a config.json"):
        open_source(str(tmp_path))
    folder = write_folder(tmp_path / "Some_Model v1", "f32")
    source = open_source(str(folder))
    assert (source.id, source.name) == ("some_model-v1", "Some_Model v1")
    assert replace(source.origin, sha256="") == replace(source.origin, sha256="", kind="safetensors")
