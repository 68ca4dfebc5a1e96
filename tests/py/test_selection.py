"""Which variant runs where, and that the reasons can be read."""

import sys
from dataclasses import replace

import pytest

from inpage.backends.measurement import Measurement
from inpage.backends.selection import about_threads, candidates, choose
from inpage.errors import InvalidRequest, Unsupported
from inpage.format.schema import Variant
from inpage.host.capability import Adapter, Device, host_device

VARIANTS = [
    Variant("native", "native", ("host:x86_64-linux",), {}),
    Variant("wasm-simd", "wasm", ("simd128",), {}),
    Variant("wasm-relaxed", "wasm", ("simd128", "relaxed-simd"), {}),
]


def page(*features: str, isolated: bool = True) -> Device:
    return Device("page", frozenset(features), cores=4, threads=4 if isolated else 1, isolated=isolated)


HOST = Device("host", frozenset({"host:x86_64-linux"}), cores=2, threads=2)


def test_the_fastest_that_can_run_is_chosen() -> None:
    assert choose(VARIANTS, page("simd128", "relaxed-simd")).variant.name == "wasm-relaxed"
    assert choose(VARIANTS, page("simd128")).variant.name == "wasm-simd"
    assert choose(VARIANTS, HOST).variant.name == "native"


def test_every_candidate_has_a_sentence() -> None:
    text = [str(c) for c in candidates(VARIANTS, page("simd128"))]
    assert text == [
        "wasm-relaxed: needs WebAssembly relaxed SIMD, which this device does not have",
        "wasm-simd: this device has WebAssembly SIMD",
        "native: runs outside the browser only",
    ]


def test_a_pin_names_a_backend_or_a_variant() -> None:
    device = page("simd128", "relaxed-simd")
    assert choose(VARIANTS, device, backend="wasm").variant.name == "wasm-relaxed"
    pinned = choose(VARIANTS, device, backend="wasm-simd")
    assert pinned.variant.name == "wasm-simd"
    assert pinned.why == "wasm-simd: pinned by the caller (wasm-simd); 4 of 4 cores compute"


def test_an_unknown_backend_names_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match="it has wasm, wasm-relaxed, wasm-simd, native") as error:
        choose(VARIANTS, HOST, backend="webgpu")
    assert error.value.field == "backend"


def test_a_pinned_one_that_cannot_run_says_why() -> None:
    with pytest.raises(Unsupported, match="wasm-relaxed: runs in a browser's page"):
        choose(VARIANTS, HOST, backend="wasm-relaxed")


def test_a_limit_of_webgpu_is_required_by_its_name() -> None:
    words = ("webgpu", "maxStorageBuffersPerShaderStage:10", "maxComputeWorkgroupStorageSize:32768")
    mlc = [Variant("mlc-webgpu", "mlc", words, {})]
    adapter = Adapter(
        "a GPU", software=False, limits={words[1].partition(":")[0]: 10, words[2].partition(":")[0]: 16384}
    )
    device = replace(page("webgpu"), adapter=adapter)
    (refused,) = candidates(mlc, device)
    said = "needs WebGPU's maxComputeWorkgroupStorageSize of 32768, which this device does not have"
    assert (refused.can_run, refused.reason) == (False, said)
    enough = replace(adapter, limits={**adapter.limits, "maxComputeWorkgroupStorageSize": 32768})
    assert candidates(mlc, replace(device, adapter=enough))[0].can_run


def test_int8_on_a_gpu_needs_a_feature_of_wgsl_and_is_preferred_once_it_was_measured() -> None:
    dp4a = "packed_4x8_integer_dot_product"
    webgpu = [
        Variant("webgpu-int8", "webgpu", ("webgpu", dp4a), {}),
        *(Variant(name, "webgpu", ("webgpu",), {}) for name in ("webgpu-f32", "webgpu-f16")),
    ]
    device = replace(page("webgpu"), adapter=Adapter("a GPU", software=False))
    able = replace(device, adapter=Adapter("a GPU", software=False, language=(dp4a,)))
    assert able.fingerprint == device.fingerprint  # what was measured before this was asked for still holds
    refused = candidates(webgpu, device)[-1]
    said = "needs WGSL's dot products of packed 8-bit numbers, which this device does not have"
    assert (refused.name, refused.can_run, refused.reason) == ("webgpu-int8", False, said)
    others = {name: Measurement(100.0, 1000.0, 1, 0.0) for name in ("webgpu-f32", "webgpu-f16")}
    for measured in ({}, others, {"webgpu-f32": others["webgpu-f32"]}):
        assert [c.name for c in choose(webgpu, able, measurements=measured).ranked][-1] == "webgpu-int8"
    faster = others | {"webgpu-int8": Measurement(101.0, 1000.0, 1, 0.0)}
    assert choose(webgpu, able, measurements=faster).variant.name == "webgpu-int8"


def test_matrix_units_are_asked_for_by_their_size() -> None:
    feature = "chromium-experimental-subgroup-matrix"
    variant = Variant("webgpu-matrix-16x16x16", "webgpu", ("webgpu", feature, f"{feature}/16x16x16"), {})
    for features, said in (
        ({"webgpu"}, "needs Chromium's experimental subgroup matrices and matrix units of 16x16x16, which"),
        ({"webgpu", feature, f"{feature}/8x8x8"}, "needs matrix units of 16x16x16, which"),
    ):
        device = replace(page("webgpu"), features=frozenset(features), adapter=Adapter("a GPU", software=False))
        (refused,) = candidates([variant], device)
        assert (refused.can_run, refused.reason) == (False, f"{said} this device does not have")
    able = replace(device, features=device.features | {f"{feature}/16x16x16"})
    assert candidates([variant], able)[0].can_run


def test_none_can_run() -> None:
    with pytest.raises(Unsupported, match=r"wasm-relaxed: .*; wasm-simd: .*; native: "):
        choose(VARIANTS, page())
    other = Device("host", frozenset({"host:aarch64-darwin"}), cores=2, threads=2)
    with pytest.raises(Unsupported, match="compiled for x86_64-linux"):
        choose(VARIANTS, other)


def test_threads() -> None:
    alone = page("simd128", isolated=False)
    assert choose(VARIANTS, alone).threads == 1
    assert "not cross-origin isolated" in choose(VARIANTS, alone).why
    assert choose(VARIANTS, alone, threads=2).threads == 1
    assert choose(VARIANTS, page("simd128"), threads=2).threads == 2
    for bad in (0, 17, 1.5, True):
        with pytest.raises(InvalidRequest, match="threads is"):
            choose(VARIANTS, HOST, threads=bad)  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="names the platform")
def test_this_host() -> None:
    device = host_device()
    assert device.place == "host"
    assert 1 <= device.threads <= device.cores
    assert all(feature.endswith("-linux") for feature in device.features)


def test_the_measured_threads_are_told_in_order() -> None:
    said = about_threads(2, {"8": 90.4, "2": 101.6, "16": 70.0})
    assert said == "Threads: 2, chosen by trying (tokens a second of 2: 102, 8: 90, 16: 70)"
    said = about_threads(2, {"2": 101.6, "4": 70.0}, prompt_threads=4)
    assert said == "Threads: 2, prompts on 4, chosen by trying (tokens a second of 2: 102, 4: 70)"
    assert "prompts" not in about_threads(2, {"2": 101.6}, prompt_threads=2)
