"""What families read beside Llama's keys: windows and their patterns, LongRoPE by context, position-dependent scales,
which attention scale a 27B has; and what is refused by name. Groups of layers under the scheduler, on real kernels."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.errors import SourceInvalid, Unsupported
from inpage.format.plan_types import KvGroup
from inpage.kv import KvManager
from inpage.requests.request import Request
from inpage.scheduling.scheduler import Scheduler
from inpage.settings import settings_from
from inpage_compile.families import FAMILIES
from inpage_compile.families.layers import layout_of
from inpage_compile.families.others import OTHERS
from inpage_compile.families.rope import LOCAL, PLAIN, TABLE, table_of
from inpage_compile.kernels.shared.heads import EVERYTHING, Place
from inpage_compile.pipeline import compile_variant
from inpage_compile.sources import Source, open_source
from inpage_compile.sources.base import limit_context
from inpage_compile.targets.variants import all_variants
from support.asking import finish
from support.models import open_engine, tiny_artifact
from support.tiny import MODELS, Tiny


def opened(model: str, folder: Path, keys: dict[str, Any] | None = None) -> Source:
    return open_source(str(MODELS[model].write(folder / "model.gguf", keys)))


def test_layers_of_a_kind_share_pages_of_one_size(tmp_path: Path) -> None:
    a = opened("gemma3", tmp_path).architecture
    assert (a.window, a.whole_layers) == (20, (5,))
    layout = layout_of(a)
    assert layout.slots == 1 and layout.groups[0] == KvGroup((5,), 16) and layout.groups[6] == KvGroup((6,), 16, 20)
    assert layout.places(160)[5] == Place(0, 0, EVERYTHING) and layout.places(160)[0] == Place(0, 10, 20)
    assert [table_of(a, layer) for layer in (4, 5, 6)] == [LOCAL, TABLE, LOCAL]
    a = opened("gemma2", tmp_path).architecture
    assert layout_of(a).groups == (KvGroup((1, 3), 16), KvGroup((0, 2), 16, 20))
    # A window that shows the whole context is none, but its layers keep their rotary base.
    wide = opened("gemma3", tmp_path, {"gemma3.attention.sliding_window": 256}).architecture
    assert layout_of(wide).groups == () and table_of(wide, 0) == LOCAL


@pytest.mark.parametrize(
    ("keys", "window", "whole"),
    [
        ({"attention.sliding_window_pattern": 3}, 20, (2, 5)),
        ({"attention.sliding_window_pattern": [False, True, True, True, True, True, False]}, 20, (0, 6)),
        ({"attention.sliding_window_pattern": 1}, 0, ()),  # of one layer the last: all see everything
        ({"attention.sliding_window_pattern": 0}, 20, ()),
        ({"attention.sliding_window": 0}, 0, ()),
        ({"attention.sliding_window": None}, 0, ()),
    ],
)
def test_patterns_of_windows(keys: dict[str, Any], window: int, whole: tuple[int, ...], tmp_path: Path) -> None:
    a = opened("gemma3", tmp_path, {f"gemma3.{key}": value for key, value in keys.items()}).architecture
    assert (a.window, a.whole_layers) == (window, whole)


@pytest.mark.parametrize("pattern", [[True], 9])
def test_patterns_that_fit_no_model_are_named(pattern: Any, tmp_path: Path) -> None:
    key = "gemma3.attention.sliding_window_pattern"
    with pytest.raises(SourceInvalid, match=r"layers|outside") as e:
        opened("gemma3", tmp_path, {key: pattern})
    assert e.value.field == key


def test_longrope_goes_by_the_context_that_is_compiled(tmp_path: Path) -> None:
    source = opened("phi3", tmp_path)
    plain, divisors = 10000.0 ** (-np.arange(0, 24, 2) / 24), np.array(dict(MODELS["phi3"].rope)["long_factor"])
    for context, expected in ((256, plain / divisors), (33, plain / divisors), (32, plain)):
        limited = limit_context(source, context)
        made = limited.rope.tables(limited.architecture)[TABLE]
        np.testing.assert_allclose(made[:12], expected, rtol=1e-6)
        assert not made[12:].any()  # what does not turn


def test_layers_without_rotation_have_a_table_of_zeros(tmp_path: Path) -> None:
    source = opened("smollm3", tmp_path)
    assert source.architecture.plain_layers == (3,) and not source.rope.tables(source.architecture)[PLAIN].any()


def test_granites_without_rotary_positions(tmp_path: Path) -> None:
    """As llama.cpp, which takes the key for a switch in this family."""
    key = "granite.rope.scaling.finetuned"
    assert opened("granite", tmp_path, {key: False}).architecture.plain_layers == (0, 1, 2)
    assert opened("granite", tmp_path, {key: True}).architecture.plain_layers == ()


@pytest.mark.parametrize("value", [1e-4, 1e4, -1.0])
def test_a_factor_that_leaves_no_sum_is_named(value: float, tmp_path: Path) -> None:
    key = "granite.residual_scale"
    with pytest.raises(SourceInvalid) as e:
        opened("granite", tmp_path, {key: value})
    assert e.value.field == key


def test_where_queries_would_grow_the_context_ends(tmp_path: Path) -> None:
    keys = {"mistral3.attention.temperature_scale": 0.1, "mistral3.rope.scaling.original_context_length": 64}
    source = opened("mistral", tmp_path, keys)
    assert source.architecture.context == 64
    assert len(source.warnings) == 1 and "mistral3.attention.temperature_scale" in source.warnings[0]
    keys["mistral3.rope.scaling.original_context_length"] = 256
    assert opened("mistral", tmp_path, keys).warnings == ()


def test_the_largest_gemmas_scale_attention_by_the_mean_of_heads(tmp_path: Path) -> None:
    """As llama.cpp, which knows the 27B by its number of layers."""
    tiny = Tiny(
        family="gemma3", layers=62, hidden=64, heads=4, kv_heads=1, head_dim=8, ffn=16, numbers=(("window", 8),)
    )
    source = open_source(str(tiny.write(tmp_path / "27b.gguf")))
    assert source.architecture.attention_scale == 16**-0.5
    assert opened("gemma3", tmp_path).architecture.attention_scale == 0  # 1/√head_dim


def test_convolutions_are_windows_in_pages_of_their_own(tmp_path: Path) -> None:
    """Rows of 64 float32 where keys and values have 32 halves: a quarter of the tokens in a page."""
    a = opened("lfm2", tmp_path).architecture
    assert (a.conv_taps, a.conv_layers) == (3, (0, 1, 3, 4))
    layout = layout_of(a)
    assert layout.groups == (KvGroup((2, 5), 16), KvGroup((0, 1), 4, 3), KvGroup((3, 4), 4, 3))
    assert layout.places(40)[4] == Place(1, 3 + 10, 3) and layout.places(40)[5] == Place(1, 0, EVERYTHING)
    windowed = layout_of(opened("lfm2", tmp_path, {"lfm2.attention.sliding_window": 24}).architecture)
    assert windowed.groups[0] == KvGroup((2, 5), 16, 24)
    short = layout_of(replace(a, context=3)).groups  # all of it
    assert [group.window for group in short] == [None] * 3
    with pytest.raises(Unsupported, match="512 channels") as e:
        layout_of(replace(a, hidden=512))
    assert e.value.field == "hidden"


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("attention.head_count_kv", [0, 1, 0], "has 3 members, one for each of 6 layers"),
        ("attention.head_count_kv", [0] * 6, "no layer has any"),
        ("attention.head_count_kv", [0, 0, 1, 0, 0, 2], "layers that differ"),
        ("shortconv.l_cache", None, "is missing"),
        ("shortconv.l_cache", 17, "outside 1..16"),
    ],
)
def test_convolutions_that_fit_no_model_are_named(key: str, value: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid, match=why) as e:
        opened("lfm2", tmp_path, {f"lfm2.{key}": value})
    assert e.value.field == f"lfm2.{key}"


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_are_refused_with_what_runs(name: str, tmp_path: Path) -> None:
    assert name not in FAMILIES
    with pytest.raises(SourceInvalid) as e:
        opened("f32", tmp_path, {"general.architecture": name})
    what, instead = OTHERS[name]
    assert e.value.field == "general.architecture" and what in str(e.value) and f"{instead} run" in str(e.value)


def test_mixtures_of_experts_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceInvalid, match=r"llama\.expert_count: a mixture of experts .* dense models run"):
        opened("f32", tmp_path, {"llama.expert_count": 8})


def test_what_halves_do_not_hold_is_not_compiled_to_them(tmp_path: Path) -> None:
    source = opened("gemma2", tmp_path)
    with pytest.raises(Unsupported, match="half precision"):
        compile_variant(all_variants()["webgpu-f16"], source.architecture, {}, tmp_path)


@pytest.mark.parametrize(("name", "few"), [("gemma3", 110), *([("lfm2", 140)] if "INPAGE_SLOW" in os.environ else [])])
async def test_a_crowd_on_few_pages_answers_as_each_alone(name: str, few: int) -> None:
    """Windows of 20 tokens, or convolutions, beside layers that see everything: pages that slid out are used by others,
    requests wait, are preempted, saved and computed again, and share what the half of them begins with; the tokens are
    those of each alone, with nothing kept."""
    engine = await open_engine(tiny_artifact(name), "native-f32", threads=2)
    begin = [(11 * k + k * k) % 320 for k in range(50)]
    prompts = [begin * (i % 2) + [(7 * i + k * k) % 320 for k in range(5 + 7 * i)] for i in range(6)]

    async def answers(pages: int, together: bool, **kv: int) -> list[list[int]]:
        memory = {"memory_bytes": pages * engine.info.page_bytes}
        scheduler = Scheduler(engine, settings=settings_from({"kv": memory | kv}))
        requests = [Request(prompt, 150) for prompt in prompts]
        for request in requests:
            scheduler.submit(request)
            if not together:
                await finish(request)
        if together:
            await asyncio.gather(*map(finish, requests))
            assert scheduler.metrics.preemptions.total > 0
        assert scheduler.kv.pool.used == scheduler.kv.prefix.idle
        assert any(request.cached for request in requests) == bool(scheduler.kv.prefix.budget)
        return [request.tokens for request in requests]

    alone = await answers(400, together=False, prefix_bytes=0)
    assert await answers(few, together=True) == alone == await answers(400, together=False)
    await engine.unload()


@pytest.mark.parametrize("name", ["gemma3", "mistral", "lfm2"])
async def test_a_turn_that_goes_on_from_kept_pages_has_the_bits_of_one_that_reads_all(name: str) -> None:
    """Logits, of a layer that sees everything beside windows, of windows alone and beside convolutions, in chunks of
    other lengths."""
    engine = await open_engine(tiny_artifact(name), "native-f32", threads=2, pages=40)
    ids = [(7 * k + k * k) % 320 for k in range(90)]

    async def logits(kept: int, chunk: int) -> bytes:
        """After all of them. ``kept``: how many were the prompt of a turn before, whose answer is thrown away."""
        scheduler = Scheduler(engine)
        if kept:
            before = Request(ids[:kept], 40)
            scheduler.submit(before)
            await finish(before)
        kv, request = scheduler.kv, Request(ids, 1)
        assert isinstance(kv, KvManager) and await kv.admit(request)
        assert request.cached == kept // 16 * 16 == request.num_computed_tokens
        while request.to_prefill:
            count = min(chunk, request.to_prefill)
            assert await kv.cover(request, count)
            feed = request.prefill_input(count)
            (out,) = await engine.step([replace(feed, want_logits=True)])
            request.num_computed_tokens += count
            kv.keep(request)
        return bytes(memoryview(out.logits))

    whole = await logits(0, 90)
    assert {await logits(*how) for how in ((0, 7), (64, 26), (70, 3), (33, 32))} == {whole}
    await engine.unload()
