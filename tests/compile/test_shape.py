"""Models by shape: the sizes of the real ones, the tokenizer that fits, and kernels at a 7B's head and row widths
against numpy."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inpage.engines import native, native_program
from inpage.engines.native import NativeEngine
from inpage.errors import OutOfMemory, SourceInvalid, StorageFull, Unsupported
from inpage.format.plan import parse_plan
from inpage.format.plan_views import check_for_webgpu
from inpage.text.tokenizer import load_tokenizer
from inpage_compile import pipeline
from inpage_compile.artifact import weights
from inpage_compile.artifact.weights import load_tensor
from inpage_compile.families.family import expected_tensors
from inpage_compile.pipeline import compile_model, lower_variant
from inpage_compile.sources import Source, dequantize, find_recipe, load_recipe, open_gguf, open_source
from inpage_compile.sources.shape import fit, open_shape
from inpage_compile.sources.shape_gguf import write_gguf
from inpage_compile.targets.variants import all_variants
from support.llama_reference import logits
from support.models import ROOT, SLOW, feed, manifest_of, one_function, open_engine
from support.tiny import MODELS, VOCAB, Tiny

RECIPE = """id = "{id}"
name = "Small"
context = 256
[shape]
layers = 2
hidden = {hidden}
heads = {heads}
kv_heads = {kv_heads}
head_dim = 128
ffn = {ffn}
vocab = {vocab}
tied = {tied}
tokenizer = "{tokenizer}"
matrices = "{matrices}"
"""
SMALL = {"hidden": 96, "heads": 4, "kv_heads": 1, "ffn": 11008, "vocab": VOCAB, "tied": "true", "matrices": "q4_0"}
# Llama-2-7B's feed-forward width and heads, queries 4:1 and 1:1; odd numbers of groups in a row and of blocks of rows.
CASES = {
    "shape-grouped": SMALL,
    "shape-each": SMALL | {"heads": 2, "kv_heads": 2, "ffn": 864, "hidden": 160, "tied": "false", "matrices": "q4_1"},
    # Llama-3.2-1B's columns in llama.cpp's mixture: layer 0 in Q4_K, of layer 1 values and down in Q6_K, the head too.
    "shape-wide": {
        "hidden": 2048, "heads": 8, "kv_heads": 2, "ffn": 512, "vocab": VOCAB, "tied": "false", "matrices": "q4_k_m",
    },
}  # fmt: skip


# Largest error of a logit, relative to the largest logit; more columns, less error of int8 activations.
ERROR = {"native-f32": 2e-4, "native": 0.08}
WIDE_ERROR = 0.02
VARIANTS = {
    "shape-grouped": ("native-f32", "native"),
    "shape-each": ("native-f32",),
    # Float activations there take half a minute to compile.
    "shape-wide": ("native", "native-f32") if SLOW else ("native",),
}


@pytest.fixture(autouse=True)
def _one_function() -> Iterator[None]:
    with one_function():
        yield


def place(name: str) -> Path:
    return ROOT / (name if SLOW else f"{name}-step")


@pytest.fixture(scope="module")
def lender() -> Path:
    """Whose tokenizer the shapes borrow; always at one place, so that what was compiled stays good."""
    ROOT.mkdir(parents=True, exist_ok=True)
    return MODELS["f32"].write(ROOT / "shape-lender.gguf")


def recipe(folder: Path, tokenizer: Path | str, name: str = "shape-grouped", **changes: Any) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(RECIPE.format(id=name, tokenizer=tokenizer, **(CASES[name] | changes)))
    return path


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("llama-1b", 1_235_814_400),
        ("llama-3b", 3_212_749_824),
        ("llama-7b", 6_738_415_616),
        ("mistral-7b", 7_248_023_552),
        ("qwen3-0.6b", 596_049_920),  # the hub counts the embedding twice: 751,632,384
        ("gemma3-1b", 999_885_952),
    ],
)
def test_shipped_shapes_are_as_large_as_the_models(name: str, parameters: int) -> None:
    """Against the numbers that the models' pages on the hub count."""
    found = find_recipe(f"shape:{name}")
    assert found is not None and found.shape is not None and found == find_recipe(f"{name}-shape")
    sizes = expected_tensors(found.shape.architecture).values()
    assert sum(int(np.prod(size)) for size in sizes) == parameters


@pytest.fixture(scope="module")
def large(lender: Path) -> Source:
    """14.5 GB of weights, of which nothing is made: Mistral's shape with every number in half precision."""
    found = find_recipe("shape:mistral-7b")
    assert found is not None and found.shape is not None
    shape = replace(found.shape, matrices="f16", embedding="f16", head="f16")
    return open_shape(shape, "shape:large", "Large", open_source(str(lender)))


def test_weights_beyond_4_gb_are_planned_for_a_gpu(large: Source) -> None:
    """Every matrix is bound whole, or in slices where a binding would have over 128 MiB, and all of it is bound."""
    tensors = {p.entry.name: p.entry for p in weights.plan(large)}
    assert max(t.offset for t in tensors.values()) > 3 << 32
    made = lower_variant(all_variants()["webgpu-f16"], large.architecture, tensors)
    plan = parse_plan(made.json, tensors.values())
    check_for_webgpu(plan)
    spans: dict[str, list[tuple[int, int]]] = {}
    for b in plan.buffers:
        if b.kind == "weight":
            assert b.bytes <= 128 << 20
            spans.setdefault(b.tensor, []).append((b.offset, b.offset + b.bytes))
    assert spans.keys() == tensors.keys()
    for name, found in spans.items():
        starts, ends = zip(*sorted(set(found)), strict=True)
        t = tensors[name]
        assert starts == (t.offset, *ends[:-1]) and ends[-1] == t.offset + t.bytes
    cut = {name for name, found in spans.items() if len(set(found)) > 1}
    assert cut == {name for name, t in tensors.items() if t.bytes > 128 << 20} > {"token_embd", "output"}


def test_weights_beyond_4_gb_are_refused_for_wasm_before_any_is_made(
    large: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "open_source", lambda *_, **__: large)
    with pytest.raises(Unsupported, match=r"14\.50 GB do not fit the 4\.29 GB") as e:
        compile_model("shape:large", tmp_path / "out", variants=("native-f32", "wasm-simd"), accept_license=True)
    assert e.value.field == "variants" and not (tmp_path / "out").exists()


def test_a_shape_has_its_familys_facts() -> None:
    found = find_recipe("shape:gemma3-1b")
    assert found is not None and found.shape is not None
    a, rope = found.shape.read()
    assert (a.window, a.whole_layers, a.local_rope) == (512, (5, 11, 17, 23), True)
    assert (rope.local_theta, a.rope_theta) == (10000.0, 1000000.0)
    assert (a.qk_norm, a.post_norms, a.activation, round(a.embedding_scale**2)) == (True, True, "gelu", 1152)
    biased = replace(found.shape, family="qwen2", window=0)
    assert biased.format_of("blk.0.attn_q.bias") == "f32" and biased.architecture.qkv_bias
    biased.check_columns("shape")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("layers = 2", 'layers = 2\nfamily = "gpt5"', "shape.family"),
        ("layers = 2", 'layers = 2\nfamily = "bert"', "shape.family"),
        ("layers = 2", 'layers = 2\nfamily = "gemma3"', "shape.window"),
        ("head_dim = 128", "head_dim = 127", "shape.head_dim"),
        ("heads = 4", "heads = 3.5", "shape.heads"),
        ("kv_heads = 1", "kv_heads = 3", "shape.kv_heads"),
        ("layers = 2\n", "", "shape.layers"),
        ("layers = 2", "depth = 2", "shape.depth"),
        ("layers = 2", "layers = 0", "shape.layers"),
        ('matrices = "q4_0"', 'matrices = "q2"', "shape.matrices"),
        ("hidden = 96", "hidden = 100", "shape.hidden"),
        ("head_dim = 128", "head_dim = 20", "shape.head_dim"),
        ("context = 256", "", "shape.context"),
        ("[shape]", 'source = "x"\n[shape]', "source"),
    ],
)
def test_bad_shapes(old: str, new: str, field: str, tmp_path: Path) -> None:
    path = recipe(tmp_path, "nobody")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SourceInvalid, match=path.name) as e:
        load_recipe(path)
    assert e.value.field == field


def test_the_tokenizer_is_cut_or_filled(smollm2: Source) -> None:
    text = "In 1789, the ferryman's café sold 42 apples — naïvely. 你好"
    whole = load_tokenizer(json.dumps(smollm2.tokenizer_json), smollm2.tokenizer.special)
    wanted = whole.encode(text)
    for vocab in (2000, 32000, 60000):
        fitted = fit(smollm2.tokenizer, vocab)
        assert sorted(fitted.json["model"]["vocab"].values()) == list(range(vocab))
        assert fitted.eos == ()  # an answer is as long as it was asked for
        tokenizer = load_tokenizer(json.dumps(fitted.json), fitted.special)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text and max(ids) < vocab
        assert (ids == wanted) == (max(wanted) < vocab)
        assert tokenizer.decode([vocab - 1])
    with pytest.raises(SourceInvalid, match="at least") as e:
        fit(smollm2.tokenizer, 100)
    assert e.value.field == "shape.vocab"


def witness(source: Source) -> Tiny:
    """The model as `llama_reference` takes it."""

    class Shaped(Tiny):
        def dequantized(self) -> dict[str, npt.NDArray[np.float32]]:
            return {name: dequantize(t) for name, t in source.tensors.items()}

    a = source.architecture
    return Shaped(
        layers=a.layers, hidden=a.hidden, heads=a.heads, kv_heads=a.kv_heads, head_dim=a.head_dim,
        rope_theta=a.rope_theta, tied=a.tied,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
async def test_kernels_at_these_shapes_say_what_numpy_says(name: str, tmp_path: Path, lender: Path) -> None:
    path = recipe(tmp_path, lender, name)
    folder = compile_model(str(path), place(name), variants=VARIANTS[name])
    source, manifest = open_source(str(path)), manifest_of(folder)
    assert manifest.source.random and manifest.name == "Small by shape, random weights"
    assert "nobody trained them" in " ".join((folder / "NOTICES.txt").read_text().split())
    for tensor in ("blk.1.ffn_down", "token_embd"):
        np.testing.assert_array_equal(load_tensor(folder, manifest, tensor), dequantize(source.tensors[tensor]))
    ids = [int(i) for i in np.random.default_rng(3).integers(3, VOCAB, 70)]
    wanted = logits(witness(source), ids, halves=True)
    room = np.abs(wanted).max()
    for variant in VARIANTS[name]:
        error = WIDE_ERROR if (name, variant) == ("shape-wide", "native") else ERROR[variant]
        engine = await open_engine(folder, variant, threads=2)
        for length in (1, 17, 70):
            out = await feed(engine, ids[:length], [5, 2, 9, 0, 7])
            assert np.abs(np.array(out.logits) - wanted[length - 1]).max() <= error * room, (variant, length)
        await engine.unload()


def test_the_same_rows_as_gguf(tmp_path: Path, lender: Path) -> None:
    source = open_source(str(recipe(tmp_path, lender, "shape-each", ffn=96)))
    write_gguf(source, tmp_path / "shape.gguf")
    written = open_gguf(tmp_path / "shape.gguf")
    assert written.architecture == source.architecture
    assert written.tokenizer_json == source.tokenizer_json
    for name, tensor in source.tensors.items():
        np.testing.assert_array_equal(dequantize(written.tensors[name]), dequantize(tensor))


async def test_what_does_not_fit_is_refused_with_both_numbers(
    tmp_path: Path, lender: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = recipe(tmp_path, lender), place("shape-grouped")
    compile_model(str(path), folder, variants=VARIANTS["shape-grouped"])
    manifest = manifest_of(folder)
    monkeypatch.setattr(native_program, "available_bytes", lambda: 100_000)
    monkeypatch.setattr(native.MappedWeights, "open", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(OutOfMemory) as memory:
        await NativeEngine.load(folder, manifest)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(StorageFull) as disk:
        compile_model(str(path), tmp_path / "again", variants=("native",))
    assert not list(tmp_path.glob("*again*"))
    for e in (memory, disk):
        numbers = [int(n) for n in re.findall(r"\b\d{5,}\b", str(e.value))]
        assert numbers[0] >= sum(t.bytes for t in manifest.tensors) and numbers[-1] == 100_000


def test_a_shape_comes_in_other_number_formats() -> None:
    """``shape:NAME:FORMAT``; a mixture is llama.cpp's: values and down projections of some layers in Q6_K."""
    source = open_source("shape:llama-1b:q4_k_m")
    plain = find_recipe("shape:llama-1b")
    assert plain is not None and plain.shape is not None
    assert source.id != plain.id and source.origin.sha256 != plain.shape.sha256
    formats = {name: t.format for name, t in source.tensors.items()}
    assert formats["token_embd"] == formats["blk.0.attn_v"] == formats["blk.15.ffn_down"] == "q6_k"
    assert formats["blk.0.attn_q"] == formats["blk.2.ffn_down"] == "q4_k"
    # llama.cpp's use_more_bits: of 16 layers the first two, the last two, and every third between.
    assert [i for i in range(16) if formats[f"blk.{i}.ffn_down"] == "q6_k"] == [0, 1, 4, 7, 10, 13, 14, 15]
    assert formats["blk.0.attn_k"] == "q4_k"
    for name in ("blk.0.attn_k", "blk.0.attn_v"):
        t = source.tensors[name]
        values = dequantize(t)
        assert values.shape == t.shape and abs(values.std() * 2048**0.5 - 1) < 0.05
        assert abs(values.mean()) < 0.1 * values.std()


@pytest.mark.parametrize(("ref", "why"), [
    ("shape:llama-1b:q9", "'q9' is no number format"),
    ("shape:llama-9b:q4_k", "is neither"),
])  # fmt: skip
def test_a_shape_in_no_format_is_refused(ref: str, why: str) -> None:
    with pytest.raises(SourceInvalid, match=why):
        open_source(ref)


def test_a_shape_whose_rows_are_no_super_blocks_is_refused(tmp_path: Path, lender: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.format(id="small", tokenizer=lender, **SMALL | {"matrices": "q4_k"}))
    with pytest.raises(SourceInvalid, match="attn_q in q4_k needs columns in multiples of 256, not 96") as e:
        load_recipe(path)
    assert e.value.field == "shape.hidden"
