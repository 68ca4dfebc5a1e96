"""A manifest is untrusted: every lie gives `ArtifactInvalid` that names the field."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from inpage.errors import ArtifactInvalid
from inpage.format.manifest import Format, Manifest, SuperBlock, parse_manifest, revision_of, tensor_bytes
from support.corpus import case_id, changed, corpus

HASH = "ab" * 32
Json = dict[str, Any]
CORPUS = corpus("manifest")


def good() -> Json:
    """A small manifest in which everything agrees."""
    return signed(copy.deepcopy(CORPUS["good"]))


def signed(m: Json) -> Json:
    return {**m, "revision": revision_of(m)}


def parse(m: Json) -> Manifest:
    return parse_manifest(json.dumps(m))


def test_good() -> None:
    m = parse(good())
    assert m.architecture.head_dim == 16
    assert m.tensor("output_norm").offset == 1280
    assert m.variant("wasm-simd").files["plan"].file == "wasm-simd/plan.json"
    assert m.weights.shards[1].offset == 1024
    assert m.tokenizer.special == {"<|im_end|>": 2}
    with pytest.raises(ArtifactInvalid):
        m.tensor("output")
    with pytest.raises(ArtifactInvalid, match="wasm-simd"):
        m.variant("webgpu-f16")


def test_accepts_bytes_text_and_objects() -> None:
    text = json.dumps(good(), ensure_ascii=False, indent=2)
    assert parse_manifest(text) == parse_manifest(text.encode()) == parse_manifest(good())


@pytest.mark.parametrize("case", CORPUS["bad"], ids=case_id)
def test_lies(case: Json) -> None:
    with pytest.raises(ArtifactInvalid) as e:
        parse(signed(changed(CORPUS["good"], case)))
    assert e.value.field == case["field"]
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("size", CORPUS["sizes"], ids=lambda size: size["format"])
def test_a_tensor_of_every_format_is_as_large_as_ggml_has_it(size: Json) -> None:
    assert parse(signed(of_size(size, 0))).tensors[0].bytes == size["bytes"]
    with pytest.raises(ArtifactInvalid) as e:
        parse(signed(of_size(size, 1)))
    assert e.value.field == "tensors[0].bytes"


def of_size(size: Json, wrong: int) -> Json:
    """The good manifest with one tensor, which claims to be ``wrong`` bytes larger than it is."""
    whole = (size["bytes"] // 256 + 1) * 256
    shape = [size["rows"], size["columns"]]
    tensor = {"name": "t", "shape": shape, "format": size["format"], "layout": "rows16", "offset": 0}
    shard = {**CORPUS["good"]["weights"]["shards"][0], "bytes": whole}
    return {
        **{name: value for name, value in CORPUS["good"].items() if name not in ("graph", "mlc")},  # which need room
        "tensors": [{**tensor, "bytes": size["bytes"] + wrong}],
        "weights": {"bytes": whole, "shards": [shard]},
    }


def test_any_change_breaks_the_revision() -> None:
    with pytest.raises(ArtifactInvalid) as e:
        parse({**good(), "name": "Other"})
    assert e.value.field == "revision"


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "1", "{}", "\ufeff{}", "[" * 100_000, b"\xff\xfe"])
def test_not_a_manifest(text: str | bytes) -> None:
    with pytest.raises(ArtifactInvalid):
        parse_manifest(text)


def test_too_large_is_refused_unread() -> None:
    with pytest.raises(ArtifactInvalid, match="larger"):
        parse_manifest(b" " * (17 << 20))


def test_tensor_bytes() -> None:
    q8, q4 = Format("int", 8, 32, "f16"), Format("uint", 4, 32, "f16", "f16")
    assert tensor_bytes(q8, "rows16", (16, 32)) == 544
    assert tensor_bytes(q4, "rows16", (17, 64)) == 2 * 2 * 320
    assert tensor_bytes(Format("float", 16), "rows16", (1, 3)) == 16 * 3 * 2
    k = Format("uint", 4, 32, super=SuperBlock(256, 6, 6, "f16", "f16"))
    assert tensor_bytes(k, "rows16", (16, 256)) == 16 * 144
    with pytest.raises(ValueError, match="multiple of 256"):
        tensor_bytes(k, "rows16", (16, 288))
