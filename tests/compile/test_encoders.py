"""Tiny encoders from folder and GGUF to vectors on this machine, against transformers in float32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.errors import ArtifactInvalid, InvalidRequest, SourceInvalid, Unsupported
from inpage.format.manifest import parse_manifest
from inpage.text.tokenizer import load_tokenizer
from inpage_compile.artifact.fingerprint import fingerprint
from inpage_compile.artifact.levels import sources_of
from inpage_compile.artifact.weights import plan
from inpage_compile.families.encoder_graph import encoder_maxima, packing_of
from inpage_compile.sources import Source, open_source
from inpage_compile.sources.base import TEXT, limit_context
from support.encoders import TINY, VARIANTS, WITNESS, bert_artifact, open_encoder, text, vectors
from support.folder import change
from support.models import manifest_of
from support.tiny_bert import BERTS, QUERY, TEXTS
from support.tiny_embedders import EMBEDDERS, PROMPTS, of_makers

ERROR = {"native-f32": 2e-5, "native": 2e-5}  # of the largest number; floats are multiplied by floats in both


def named(*names: str) -> list[Any]:
    return [pytest.param(n, v, id=f"{n}-{v}") for n in names for v in VARIANTS.get(n, ("native-f32",)) if v in ERROR]


def fed(name: str, i: int) -> Any:
    ids, tiny = WITNESS[name]["ids"][i], TINY[name]
    return text(ids, ids.index(tiny.sep) + 1 if tiny.pooling is None else None)


@pytest.mark.parametrize(("name", "variant"), named(*TINY))
async def test_hidden_states_and_scores_are_transformers(name: str, variant: str) -> None:
    """Whatever the pooling takes of the states: the first one, the last one, the mean; a classifier's logit."""
    witness = WITNESS[name]
    assert witness["weights_sha256"] == TINY[name].digest()
    wanted = np.array(witness["vectors"] if TINY[name].pooling else witness["logits"])
    engine = await open_encoder(bert_artifact(name), variant)
    assert (engine.info.embeds, engine.info.paged, engine.info.page_bytes) == (True, False, 0)
    together = await vectors(engine, [fed(name, i) for i in range(len(TEXTS))])
    assert np.abs(together.reshape(wanted.shape) - wanted).max() <= ERROR[variant] * np.abs(wanted).max()
    # The same bits alone, in another company, and on one thread.
    alone = [(await vectors(engine, [fed(name, i)]))[0] for i in range(len(TEXTS))]
    turned = await vectors(engine, [fed(name, i) for i in reversed(range(len(TEXTS)))])
    await engine.unload()
    single = await open_encoder(bert_artifact(name), variant, threads=1)
    on_one = await vectors(single, [fed(name, i) for i in range(len(TEXTS))])
    await single.unload()
    for other in (np.array(alone), turned[::-1], on_one):
        assert other.tobytes() == together.tobytes()


@pytest.mark.parametrize("name", TINY)
def test_texts_become_transformers_ids(name: str) -> None:
    manifest = manifest_of(bert_artifact(name))
    ref, described = manifest.tokenizer, (bert_artifact(name) / "tokenizer.json").read_text()
    tokenizer = load_tokenizer(described, ref.special)
    assert ref.add_eos and ref.add_bos == (name != "qwen3")
    front, end = [ref.bos] if ref.add_bos else [], [ref.eos[0]]
    room = manifest.architecture.context - len(front) - 1
    embedding = manifest.embedding
    assert embedding is not None
    for wanted, each in zip(WITNESS[name]["ids"], TEXTS, strict=True):
        ids = tokenizer.encode(each)
        if TINY[name].pooling is not None:
            assert [*front, *ids[:room], *end] == wanted
        elif len(wanted) < manifest.architecture.context:
            assert [*front, *tokenizer.encode(QUERY), *end * embedding.separators, *ids, *end] == wanted


@pytest.mark.parametrize("name", ["mean", "ranks", *EMBEDDERS])
def test_a_gguf_file_is_the_same_model(name: str, tmp_path: Path) -> None:
    """Tensor for tensor and token for token, but for what only the folder says."""
    folder = open_source(str(TINY[name].write(tmp_path / "folder")))
    file = open_source(str(TINY[name].write_gguf(tmp_path / "tiny.gguf")))
    # What files call XLM-RoBERTa, and what folders call EmbeddingGemma.
    family = {"xlmr-ranks": "bert", "gemma": "gemma-embedding"}.get(name, folder.architecture.family)
    assert file.architecture == replace(folder.architecture, family=family)
    assert set(file.tensors) == set(folder.tensors)
    for key, tensor in folder.tensors.items():
        assert bytes(file.tensors[key].groups().to_float32().tobytes()) == tensor.groups().to_float32().tobytes(), key
    assert np.array_equal(file.rope.divisors, folder.rope.divisors)
    parts = ("model", "normalizer", "pre_tokenizer", "added_tokens") if name not in ("qwen3", "gemma") else ("model",)
    for part in parts:
        assert file.tokenizer.json[part] == folder.tokenizer.json[part]
    assert (file.tokenizer.bos, file.tokenizer.eos[0]) == (folder.tokenizer.bos, folder.tokenizer.eos[0])
    assert (file.tokenizer.add_bos, file.tokenizer.add_eos) == (folder.tokenizer.add_bos, folder.tokenizer.add_eos)
    assert file.embedding and folder.embedding and file.embedding.separators == folder.embedding.separators


def _source(tmp_path: Path, name: str = "mean") -> Path:
    return BERTS[name].write(tmp_path / "model")


def test_what_the_folder_says_of_texts_is_kept(tmp_path: Path) -> None:
    source: Source = open_source(str(_source(tmp_path)))
    assert source.embedding is not None and source.embedding.prompts == {"query": "what is ", "document": ""}
    assert source.architecture.pooling == "mean" and source.architecture.normalized
    change(tmp_path / "model", "sentence_bert_config.json", max_seq_length=48)
    assert open_source(str(tmp_path / "model")).architecture.context == 48
    for name, scores in (("ranks", "sigmoid"), ("ranks-raw", "logit")):
        found = open_source(str(BERTS[name].write(tmp_path / name)))
        assert found.embedding is not None and found.embedding.scores == scores
        assert found.architecture.labels == 1


def test_what_families_say_of_texts(tmp_path: Path) -> None:
    """Prompts are the folder's, or where it names none the family's; the makers' own words for Nomic's sizes mean the
    same as transformers'."""
    decoder = open_source(str(EMBEDDERS["qwen3"].write(tmp_path / "decoder")))
    assert decoder.embedding is not None and decoder.embedding.prompts == PROMPTS
    assert decoder.architecture.causal and decoder.chat_template is None
    nomic = open_source(str(EMBEDDERS["nomic"].write(tmp_path / "nomic")))
    makers = open_source(str(of_makers(EMBEDDERS["nomic"]).write(tmp_path / "makers")))
    assert makers.architecture == nomic.architecture and np.array_equal(makers.rope.divisors, nomic.rope.divisors)
    change(tmp_path / "makers", "config_sentence_transformers.json", prompts={})
    own = open_source(str(tmp_path / "makers")).embedding
    assert own is not None and own.prompts["document"] == "search_document: "


def test_a_long_context_has_to_be_asked_for(tmp_path: Path) -> None:
    """Memory for a step goes with the longest text, whatever the texts are."""
    long = replace(EMBEDDERS["qwen3"], tiny=replace(EMBEDDERS["qwen3"].tiny, context=40960))
    source = open_source(str(long.write(tmp_path / "model")))
    limited = limit_context(source, None)
    assert limited.architecture.context == TEXT and "--context allows as many as 40960" in limited.warnings[-1]
    assert limit_context(source, 8192).architecture.context == 8192


@pytest.mark.parametrize(
    ("key", "value"),
    [("qwen3.pooling_type", 4), ("qwen3.pooling_type", 0), ("qwen3.attention.causal", 0)],
)
def test_a_decoder_that_gives_no_vector_is_refused_or_writes(key: str, value: int, tmp_path: Path) -> None:
    causal = {"qwen3.attention.causal": False} if key.endswith("causal") else {}
    path = EMBEDDERS["qwen3"].tiny.write(tmp_path / "m.gguf", causal or {key: value})
    if value == 0 and not causal:
        assert not open_source(str(path)).architecture.encoder
        return
    with pytest.raises(SourceInvalid) as caught:
        open_source(str(path))
    assert caught.value.field == key


def test_how_states_are_pooled_is_in_the_hashes(tmp_path: Path) -> None:
    mean = open_source(str(_source(tmp_path)))
    change(tmp_path / "model", "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    cls = open_source(str(tmp_path / "model"))
    assert (mean.architecture.pooling, cls.architecture.pooling) == ("mean", "cls")
    assert mean.origin.sha256 != cls.origin.sha256
    assert mean.embedding is not None
    others = replace(mean, architecture=cls.architecture), replace(mean, embedding=replace(mean.embedding, scores="x"))
    assert len({fingerprint(each, {}) for each in (mean, *others)}) == 3


def test_limits_of_texts_are_sentence_transformers(tmp_path: Path) -> None:
    """`Transformer` of sentence-transformers: the tokenizer's length where there is no max_seq_length of its own; texts
    in lower case where do_lower_case says so, which the tokenizer does."""
    folder = _source(tmp_path)
    change(folder, "tokenizer_config.json", model_max_length=40)
    change(folder, "sentence_bert_config.json", do_lower_case=True, max_size=5)
    found = open_source(str(folder))
    assert found.architecture.context == 40
    assert [note for note in found.warnings if "max_size" in note]
    change(folder, "sentence_bert_config.json", max_seq_length=48)
    assert open_source(str(folder)).architecture.context == 48
    change(folder, "tokenizer_config.json", model_max_length=10**30)
    change(folder, "sentence_bert_config.json", max_seq_length=None)
    assert open_source(str(folder)).architecture.context == BERTS["mean"].context
    cased = json.loads((folder / "tokenizer.json").read_text())["normalizer"] | {"lowercase": False}
    change(folder, "tokenizer.json", normalizer=cased)
    with pytest.raises(SourceInvalid) as caught:
        open_source(str(folder))
    assert caught.value.field == "sentence_bert_config.json"


@pytest.mark.parametrize(
    ("file", "change_to", "field"),
    [
        ("config.json", {"hidden_act": "relu"}, "config.json.hidden_act"),
        ("config.json", {"position_embedding_type": "relative_key"}, "config.json.position_embedding_type"),
        ("config.json", {"is_decoder": True}, "config.json.is_decoder"),
        ("config.json", {"intermediate_size": 128}, "blk.0.ffn_up"),
        ("config.json", {"num_attention_heads": 3}, "config.json.num_attention_heads"),
        ("config.json", {"max_position_embeddings": 65}, "position_embd"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": False}, "1_Pooling/config.json"),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "1_Pooling/config.json"),
        ("1_Pooling/config.json", {"include_prompt": False}, "1_Pooling/config.json"),
        ("config_sentence_transformers.json", {"default_prompt_name": "no"}, "config_sentence_transformers.json"),
        ("sentence_bert_config.json", {"max_seq_length": 0}, "sentence_bert_config.json"),
        ("sentence_bert_config.json", {"do_lower_case": "no"}, "sentence_bert_config.json"),
        ("tokenizer.json", {"normalizer": {"type": "NFC"}}, "tokenizer.json.normalizer"),
    ],
)
def test_what_no_graph_follows_is_refused_by_name(
    file: str, change_to: dict[str, Any], field: str, tmp_path: Path
) -> None:
    change(_source(tmp_path), file, **change_to)
    with pytest.raises(SourceInvalid) as caught:
        open_source(str(tmp_path / "model"))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "settings", [{"bias": True}, {"activation_function": "torch.nn.modules.activation.Tanh"}], ids=["bias", "tanh"]
)
def test_matrices_behind_the_pooling_do_nothing_else(settings: dict[str, Any], tmp_path: Path) -> None:
    change(EMBEDDERS["gemma"].write(tmp_path / "model"), "3_Dense/config.json", **settings)
    with pytest.raises(SourceInvalid) as caught:
        open_source(str(tmp_path / "model"))
    assert caught.value.field == "3_Dense/config.json"


@pytest.mark.parametrize("path", ["../model", "2_Dense", "1_Pooling/..", ""])
def test_a_list_of_modules_leads_nowhere_else(path: str, tmp_path: Path) -> None:
    folder = _source(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(SourceInvalid):
        open_source(str(folder))


def test_a_cross_encoder_has_what_stands_between_texts() -> None:
    manifest = json.loads((bert_artifact("ranks") / "manifest.json").read_text())
    manifest["tokenizer"] |= {"eos": [], "add_eos": False}
    with pytest.raises(ArtifactInvalid) as caught:
        parse_manifest(manifest)
    assert caught.value.field == "tokenizer.eos"


async def test_a_step_takes_whole_texts_only() -> None:
    engine = await open_encoder(bert_artifact("mean"))
    ids = WITNESS["mean"]["ids"][0]
    wrong = {
        "start": text(ids), "tokens": text([]), "segment": text(ids, len(ids) + 1), "vocab": text([BERTS["mean"].vocab])
    }  # fmt: skip
    wrong["start"].start = 1
    for each in wrong.values():
        with pytest.raises(InvalidRequest):
            await engine.step([each])
    with pytest.raises(InvalidRequest):
        await engine.run([text(ids[:1])], 1)
    with pytest.raises(InvalidRequest):  # more than a step's rows
        await engine.step([text([5] * 60) for _ in range(9)])
    await engine.unload()


def test_levels_round_matrices_and_nothing_else(tmp_path: Path) -> None:
    for name in ("mean", "ranks"):
        (rounded,) = sources_of(open_source(str(_source(tmp_path / name, name))), ("q8_0",)).values()
        formats = {planned.entry.name: planned.entry.format for planned in plan(rounded)}
        assert formats["blk.0.attn_qkv"] == formats["blk.1.ffn_down"] == formats["token_embd"] == "q8_0"
        exact = {"position_embd", "token_types", "blk.0.attn_norm", "blk.0.ffn_up_bias", "head_dense", "head_out"}
        assert {formats[name] for name in exact & set(formats)} == {"f32"}


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"hidden": 48, "head_dim": 12}, "hidden"),
        ({"ffn": 40}, "ffn"),
        ({"heads": 16, "head_dim": 4}, "head_dim"),
        ({"context": 8193}, "context"),
    ],
)
def test_shapes_that_no_kernel_takes_are_refused_before_weights_are_read(changed: dict[str, int], field: str) -> None:
    architecture = replace(manifest_of(bert_artifact("mean")).architecture, **changed)
    with pytest.raises(Unsupported) as caught:
        packing_of(architecture, encoder_maxima(architecture))
    assert caught.value.field == field
