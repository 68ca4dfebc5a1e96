"""`compile_model` from a GGUF file to an artifact folder: what it holds, when it is left alone, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inpage.engines.protocol import SequenceInput
from inpage.errors import InvalidRequest, Unsupported
from inpage.format import plan_views
from inpage.format.plan import parse_plan
from inpage_compile import pipeline
from inpage_compile.artifact import weights
from inpage_compile.artifact.writer import load_manifest, verify
from inpage_compile.kernels.shared.heads import Heads
from inpage_compile.kernels.webgpu.attention import spans_fit
from inpage_compile.pipeline import compile_model
from inpage_compile.pruning.steps import Wanted
from inpage_compile.quantize import unpack
from inpage_compile.sources import open_source
from inpage_compile.targets.variants import DEFAULT, all_variants, choose, host_requirement
from support.models import TINY_VARIANTS, open_engine, tiny_artifact
from support.tiny import MODELS


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file's inode, time of change and size."""
    stats = {str(p.relative_to(folder)): p.stat() for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: (s.st_ino, s.st_mtime_ns, s.st_size) for name, s in stats.items()}


def test_an_artifact_holds_every_variant_whole() -> None:
    folder = tiny_artifact("mixed")
    manifest = verify(folder)
    assert tuple(v.name for v in manifest.variants) == TINY_VARIANTS["mixed"]
    for variant in manifest.variants:
        spec = all_variants()[variant.name]
        assert (variant.backend, variant.requires) == (spec.backend, spec.requires)
        assert variant.files["kernels"].file == f"{variant.name}/{spec.library}"
        plan = parse_plan((folder / variant.files["plan"].file).read_bytes(), manifest.tensors)
        assert plan.target == variant.name and plan.maxima.context == manifest.architecture.context == 256
        magic = (folder / variant.files["kernels"].file).read_bytes()[:4]
        assert (magic == b"\0asm") == (spec.backend == "wasm")
    assert {p.split("/")[0] for p in snapshot(folder)} >= {"manifest.json", "weights", "tokenizer.json", "NOTICES.txt"}


def test_an_unchanged_model_is_left_as_it_is(tiny_files: dict[str, Path]) -> None:
    folder = tiny_artifact("mixed")
    before = snapshot(folder)
    phases: list[str] = []
    again = compile_model(
        str(tiny_files["mixed"]),
        folder,
        variants=TINY_VARIANTS["mixed"],
        levels=("source",),
        progress=lambda phase, done, total: phases.append(phase),
    )
    assert again == folder and snapshot(folder) == before
    assert set(phases) == {"source"}


async def test_context_progress_and_dump(
    tiny_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One compile with every option: a shorter context than the model's, heard phase by phase, its plan printed."""
    events: list[tuple[str, int, int]] = []
    folder = compile_model(
        str(tiny_files["f32"]),
        root=tmp_path,
        variants=("native-f32",),
        context=100,
        levels=("source",),
        progress=lambda *event: events.append(event),
        dump=True,
    )
    assert folder == tmp_path / "tiny-f32"
    manifest = load_manifest(folder)
    assert manifest.architecture.context == 100
    phases = list(dict.fromkeys(phase for phase, _, _ in events))
    assert phases == ["source", "weights", "native-f32"]
    for phase in phases:
        done = [(d, t) for p, d, t in events if p == phase]
        assert done == sorted(done) and done[-1][0] == done[-1][1]
    text = capsys.readouterr().out
    assert "target native-f32" in text and "context 100" in text and "attention" in text
    engine = await open_engine(folder, "native-f32", pages=7)
    assert engine.info.context == 100
    (out,) = await engine.step([SequenceInput([1], 99, range(7), want_logits=True)])
    assert len(out.logits) == engine.info.vocab
    with pytest.raises(InvalidRequest) as e:
        await engine.step([SequenceInput([1], 100, range(7))])
    assert e.value.field == "start"
    await engine.unload()


@pytest.mark.parametrize(
    ("options", "field", "word"),
    [
        ({"variants": ("native", "wasm-fast")}, "variants", "wasm-relaxed"),
        ({"context": 0}, "context", "256"),
        ({"context": -5}, "context", "256"),
        ({"context": 257}, "context", "256"),
        # What cannot be pruned is found before the model is compiled to measure it.
        ({"pruning": Wanted(text="of nothing")}, "text", "--prune-vocab"),
        ({"pruning": Wanted(drop_layers=1, text="h", text_name="h.txt")}, "text", "h.txt"),
        ({"pruning": Wanted(drop_layers=2)}, "drop_layers", "must be 1 to 1"),
        ({"pruning": Wanted(embedding="q6_k")}, "embedding", "256"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(
    tiny_files: dict[str, Path], tmp_path: Path, options: dict[str, object], field: str, word: str
) -> None:
    with pytest.raises(InvalidRequest, match=word) as e:
        compile_model(str(tiny_files["f32"]), root=tmp_path / "models", **options)  # type: ignore[arg-type]
    assert e.value.field == field
    assert not (tmp_path / "models").exists()


def test_variants_by_name() -> None:
    assert [v.name for v in choose(None)] == list(DEFAULT)
    assert [v.name for v in choose(("native-f32", "wasm-simd"))] == ["native-f32", "wasm-simd"]
    assert all_variants()["native"].requires == (host_requirement(),)
    relaxed, plain = all_variants()["wasm-relaxed"], all_variants()["wasm-simd"]
    assert set(relaxed.requires) - set(plain.requires) == {"relaxed-simd"}
    rows = {v.rows for v in choose(None, 512) if v.backend == "webgpu"}, {v.rows for v in choose(None, 512)}
    assert rows == ({512}, {128, 512})
    with pytest.raises(InvalidRequest, match="100 rows are not one of 128, 256, 512, 1024") as e:
        choose(None, 100)
    assert e.value.field == "prefill_rows"


def test_a_variant_that_cannot_be_made_is_left_out_by_default_and_named_where_it_was_asked_for(
    tiny_files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a plan that no default limit of WebGPU holds."""
    monkeypatch.setattr(plan_views, "BINDING_BYTES", 1000)
    monkeypatch.setattr(pipeline, "choose", lambda names, *_: choose(names or ("webgpu-f32", "native-f32")))
    folder = compile_model(str(tiny_files["f32"]), root=tmp_path, levels=("source",))
    assert [v.name for v in load_manifest(folder).variants] == ["native-f32"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("webgpu-f32 is left out: ") and "WebGPU binds 1000" in line
    for root in (tmp_path / "asked", tmp_path):  # also where the artifact without it lies
        with pytest.raises(Unsupported, match="WebGPU binds 1000") as e:
            compile_model(str(tiny_files["f32"]), root=root, variants=("webgpu-f32", "native-f32"))
        assert e.value.field and e.value.field.startswith("plan.functions")
    before = snapshot(folder)
    compile_model(str(tiny_files["f32"]), root=tmp_path, levels=("source",))
    assert snapshot(folder) == before
    monkeypatch.setattr(pipeline, "choose", lambda names, *_: choose(("webgpu-f32",)))
    with pytest.raises(Unsupported):  # nothing would be left
        compile_model(str(tiny_files["f32"]), root=tmp_path / "alone")
    assert not any(path.is_dir() and any(path.iterdir()) for path in (tmp_path / "asked", tmp_path / "alone"))


@pytest.mark.parametrize(("change", "field"), [({"hidden": 48}, "hidden"), ({"ffn": 80}, "ffn")])
def test_a_width_that_no_kernel_takes_is_named_before_a_weight_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, int],
    field: str,
) -> None:
    """And a key that nothing follows before that."""
    monkeypatch.setattr(pipeline.weights, "plan_and_write_levels", lambda *args: pytest.fail("weights were read"))
    tiny = replace(MODELS["f32"], **change)  # type: ignore[arg-type]
    path = tiny.write(tmp_path / "odd.gguf", {"llama.attention.novelty": 3})
    with pytest.raises(Unsupported, match=f"{field}: {change[field]} is not a multiple of 32") as e:
        compile_model(str(path), root=tmp_path / "models")
    (warning,) = capsys.readouterr().err.splitlines()
    assert "'llama.attention.novelty'" in warning
    assert e.value.field == field and not (tmp_path / "models").exists()


def test_a_matrix_after_attention_is_filled_with_zero_columns(tmp_path: Path) -> None:
    """Up to whole groups; every other number stays."""
    tiny = MODELS["three"]
    source = open_source(str(tiny.write(tmp_path / "three.gguf")))
    (planned,) = (p for p in weights.plan(source) if p.entry.name == "blk.1.attn_out")
    assert planned.entry.shape == (96, 128) and planned.entry.format == "f16"
    found = unpack(planned.make(), "f16", 96, 128).to_float32()
    assert np.array_equal(found[:, :120], tiny.dequantized()["blk.1.attn_output"]) and not found[:, 120:].any()


@pytest.mark.parametrize("context", [131072, 300])
def test_few_rows_of_a_context_that_webgpu_could_not_bind_take_the_other_kernel(context: int) -> None:
    """Llama 3.2 1B's heads: what its spans leave of 16 rows and 131,072 tokens would be 138 MB."""
    heads = Heads(32, 8, 64, 16, 16, 16, -(-context // 16))
    assert spans_fit(heads, 1) and spans_fit(heads, 16) == (context == 300)
    assert not spans_fit(Heads(64, 64, 64, 16, 16, 16, 131072 // 16), 1)  # 65,536 workgroups side by side
