"""Several precisions in one artifact: what they share is stored once, and the best that fits the budget is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from inpage.cli import main
from inpage.cli.site import _described
from inpage.errors import ArtifactInvalid, InvalidRequest, OutOfMemory, Unsupported
from inpage.format.manifest import parse_manifest
from inpage.format.plan_types import Plan
from inpage.format.schema import GraphRef, Manifest, Variant, Weights
from inpage.host.artifact_store import FolderStore
from inpage.host.capability import Device, host_device
from inpage.models import Models
from inpage.models import source as models_source
from inpage.models.source import Artifacts
from inpage.router import Router
from inpage.settings import Settings
from inpage_compile.artifact.levels import default_level, sources_of
from inpage_compile.artifact.weights import load_tensor, plan_and_write_levels
from inpage_compile.artifact.writer import ArtifactWriter, load_levels, load_manifest, verify
from inpage_compile.measure import perplexity
from inpage_compile.measure.budget import best_level
from inpage_compile.pipeline import compile_model, plans_of
from inpage_compile.sources import Source, open_source
from inpage_compile.targets.variants import choose
from support.llama_reference import logits
from support.models import ROOT, first_ways, tiny_artifact
from support.tiny import MODELS

TINY = MODELS["f32"]
SENTENCE = "hello world, what light of the page are you"


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY.write(tmp_path_factory.mktemp("levels") / "tiny-levels.gguf")


@pytest.fixture(scope="session")
def several(source: Path) -> Path:
    """In whatever order they are named, the best comes first."""
    with first_ways(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "text", lambda: SENTENCE)
        levels = ("q4_1", "source")
        return compile_model(str(source), ROOT / "tiny-levels", variants=("native",), levels=levels, measure=True)


def test_levels_share_what_is_the_same_and_round_the_rest_as_ggml_does(source: Path, tmp_path: Path) -> None:
    names, out = ("source", "q8_0", "q4_1"), tmp_path / "out"
    sources = sources_of(open_source(str(source)), names)
    with ArtifactWriter(out, sources["source"], levels=names) as writer:
        plan_and_write_levels(sources, writer)
        for level in names:
            files: dict[str, bytes | Path] = {"plan.json": level.encode(), "kernels.wasm": b"\0asm"}
            writer.add_variant("wasm-simd", "wasm", ["simd128"], files, level)
        best = writer.finish()
    manifests = {m.level: m for m in load_levels(out)}
    assert verify(out) == best and tuple(manifests) == names == tuple(ref.name for ref in best.levels)
    assert [ref.bytes for ref in best.levels] == [m.weights.bytes for m in manifests.values()]
    assert len({m.revision for m in manifests.values()}) == 3
    held = {name: {shard.file for shard in m.weights.shards} for name, m in manifests.items()}
    common = set.intersection(*held.values())  # the norms
    assert common and common < held["q8_0"] & held["q4_1"]  # and the embedding
    assert held["q8_0"] - held["q4_1"] and held["q4_1"] - held["q8_0"]
    assert {f"weights/{p.name}" for p in (out / "weights").iterdir()} == set.union(*held.values())
    weights = TINY.weights()
    for level, kind in (("source", "F32"), ("q8_0", "Q8_0"), ("q4_1", "Q4_1")):
        for name in ("blk.1.ffn_down", "token_embd"):
            wide = name == "token_embd" and level == "q4_1"
            form = gguf.GGMLQuantizationType["Q8_0" if wide else kind]
            expected = gguf.quants.dequantize(gguf.quants.quantize(weights[name], form), form)
            assert np.array_equal(load_tensor(out, manifests[level], name), expected), (level, name)
        assert np.array_equal(load_tensor(out, manifests[level], "output_norm"), weights["output_norm"])


async def answer(where: str | Path) -> list[int]:
    async with await Router.load(where) as router:
        result = await router.complete("hello world", max_tokens=24, temperature=0, logit_bias={2: -100})
        return list(result.token_ids)


async def test_the_best_level_that_fits_the_budget_is_loaded(source: Path, several: Path, tmp_path: Path) -> None:
    best, small = (level.bytes for level in load_manifest(several).levels)
    with first_ways():
        single = compile_model(str(source), ROOT / "tiny-q4_1", variants=("native",), levels=("q4_1",))
    assert load_manifest(single).levels == () and load_manifest(single).weights.bytes <= small
    alone = await answer(single)
    # The compiler counts as a page does, of an artifact with that level alone.
    (least,) = await Artifacts([single], settings=Settings()).levels()
    levels, native = sources_of(open_source(str(source)), ("q8_0", "q4_1")), choose(("native",))
    assert best_level(levels, least.need(256), lambda made: plans_of(made, native)) == "q4_1"
    assert best_level(levels, 2 * least.need(256), lambda made: plans_of(made, native)) == "q8_0"
    with pytest.raises(
        OutOfMemory, match=r"no level fits target_memory, 0\.\d MB: q8_0 (over )?0\.\d MB, q4_1 0\.\d MB \("
    ):
        best_level(levels, least.need(256) - 1, lambda made: plans_of(made, native))

    def only(level: str) -> Callable[[Source], list[Plan]]:
        def plans(made: Source) -> list[Plan]:
            if made is not levels.get(level):
                raise Unsupported("does not fit 4 GB")
            return plans_of(made, native)

        return plans

    assert best_level(levels, 2 * least.need(256), only("q4_1")) == "q4_1"
    with pytest.raises(Unsupported, match="does not fit 4 GB"):
        best_level(levels, 2 * least.need(256), only("none"))
    assert await answer(f"{several}#q4_1") == alone != await answer(several)

    async def loaded(budget: int | None) -> tuple[str, list[int], str, str]:
        async with Models({"models": {"least_context": 256, "target_memory": budget}}) as models:
            models.add(several)
            async with models.use() as router:
                result = await router.complete("hello world", max_tokens=24, temperature=0, logit_bias={2: -100})
                held = sum(router.held.values())
            assert budget is None or held <= budget
            return models.loaded()[0].level, list(result.token_ids), models.lesser(), models.explain()

    needed: dict[str, int] = {}
    async with Models({"models": {"least_context": 256, "target_memory": 1}}) as models:
        models.add(several)
        told = r"smallest of its 2 levels \(source 0\.\d MB, q4_1 0\.\d MB; room for 256"
        with pytest.raises(OutOfMemory, match=told):
            await models.preload()
        for level in await models._entry(None).source.levels():
            needed[level.name] = level.need(256)
    assert needed["source"] - needed["q4_1"] == best - small
    assert (await loaded(None))[0] == (await loaded(needed["source"]))[0] == "source"
    level, ids, why, told = await loaded(needed["source"] - 1)
    assert level == "q4_1" and ids == alone
    assert why.startswith("q4_1 in place of source: that needs 0.") and f"Level {why}.\n" in told
    with pytest.raises(OutOfMemory):
        await loaded(needed["q4_1"] - 1)


def test_a_matrix_may_have_another_type_in_each_layer(source: Path) -> None:
    """As q4_k_m has it: what is in front of it leaves its output in the form that each of them takes."""
    (made,) = sources_of(open_source(str(source)), ("q4_k_m",)).values()
    assert [made.tensors[f"blk.{i}.ffn_down"].format for i in range(2)] == ["q5_0", "q8_0"]
    (plan,) = plans_of(made, choose(("wasm-simd",)))
    gated = [kernel.name for kernel in plan.kernels if kernel.name.startswith("gated_q5_0")]
    assert any("_i16p_to_i16_" in name for name in gated) and any("_i16p_192" in name for name in gated)


async def test_a_graph_beyond_the_budget_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is carried beside our weights: the bytes that it takes are its own."""
    made = load_manifest(tiny_artifact("f32"))
    weights = made.weights.bytes
    own = Weights(3 * weights, ())
    ours = replace(made.variants[0], name="wasm-simd", backend="wasm", requires=())
    graph = Variant("onnx-wasm", "onnx", (), {})
    carried = GraphRef(weights, (), (), (), "float32", "logits", own)
    manifest = replace(made, variants=(ours, graph), graph=carried)
    page = replace(host_device(), place="page")

    class Store(FolderStore):
        async def manifest(self) -> tuple[Manifest, str]:
            return manifest, ""

    async def device() -> Device:
        return page

    monkeypatch.setattr(models_source, "this_device", device)
    monkeypatch.setattr(models_source, "open_store", lambda _: Store(tiny_artifact("f32")))
    with_graph, without = await Artifacts([""], settings=Settings()).levels()
    assert with_graph.fixed == with_graph.extra == own.bytes and with_graph.refused == ()
    assert weights < without.fixed < own.bytes and [name for name, _ in without.refused] == ["onnx-wasm"]
    carried = replace(carried, weights=replace(own, bytes=weights // 2))
    manifest = replace(manifest, graph=carried)
    (both,) = await Artifacts([""], settings=Settings()).levels()
    assert both.fixed == without.fixed and both.refused == ()


async def test_what_a_level_costs_stands_in_the_manifest(source: Path, several: Path) -> None:
    """Measured when it was compiled; of the source's own level it is what numpy says of the weights."""
    best, small = (manifest.perplexity for manifest in load_levels(several))
    async with await Router.load(f"{several}#q4_1") as router:
        ids, said = router.tokenizer.encode(SENTENCE), router.explain()
    costs = logits(TINY, ids, halves=True)[:-1]
    nll = np.log(np.exp(costs).sum(axis=1)) - costs[np.arange(len(costs)), ids[1:]]
    assert best is not None and small is not None and best.value == best.source == small.source
    assert best.value == pytest.approx(np.exp(nll.mean()), rel=1e-3) and best.positions == len(nll)
    assert 0.001 < abs(small.cost) < 0.2
    assert said.startswith(f"Level q4_1: perplexity {small.value:.2f} on Alice's Adventures in Wonderland, chapter V")
    described = _described(load_manifest(several))
    assert [each["cost"] for each in described["levels"]] == [0, round(small.cost, 4)]  # type: ignore[index]
    assert default_level(open_source(str(source))) == "q4_k_m"  # what a model in floats becomes


async def test_a_budget_that_is_lowered_takes_answers_to_the_next_level(several: Path) -> None:
    asked: dict[str, Any] = {"prompt": "hello world", "temperature": 0, "logit_bias": {2: -100}}
    async with Models({"models": {"least_context": 256}}) as models:
        models.add(several)
        async with models.use() as router:
            stream = aiter(router.complete(max_tokens=200, **asked))
            first = await anext(stream)
            small = next(level for level in await models._entry(None).source.levels() if level.name == "q4_1")
            with pytest.raises(OutOfMemory, match=r"smallest of its 2 levels \(source 0\.\d MB, q4_1 0\.\d MB; room"):
                await models.set_target_memory(small.need(256) - 1)
            assert models.loaded()[0].level == "source"
            await models.set_target_memory(small.need(256))
            assert models.loaded()[0].level == "q4_1" and models.loaded()[0].bytes <= small.need(256)
            said = [*first.token_ids]
            async for delta in stream:
                if delta.failovers:
                    before = len(said)
                said += delta.token_ids
            assert delta.failovers or "the memory budget is" in delta.result.failovers[0]["reason"]
    async with await Router.load(several) as router:
        high = await router.complete(max_tokens=before, **asked)
    async with await Router.load(f"{several}#q4_1") as router:
        low = await router.complete(max_tokens=200, resume=said[:before], **asked)
    assert said[:before] == high.token_ids and said == low.token_ids
    assert 0 < before < len(said)


def test_the_command_line_takes_a_level(several: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "chat",
        "--model",
        str(several),
        "--backend",
        "native",
        "--greedy",
        "--raw",
        "--max-tokens",
        "9",
        "--json",
    ]
    texts = []
    for more in ([], ["--level", "source"], ["--level", "q4_1"]):
        assert main([*command, "hello world", *more]) == 0
        texts.append(json.loads(capsys.readouterr().out)["token_ids"])
    assert texts[0] == texts[1] != texts[2]
    assert main([*command, "hello world", "--level", "q3"]) == 1
    assert "no level 'q3'; it has source, q4_1" in capsys.readouterr().err


async def test_what_is_no_level_is_refused_by_name(source: Path, several: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no level 'q3'; there are source, f32, f16, q8_0, q6_k") as e:
        compile_model(str(source), tmp_path / "out", levels=("q3",))
    assert e.value.field == "levels"
    narrow = sources_of(open_source(str(source)), ("q4_0",))["q4_0"]
    with pytest.raises(InvalidRequest, match="comes out the same at levels source and q8_0"):
        sources_of(narrow, ("source", "q8_0"))
    with pytest.raises(InvalidRequest, match="has no level 'f16'; it has source, q4_1"):
        await Router.load(f"{several}#f16")
    manifest = json.loads((several / "manifest.json").read_bytes())
    for change in ({"levels": manifest["levels"][1:]}, {"level": "q4_1"}):
        with pytest.raises(ArtifactInvalid) as wrong:
            parse_manifest(manifest | change)
        assert str(wrong.value.field).startswith("levels[0]")
    for name in ("manifest.json", "weights", "tokenizer.json"):
        (tmp_path / name).symlink_to(several / name)
    (tmp_path / "q4_1").mkdir()
    (tmp_path / "q4_1" / "manifest.json").write_bytes((several / "q4_1" / "manifest.json").read_bytes() + b" ")
    with pytest.raises(ArtifactInvalid, match=r"q4_1/manifest\.json is not the file"):
        await Router.load(f"{tmp_path}#q4_1")
