"""Folders of graphs become artifacts: what the graph says is read without the `onnx` package, its bytes lie in the
weights as they are, damage has its name, and the sampler beside it chooses as every other engine's does."""

from __future__ import annotations

import json
import subprocess
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.engines.protocol import Sampling
from inpage.errors import InvalidRequest, SourceInvalid
from inpage.format.abi import SEQUENCE, SEQUENCE_RESULTS, SEQUENCE_WORDS
from inpage_compile.artifact.checks import load_levels, verify
from inpage_compile.carried import link_sampler
from inpage_compile.onnx.graph import read_graph
from inpage_compile.onnx_model import open_carried
from inpage_compile.pipeline import compile_model
from inpage_compile.pruning.steps import Wanted
from inpage_compile.sources.onnx import onnx_folder, open_onnx
from support.folder import change
from support.onnx_folder import GRAPHS, write_onnx_folder
from support.runtime import Runtime
from support.sampler_reference import rows_of_logits

ROOT = Path(__file__).parents[2]


def test_graphs_become_levels_whose_bytes_are_theirs(tmp_path: Path) -> None:
    folder = write_onnx_folder(tmp_path / "tiny-llama", "fp32", "q4f16")
    assert onnx_folder(str(folder)) == onnx_folder(f"onnx:{folder}") == folder
    with pytest.raises(InvalidRequest, match=r"several precisions \(fp32, q4f16\)") as error:
        compile_model(str(folder), tmp_path / "out")
    assert error.value.field == "levels"
    out = compile_model(str(folder), tmp_path / "out", levels=("q4f16", "fp32"))
    best, other = load_levels(out)
    assert verify(out) == best and (best.level, other.level) == ("fp32", "q4f16")
    assert best.graph is not None and best.graph.inputs == ("input_ids", "attention_mask")
    assert other.graph is not None and other.graph.inputs[2:] == ("position_ids", "num_logits_to_keep")
    assert (best.graph.cache_type, other.graph.cache_type) == ("float32", "float16")
    assert [names.past for names in best.graph.cache[:3]] == [
        "past_key_values.0.key", "past_key_values.0.value", "past_key_values.1.key",
    ]  # fmt: skip
    a = best.architecture
    assert (a.layers, a.heads, a.kv_heads, a.head_dim, a.vocab, a.context) == (2, 4, 2, 16, 320, 256)
    for manifest, suffix in ((best, ""), (other, "_q4f16")):
        space = b"".join((out / shard.file).read_bytes() for shard in manifest.weights.shards)
        graph = manifest.graph
        assert graph is not None and space[: graph.bytes] == (GRAPHS / f"model{suffix}.onnx").read_bytes()
        (file,) = graph.files
        data = folder / "onnx" / file.path
        assert space[file.offset : file.offset + file.bytes] == data.read_bytes()
        assert [v.name for v in manifest.variants] == ["onnx-webgpu", "onnx-wasm"]
        assert ("shader-f16" in manifest.variants[0].requires) == (suffix == "_q4f16")
    made = (out / "manifest.json").stat().st_mtime_ns
    compile_model(str(folder), tmp_path / "out", levels=("fp32", "q4f16"))
    assert (out / "manifest.json").stat().st_mtime_ns == made


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("target_memory", {"target_memory": 1 << 30}),
        ("measure", {"measure": True}),
        ("dump", {"dump": True}),
        ("onnx", {"onnx": "graphs"}),
        ("prune_vocab", {"pruning": Wanted(corpus="the")}),
        ("drop_layers", {"pruning": Wanted(drop_layers=1)}),
        ("embedding", {"pruning": Wanted(embedding="q4_0")}),
    ],
)
def test_what_a_graph_cannot_have_is_refused(field: str, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=f"the source is a graph.*; {field} is for") as error:
        compile_model(f"onnx:{tmp_path}", tmp_path / "out", **options)
    assert error.value.field == field


def _graph(folder: Path) -> Path:
    return folder / "onnx" / "model.onnx"


def _replaced(old: bytes, new: bytes) -> Callable[[Path], object]:
    """Of the same length, so that the message around it stays whole."""
    assert len(old) == len(new)
    return lambda folder: _graph(folder).write_bytes(_graph(folder).read_bytes().replace(old, new))


def _cut(folder: Path) -> None:
    data = _graph(folder).read_bytes()
    _graph(folder).write_bytes(data[: len(data) // 2])


def _short(folder: Path) -> None:
    with (folder / "onnx" / "model.onnx_data").open("r+b") as file:
        file.truncate(1000)


def _other_heads(folder: Path) -> None:
    change(folder, "config.json", num_key_value_heads=4)


@pytest.mark.parametrize(
    ("spoil", "field", "says"),
    [
        (_cut, "model.onnx", "cut off or damaged"),
        (lambda folder: _graph(folder).write_bytes(b""), "model.onnx", "is empty"),
        (lambda folder: _graph(folder).write_bytes(b"GGUF" * 9), "model.onnx", "cut off or damaged"),
        (lambda folder: _graph(folder).write_bytes(b"\x08\x0a"), "model.onnx", "it has 0 graphs"),
        (_short, "model.onnx_data", r"cut off: model.onnx needs 328960 bytes"),
        (lambda folder: (folder / "onnx" / "model.onnx_data").unlink(), "model.onnx_data", "is missing"),
        (_replaced(b"attention_mask", b"attention_mist"), "inputs", "'attention_mist' that is not known"),
        (_replaced(b"past_key_values.1.key", b"past_key_values.7.key"), "inputs", "no past_key_values.1.key"),
        (_replaced(b"present.1.value", b"present.1.walue"), "outputs", "no present.1.value"),
        (_replaced(b"past_key_values.", b"past_key_walues."), "inputs", "text-generation-with-past"),
        (_replaced(b"model.onnx_data", b"/etc/password.x"), "path", "is not the name of a file"),
        (lambda folder: (folder / "config.json").unlink(), "config.json", "is missing"),
        (_other_heads, "config.json.num_key_value_heads", "has 2"),
    ],
)  # fmt: skip
def test_damage_has_its_name(tmp_path: Path, spoil: Callable[[Path], object], field: str, says: str) -> None:
    folder = write_onnx_folder(tmp_path / "tiny", "fp32")
    spoil(folder)
    with pytest.raises(SourceInvalid, match=says) as error:
        open_onnx(folder)
    assert error.value.field == field


def _message(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    low, high = len(content) & 127, len(content) >> 7
    return bytes([tag << 3 | 2, low | 128, high]) + content


def _number(tag: int, value: int) -> bytes:
    return bytes([tag << 3, value])


def test_whatever_one_byte_says_a_graph_is_read_or_its_file_named() -> None:
    extent = _message(1, _number(1, 0))
    tensor_type = _message(1, _number(1, 7), _message(2, extent, extent))
    taken = _message(11, _message(1, b"ids"), _message(2, tensor_type))
    place = [
        _message(13, _message(1, key), _message(2, said)) for key, said in ((b"location", b"w"), (b"length", b"9"))
    ]
    tensor = [_number(2, 10), _message(8, b"w"), _number(14, 1), *place]
    node = _message(1, _message(5, _message(5, *tensor), _message(6, _message(5, *tensor))))
    whole = _message(7, node, taken, _message(15, _message(1, *tensor)))
    graph = read_graph(memoryview(whole), "model.onnx")
    assert (graph.inputs["ids"].shape, graph.external, graph.halves) == ((0, 0), {"w": 9}, True)
    refused = 0
    for at in range(len(whole)):
        for byte in {whole[at] ^ 1, whole[at] ^ 2, whole[at] ^ 5, 0, 255}:  # other wire types and lengths
            try:
                read_graph(memoryview(whole[:at] + bytes([byte]) + whole[at + 1 :]), "model.onnx")
            except SourceInvalid as error:
                refused += error.field is not None
    assert refused > 100


def test_a_graph_of_another_model_is_not_carried(tmp_path: Path) -> None:
    folder = write_onnx_folder(tmp_path / "tiny", "fp32", "q4f16")
    own = open_onnx(folder, ["fp32"])
    assert open_carried(f"{folder}:q4f16", own.source).graph.file.name == "model_q4f16.onnx"
    other = replace(own.source, architecture=replace(own.source.architecture, kv_heads=4))
    for ref, source, field in (
        (f"{folder}:fp32", other, "kv_heads"),
        (f"{folder}:fp32", replace(other, architecture=replace(own.source.architecture, context=999)), "context"),
    ):
        with pytest.raises(SourceInvalid) as error:
            open_carried(ref, source)
        assert error.value.field == field
    with pytest.raises(InvalidRequest, match="several precisions"):
        open_carried(str(folder), own.source)


VOCAB = 320
CHOICES = [
    Sampling(),
    Sampling(temperature=0.8, seed=1 << 40),
    Sampling(temperature=1.3, top_k=9, seed=2),
    Sampling(temperature=0.7, top_p=0.6, seed=3),
    Sampling(temperature=1.0, min_p=0.1, seed=4),
    Sampling(temperature=1.0, repetition_penalty=1.7, seed=5),
    Sampling(temperature=0.0, presence_penalty=2.0),
    Sampling(temperature=0.9, frequency_penalty=1.5, seed=6),
    Sampling(temperature=1.0, logit_bias=((3, 4.0), (7, -9.0)), seed=7),
    Sampling(1.1, 40, 0.9, 0.01, 1.2, 0.3, 0.2, 8, ((5, 2.0),)),
]


@pytest.fixture(scope="module")
def native() -> Iterator[Runtime]:
    made = Runtime(16, VOCAB)
    yield made
    made.close()


def test_the_sampler_chooses_as_the_other_engines_do(native: Runtime, tmp_path: Path) -> None:
    """Bit for bit, with every parameter, masks as well: what ONNX Runtime's logits go through, and what ours do."""
    from test_sampler import structs

    rng = np.random.default_rng(11)
    rounds, expected = [], []
    sets = [CHOICES[i % len(CHOICES)] for i in range(16)]
    mask = rng.integers(0, 1 << 32, 10, dtype=np.uint64).astype(np.uint32)
    for x in [np.stack(rows_of_logits(VOCAB, rng, 16)) for _ in range(4)]:
        histories = [[int(t) for t in rng.integers(0, VOCAB, 30)] for _ in sets]
        words, bias = structs(sets, histories, [int(p) for p in rng.integers(1, 99, 16)], [-1] * 8 + [0] * 8)
        given = words.tolist()
        native.logits[:] = x
        assert native.sample(words, 16, bias, mask) == 0
        expected.append(_results(words))
        rounds.append({"sequences": given, "bias": bias.tolist(), "mask": mask.view(np.int32).tolist(),
                       "logits": x.astype(np.float32).view(np.int32).reshape(-1).tolist()})  # fmt: skip
    module = link_sampler(tmp_path)
    request = json.dumps({"vocab": VOCAB, "rows": 16, "words": SEQUENCE_WORDS, "rounds": rounds})
    script = ROOT / "tests" / "support" / "sampler_wasm.mjs"
    done = subprocess.run(["node", script, module], input=request, capture_output=True, text=True, check=True)
    found = [_results(array("i", words)) for words in json.loads(done.stdout)]
    assert found == expected and len({choice for each in found for choice in each}) > 20


def _results(words: array[int]) -> list[bytes]:
    data = words.tobytes()
    at = range(0, len(data), 4 * SEQUENCE_WORDS)
    return [data[i + 4 * SEQUENCE["chosen"] :][: SEQUENCE_RESULTS.size] for i in at]
