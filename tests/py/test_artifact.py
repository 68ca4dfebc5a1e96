"""A manifest is untrusted: every lie gives `ArtifactInvalid` that names the field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from inpage.artifact import Format, Manifest, SuperBlock, parse_manifest, revision_of, tensor_bytes
from inpage.errors import ArtifactInvalid

HASH = "ab" * 32
Json = dict[str, Any]


def good() -> Json:
    """A small manifest in which everything agrees."""
    m: Json = {
        "schema": 1,
        "id": "small",
        "name": "Small",
        "license": {"id": "MIT", "notices": "NOTICES.txt"},
        "source": {"kind": "gguf", "ref": "small.gguf", "file": "small.gguf", "sha256": HASH},
        "architecture": {
            "family": "llama", "layers": 1, "hidden": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "ffn": 96,
            "vocab": 32, "rope_theta": 10000.0, "norm_eps": 1e-05, "tied": True, "context": 256,
        },
        "tokenizer": {"file": "tokenizer.json", "bytes": 10, "sha256": HASH, "bos": None, "eos": [2], "add_bos": False,
                      "special": {"<|im_end|>": 2}},
        "chat_template": None,
        "formats": {
            "f32": {"type": "float", "bits": 32, "group": 1, "scale": None, "min": None, "zero": 0},
            "q4_1": {"type": "uint", "bits": 4, "group": 32, "scale": "f16", "min": "f16", "zero": 0},
        },
        "tensors": [
            {"name": "token_embd", "shape": [32, 64], "format": "q4_1", "layout": "rows16", "offset": 0, "bytes": 1280},
            {"name": "output_norm", "shape": [64], "format": "f32", "layout": "raw", "offset": 1280, "bytes": 256},
        ],
        "weights": {
            "bytes": 1536,
            "shards": [
                {"file": "weights/00000.bin", "offset": 0, "bytes": 1024, "sha256": HASH},
                {"file": "weights/00001.bin", "offset": 1024, "bytes": 512, "sha256": HASH},
            ],
        },
        "variants": [
            {
                "name": "wasm-simd", "backend": "wasm", "requires": ["simd128"],
                "plan": {"file": "wasm-simd/plan.json", "bytes": 2, "sha256": HASH},
                "kernels": {"file": "wasm-simd/kernels.wasm", "bytes": 4, "sha256": HASH},
            }
        ],
    }  # fmt: skip
    return signed(m)


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


def tensor(i: int, **change: Any) -> Callable[[Json], object]:
    return lambda m: m["tensors"][i].update(change)


def shard(i: int, **change: Any) -> Callable[[Json], object]:
    return lambda m: m["weights"]["shards"][i].update(change)


def arch(**change: Any) -> Callable[[Json], object]:
    return lambda m: m["architecture"].update(change)


def top(**change: Any) -> Callable[[Json], object]:
    return lambda m: m.update(change)


LIES: list[tuple[Callable[[Json], object], str]] = [
    (top(schema=2), "schema"),
    (top(schema="1"), "schema"),
    (top(schema=True), "schema"),
    (top(id="../x"), "id"),
    (top(id=""), "id"),
    (top(name=None), "name"),
    (top(tensors={}), "tensors"),
    (top(weights=[]), "weights"),
    (lambda m: m.pop("tokenizer"), "tokenizer"),
    (lambda m: m["license"].update(notices="/etc/passwd"), "license.notices"),
    (lambda m: m["source"].update(kind="ftp"), "source.kind"),
    (lambda m: m["source"].update(sha256="AB" * 32), "source.sha256"),
    (arch(family="mamba"), "architecture.family"),
    (arch(layers=0), "architecture.layers"),
    (arch(layers=1.0), "architecture.layers"),
    (arch(layers=10**9), "architecture.layers"),
    (arch(kv_heads=3), "architecture.kv_heads"),
    (arch(head_dim=15), "architecture.head_dim"),
    (arch(rope_theta=0), "architecture.rope_theta"),
    (arch(norm_eps="1e-5"), "architecture.norm_eps"),
    (arch(norm_eps=-(10**400)), "architecture.norm_eps"),
    (arch(rope_theta=10**400), "architecture.rope_theta"),
    (lambda m: m.update(name="two\nlines"), "name"),
    (lambda m: m.update(name="x" * 501), "name"),
    (lambda m: m["license"].update(id="MIT\x1b[2J"), "license.id"),
    (lambda m: m["license"].update(sha256="00"), "license.sha256"),
    (lambda m: m["license"].update(bytes=-1), "license.bytes"),
    (lambda m: m["source"].update(ref="a\u2028b"), "source.ref"),
    (lambda m: m["source"].update(file="\ud800"), "source.file"),
    (lambda m: m["variants"][0].update(requires=["a\rb"]), "variants[0].requires[0]"),
    (arch(tied=1), "architecture.tied"),
    (arch(context=-1), "architecture.context"),
    (lambda m: m["tokenizer"].update(file="a/../../b"), "tokenizer.file"),
    (lambda m: m["tokenizer"].update(bytes=-1), "tokenizer.bytes"),
    (lambda m: m["tokenizer"].update(sha256="00"), "tokenizer.sha256"),
    (lambda m: m["tokenizer"].update(bos=32), "tokenizer.bos"),
    (lambda m: m["tokenizer"].update(eos=[2, 99]), "tokenizer.eos[1]"),
    (lambda m: m["tokenizer"]["special"].update(x=-1), "tokenizer.special.x"),
    (lambda m: m["formats"]["q4_1"].update(bits=64), "formats.q4_1.bits"),
    (lambda m: m["formats"]["q4_1"].update(bits=16), "formats.q4_1.bits"),
    (lambda m: m["formats"]["q4_1"].update(group=7), "formats.q4_1.group"),
    (lambda m: m["formats"]["q4_1"].update(scale=None), "formats.q4_1.scale"),
    (lambda m: m["formats"]["q4_1"].update(min="f32"), "formats.q4_1.scale"),
    (lambda m: m["formats"]["q4_1"].update(type="complex"), "formats.q4_1.type"),
    (lambda m: m["formats"]["f32"].update(bits=8), "formats.f32.bits"),
    (lambda m: m["formats"].update({"a/b": {}}), "formats"),
    (tensor(0, name="token embd"), "tensors[0].name"),
    (tensor(1, name="token_embd"), "tensors[1].name"),
    (tensor(0, format="q9"), "tensors[0].format"),
    (tensor(0, layout="columns"), "tensors[0].layout"),
    (tensor(0, shape=[32, 63]), "tensors[0].shape"),
    (tensor(0, shape=[32]), "tensors[0].shape"),
    (tensor(0, shape=[32, -64]), "tensors[0].shape[1]"),
    (tensor(0, shape="32"), "tensors[0].shape"),
    (tensor(0, layout="raw"), "tensors[0].shape"),
    (tensor(1, layout="rows16"), "tensors[1].shape"),
    (tensor(0, bytes=1281), "tensors[0].bytes"),
    (tensor(0, shape=[33, 64]), "tensors[0].bytes"),
    (tensor(1, offset=1281), "tensors[1].offset"),
    (tensor(1, offset=1024), "tensors[1].offset"),
    (tensor(1, offset=1536), "tensors[1].offset"),
    (tensor(1, offset=1 << 60), "tensors[1].offset"),
    (shard(0, offset=256), "weights.shards[0].offset"),
    (shard(1, offset=768), "weights.shards[1].offset"),
    (shard(1, bytes=256), "weights.bytes"),
    (shard(0, bytes=1000), "weights.shards[0].bytes"),
    (shard(0, bytes=1 << 30), "weights.shards[0].bytes"),
    (shard(0, sha256=None), "weights.shards[0].sha256"),
    (shard(0, file="https://x.org/a"), "weights.shards[0].file"),
    (shard(0, file="weights//a"), "weights.shards[0].file"),
    (shard(0, file="weights/.hidden"), "weights.shards[0].file"),
    (shard(0, file="weights\\a"), "weights.shards[0].file"),
    (shard(0, file="a" * 5000), "weights.shards[0].file"),
    (shard(1, file="weights/00000.bin"), "weights.shards[1].file"),
    (shard(1, file="Manifest.json"), "weights.shards[1].file"),
    (lambda m: m["weights"].update(bytes=1 << 50), "weights.bytes"),
    (lambda m: m["variants"][0].update(backend="cuda"), "variants[0].backend"),
    (lambda m: m["variants"][0].update(requires="simd128"), "variants[0].requires"),
    (lambda m: m["variants"][0].pop("plan"), "variants[0].plan"),
    (lambda m: m["variants"][0].update(extra="x"), "variants[0].extra"),
    (lambda m: m["variants"][0]["kernels"].update(file="wasm-simd/plan.json"), "variants[0].kernels.file"),
    (lambda m: m["variants"].append(copy.deepcopy(m["variants"][0])), "variants[1].name"),
]


@pytest.mark.parametrize(("change", "field"), LIES, ids=[f"{i}-{field}" for i, (_, field) in enumerate(LIES)])
def test_lies(change: Callable[[Json], object], field: str) -> None:
    m = good()
    change(m)
    with pytest.raises(ArtifactInvalid) as e:
        parse(signed(m))
    assert e.value.field == field
    assert "\n" not in str(e.value)


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
