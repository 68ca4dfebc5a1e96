"""Tokens, layers and bits that leave a model: what stays as it was, what is refused, and that the price is true."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from inpage.backends.memory_ceiling import kv_bytes
from inpage.cli import main
from inpage.errors import InvalidRequest, Unsupported
from inpage.router import Router
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from inpage_compile import pipeline
from inpage_compile.artifact.levels import sources_of
from inpage_compile.artifact.weights import load_tensor, size
from inpage_compile.artifact.writer import load_manifest
from inpage_compile.measure import perplexity
from inpage_compile.pipeline import compile_model, plans_of
from inpage_compile.pruning import layers
from inpage_compile.pruning.embedding import check_embedding, check_saving, with_embedding
from inpage_compile.pruning.steps import Wanted, prepare
from inpage_compile.pruning.vocabulary import prune_vocabulary
from inpage_compile.sources import Source, dequantize, open_source
from inpage_compile.targets.variants import choose
from inpage_compile.tokenizers.prune import prune
from inpage_compile.tokenizers.tables import tables_of
from support import llama_reference
from support.models import ROOT, alone, first_ways, tiny_artifact
from support.odd_texts import odd_texts
from support.tables_in_node import in_node
from support.tiny import MODELS, TEMPLATE, Tiny
from support.vocabularies import SPM, small, tokenizer_of

ODD = 3000 if "INPAGE_SLOW" in os.environ else 400
CORPUS = "It is the way of the world that we are told what others think.\n\nHello, world! You're in the page: 1 2 3.\n"


def loaded(tokenizer: Any, size: int) -> Tokenizer:
    return load_tokenizer(json.dumps(tokenizer.json), tokenizer.special, size)


def test_a_pruned_vocabulary_writes_its_corpus_as_before_and_any_text_without_loss(
    smollm2: Source, tmp_path: Path
) -> None:
    pruned = prune_vocabulary(smollm2, CORPUS)
    size = pruned.architecture.vocab
    assert 256 < size < 2000 and size % 16 == 0
    before, after = loaded(smollm2.tokenizer, 49152), loaded(pruned.tokenizer, size)
    names = {i: text for text, i in pruned.tokenizer.json["model"]["vocab"].items()}
    old = smollm2.tokenizer.json["model"]["vocab"]
    assert [old[names[i]] for i in after.encode(CORPUS)] == before.encode(CORPUS)
    assert {"\u0120world", "world", "World", "\u0120World"} <= set(
        names.values()
    ) and "\u0120Japan" not in names.values()
    odd = odd_texts(ODD)
    ids = asyncio.run(after.encode_all(odd))
    assert [after.decode(some) for some in ids] == [before.decode(some) for some in asyncio.run(before.encode_all(odd))]
    assert max(max(some, default=0) for some in ids) < size
    for text, i in smollm2.tokenizer.special.items():
        new = pruned.tokenizer.special[text]
        assert names[new] == text and (i in smollm2.tokenizer.eos) == (new in pruned.tokenizer.eos)
    # The rows of the embedding go with their tokens, to the bit; the page cuts texts by its tables as native code does.
    stored = pruned.tensors["token_embd"].stored(), smollm2.tensors["token_embd"].stored()
    rows = [old[names[i]] for i in range(size)]
    assert np.array_equal(stored[0].q, stored[1].q[rows])
    tables = tables_of({**pruned.tokenizer.json, "added_tokens": []})  # no text becomes one
    assert tables is not None
    some = odd[::8]
    assert in_node(tmp_path / "tables", tables, some)["ids"] == [after.encode(text) for text in some]


@pytest.mark.parametrize("name", SPM)
def test_bytes_and_blanks_stay_in_a_vocabulary_of_pieces(name: str, tmp_path: Path) -> None:
    whole = tokenizer_of(small(name, tmp_path))
    size = len(whole.json["model"]["vocab"])
    before = loaded(whole, size)
    pruned = prune(whole, before.encode("the cat")).tokenizer
    left = len(pruned.json["model"]["vocab"])
    assert left < size
    after = loaded(pruned, left)
    for text in ["the cat", *odd_texts(ODD)]:
        assert after.decode(after.encode(text)) == before.decode(before.encode(text))


def test_what_would_lose_texts_is_refused(smollm2: Source, tiny: Source) -> None:
    whole, model = smollm2.tokenizer, smollm2.tokenizer.json["model"]

    def changed(**parts: Any) -> Any:
        return replace(whole, json={**whole.json, "model": {**model, **parts}})

    with pytest.raises(Unsupported, match="WordPiece: a word whose pieces are gone") as caught:
        prune(changed(type="WordPiece"), [5])
    assert caught.value.field == "prune_vocab"
    with pytest.raises(Unsupported, match="neither letters of bytes nor bytes"):
        prune(replace(whole, json={**whole.json, "decoder": {"type": "Fuse"}}), [5])
    with pytest.raises(Unsupported, match="a byte has no token of its own"):
        prune(changed(byte_fallback=True), [5])
    vocab = {text: i for text, i in model["vocab"].items() if text != "q"}
    with pytest.raises(Unsupported, match=r"'q\w+' is a token, but its letters are not"):
        prune(changed(vocab=vocab | {"qqq": model["vocab"]["q"]}, ignore_merges=True), [5])
    with pytest.raises(InvalidRequest, match="needs every token"):
        prune(tiny.tokenizer, range(320))


def test_a_layers_influence_is_that_of_a_float64_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows, norms behind, rotary positions of two kinds: seven layers of Gemma 3's."""
    ids = [int(i) for i in np.random.default_rng(3).integers(3, 320, 150)]
    folder = tiny_artifact("gemma3")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))  # where no kernel has a stamp
    found = asyncio.run(layers.influences(folder, ids))
    states = llama_reference.states(MODELS["gemma3"], ids, halves=True)
    for i, (a, b) in enumerate(pairwise(states)):
        cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert found[i] == pytest.approx(1 - cosine.mean(), abs=2e-5)
    assert layers.least([0.5, 0.1, 0.3, 0.1], 3) == [1, 2, 3]


def test_layers_that_stay_keep_what_they_are(tiny_files: dict[str, Path]) -> None:
    source = open_source(str(tiny_files["gemma3"]))
    assert source.architecture.whole_layers == (5,)
    fewer = layers.drop_layers(source, [0, 3])
    assert fewer.architecture.layers == 5 and fewer.architecture.whole_layers == (3,)
    assert np.array_equal(fewer.tensors["blk.3.ffn_up"].data, source.tensors["blk.5.ffn_up"].data)
    assert fewer.tensors["blk.4.attn_q"].name == "blk.4.attn_q" and "blk.5.attn_q" not in fewer.tensors
    alone = layers.drop_layers(source, [0, 1, 2, 3, 4, 6]).architecture
    assert (alone.window, alone.whole_layers, alone.local_rope) == (0, (), False)
    for count in (0, 7):
        with pytest.raises(InvalidRequest, match=f"{count} layers to leave out; must be 1 to 6") as caught:
            layers.check_count(source.architecture, count)
        assert caught.value.field == "drop_layers"


def test_an_embedding_is_rounded_as_ggml_rounds_it(tiny_files: dict[str, Path], tmp_path: Path) -> None:
    source = open_source(str(tiny_files["f32"]))
    small = with_embedding(source, source, "q4_0")
    form = gguf.GGMLQuantizationType.Q4_0
    expected = gguf.quants.dequantize(gguf.quants.quantize(MODELS["f32"].weights()["token_embd"], form), form)
    assert np.array_equal(dequantize(small.tensors["token_embd"]), expected)
    wide = Tiny(hidden=256, heads=4, head_dim=64)
    model = open_source(str(wide.write(tmp_path / "wide.gguf")))
    embedding = wide.weights()["token_embd"]
    error = dequantize(with_embedding(model, model, "q6_k").tensors["token_embd"]) - embedding
    assert 0 < np.sqrt(np.mean(error**2)) < 0.02 * np.std(embedding)
    lower = sources_of(source, ("q4_0",))["q4_0"]
    assert with_embedding(small, source, "q6_k") is small and with_embedding(lower, source, "") is lower
    with pytest.raises(InvalidRequest, match="takes 256 numbers at a time, which 64 of a row"):
        check_embedding(source, "q6_k")
    with pytest.raises(InvalidRequest, match="no format 'q9' of embeddings; there are q4_0, q6_k"):
        check_embedding(source, "q9")
    levels = {"source": source, "q4_0": small}
    check_saving(levels, "q4_0")
    with pytest.raises(InvalidRequest, match="is in q4_0 at level q4_0 already: q4_0 saves nothing") as caught:
        check_saving({"q4_0": small}, "q4_0")
    assert caught.value.field == "embedding"


THREE = Tiny(seed=40, layers=3)
TEXT = "the other page is here, and we are told: hello world, the model is on it.\n" * 8


WANTED = Wanted(corpus=TEXT, text=TEXT, text_name="a\npage")  # is cut into as many tokens as before
if "INPAGE_SLOW" in os.environ:
    WANTED = replace(WANTED, drop_layers=1, embedding="q4_0")


@pytest.fixture(scope="module")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model without what its corpus does not need."""
    source = THREE.write(tmp_path_factory.mktemp("pruning") / "tiny-pruned.gguf")
    options: dict[str, Any] = {"variants": ("native",), "levels": ("source",)}
    with alone("tiny-pruned"), first_ways(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "text", lambda: TEXT)
        options["measure"] = "INPAGE_SLOW" in os.environ
        return compile_model(str(source), ROOT / "tiny-pruned", pruning=WANTED, **options)


def test_the_manifest_says_what_each_step_saved_and_cost(smaller: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = load_manifest(smaller)
    vocabulary, *others = steps = manifest.pruning
    assert [step.kind for step in steps] == WANTED.kinds
    assert vocabulary.tokens == manifest.architecture.vocab < 320
    assert load_tensor(smaller, manifest, "token_embd").shape[0] == vocabulary.tokens
    assert all(step.saved_bytes > 0 for step in steps)
    if others:
        # What is left is compared with the source before any step.
        whole = manifest.perplexity
        assert whole is not None and whole.source == vocabulary.perplexity_before
        assert whole.value == pytest.approx(steps[-1].perplexity, rel=1e-12)
        assert len(others[0].layers) == 1 and manifest.architecture.layers == 2
        assert manifest.tensor("token_embd").format == others[1].format == "q4_0"
        # What a step leaves is where the next begins.
        assert others[0].perplexity == pytest.approx(others[1].perplexity_before)
    assert main(["score", "--model", str(smaller), "--backend", "native", "--json", TEXT]) == 0
    assert json.loads(capsys.readouterr().out)["perplexity"] == pytest.approx(steps[-1].perplexity, rel=1e-12)
    assert (
        steps[-1].sentence.endswith(" on a page")
        and steps[-1].sentence in (smaller / manifest.license.notices).read_text()
    )


async def test_perplexity_is_measured_beside_an_event_loop_and_where_no_kernel_has_a_stamp(
    smaller: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = load_manifest(smaller).pruning[-1]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (found,) = perplexity.measure(smaller, [""], "native", on=TEXT)
    assert found.perplexity == pytest.approx(last.perplexity, rel=1e-12)


def test_the_level_is_chosen_by_what_is_left_and_compared_with_the_whole_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = THREE.write(tmp_path / "three.gguf")
    wanted, native = Wanted(drop_layers=2, text=TEXT), choose(("native",))
    left = prepare(open_source(str(source)), wanted).sized
    assert left.architecture.layers == 1
    plans = plans_of(left, native)
    need = size(left) + max(plan.arena_bytes + kv_bytes(plan, plan.maxima.context) for plan in plans)
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(pipeline, "prune", lambda prepared, wanted, compiled: (prepared.sized, []))
    monkeypatch.setattr(pipeline, "_write", lambda model, levels, *_, original, **__: made.append({
        "levels": list(levels), "layers": model.architecture.layers, "original": original.architecture.layers
    }))  # fmt: skip
    options: dict[str, Any] = {"variants": ("native",), "target_memory": need, "pruning": wanted}
    compile_model(str(source), tmp_path / "out", levels=("source", "q4_1"), **options)
    assert made == [{"levels": ["source"], "layers": 1, "original": 3}]


def test_what_is_left_costs_what_its_bytes_cost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of 60 bytes a model with 10 tokens predicted each for 2 nats, one with 20 each for 1.5: 30 nats for 10 tokens."""
    whole = perplexity.Scored([1] * 11, 20.0, 10, 60, 512)
    fewer = perplexity.Scored([1] * 21, 30.0, 20, 60, 512)
    monkeypatch.setattr(
        perplexity, "measure", lambda folder, *_: [whole if (folder / "is").read_text() == "original" else fewer]
    )

    def write(model: Any, levels: Any, folder: Path, *_: Any, **__: Any) -> None:
        folder.mkdir()
        (folder / "is").write_text(model)

    monkeypatch.setattr(pipeline, "_write", write)
    (tmp_path / "is").write_text("pruned")
    measured: Any = pipeline._measure
    found = measured("pruned", "original", tmp_path, [""], choose(("native",))[0], lambda *_: None)[""]
    assert (found.source, found.positions) == (np.exp(2), 10) and found.value == pytest.approx(np.exp(3))


async def test_grammars_bias_and_templates_work_on_what_is_left(smaller: Path) -> None:
    async with await Router.load(smaller) as router:
        vocab = router.manifest.architecture.vocab
        held = await router.complete("hello", regex="(yes|no), [0-9]{3}", max_tokens=20, temperature=0)
        assert held.text.partition(", ")[0] in ("yes", "no") and held.text[-3:].isdigit()
        (token,) = router.encode("!")
        wanted = await router.complete("hello", max_tokens=4, temperature=0, logit_bias={token: 100})
        assert wanted.text == "!!!!"
        drawn = await router.chat("h\u00e9llo \u4e16\u754c", max_tokens=30, temperature=1.5, seed=3)
        assert all(0 <= i < vocab for i in (*drawn.prompt_ids, *drawn.token_ids))
        assert TEMPLATE.count("<|im_start|>") == 2 and drawn.prompt_ids[0] == router.tokenizer.control["<|im_start|>"]
