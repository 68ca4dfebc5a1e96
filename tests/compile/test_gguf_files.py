"""Files in parts, of the other byte order, and such as several things stand against."""

from __future__ import annotations

import re
from pathlib import Path

import gguf
import numpy as np
import pytest

from inpage.errors import SourceInvalid
from inpage_compile.artifact.licenses import check_license
from inpage_compile.sources import open_source
from inpage_compile.sources.gguf import open_gguf
from support.tiny import Tiny


def split(path: Path, folder: Path, count: int) -> list[Path]:
    """As llama.cpp's llama-gguf-split names and marks parts: the first has all keys."""
    reader = gguf.GGUFReader(path)
    files = []
    for i in range(count):
        file = folder / f"tiny-{i + 1:05}-of-{count:05}.gguf"
        w = gguf.GGUFWriter(file, "llama")
        if i == 0:
            for key, field in reader.fields.items():
                if not key.startswith(("GGUF.", "general.architecture")):
                    kind = field.types[0]
                    w.add_key_value(key, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
        w.add_uint16("split.no", i)
        w.add_uint16("split.count", count)
        w.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in reader.tensors[i::count]:
            w.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        w.write_header_to_file()
        w.write_kv_data_to_file()
        w.write_tensors_to_file()
        w.close()
        files.append(file)
    return files


def test_parts_make_the_whole(tmp_path: Path) -> None:
    whole = open_gguf(Tiny(default="Q8_0").write(tmp_path / "tiny.gguf"))
    for opened in map(open_gguf, split(tmp_path / "tiny.gguf", tmp_path, 3)):  # by any of them
        assert (opened.id, opened.architecture, opened.tokenizer) == ("tiny", whole.architecture, whole.tokenizer)
        assert set(opened.tensors) == set(whole.tensors)
        for name, tensor in opened.tensors.items():
            np.testing.assert_array_equal(tensor.data, whole.tensors[name].data)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first, second, third = split(Tiny().write(tmp_path / "t.gguf"), tmp_path, 3)
    second.unlink()
    with pytest.raises(SourceInvalid, match=re.escape("is part 3 of 3; not found beside it: tiny-00002-of-00003.gguf")):
        open_gguf(third)
    second.write_bytes(first.read_bytes())
    with pytest.raises(SourceInvalid, match=r"tiny-00002-of-00003.gguf is not part 2 of 3"):
        open_gguf(first)
    alone = Tiny().write(tmp_path / "alone.gguf", {"split.count": 2})
    with pytest.raises(SourceInvalid, match=r"alone.gguf is part 1 of 2.*alone-00002-of-00002.gguf") as error:
        open_gguf(alone)
    assert error.value.field == "split.count"


def test_the_other_byte_order_is_named(tmp_path: Path) -> None:
    w = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    w.add_block_count(1)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    with pytest.raises(SourceInvalid, match=r"big-endian file; convert it: gguf-convert-endian big.gguf little"):
        open_gguf(tmp_path / "big.gguf")


def test_all_that_stands_against_a_file_is_told_at_once(tmp_path: Path) -> None:
    keys = {"general.architecture": "mamba", "tokenizer.ggml.pre": "whitespace", "general.license": "other"}
    path = Tiny(default="TQ2_0", hidden=256, heads=4, head_dim=64, ffn=256).write(tmp_path / "bad.gguf", keys)
    with pytest.raises(SourceInvalid) as error:
        open_source(str(path), licensed=lambda terms: check_license(terms, False))
    said = str(error.value)
    assert said.startswith(
        "4 things stand against this file: (1) architecture 'mamba': Mamba, a state-space model, is not"
    )
    for each in ("(in all 15 of TQ2_0)", "supported are F32", "'whitespace' is not supported; supported: default",
                 "licence 'other' is not one we know", "--accept-license"):  # fmt: skip
        assert each in said
    assert error.value.field == "general.architecture" and "\n" not in said
    with pytest.raises(SourceInvalid, match=r"^3 things"):  # an accepted licence is none of them
        open_source(str(path), licensed=lambda terms: check_license(terms, True))


def test_no_key_of_a_family_is_passed_over(tmp_path: Path) -> None:
    """Whatever the `gguf` package has a name for under the family's prefix is read, refused, or warned of by name."""
    groups = [gguf.Keys.LLM, gguf.Keys.Attention, gguf.Keys.Rope, gguf.Keys.SSM]
    names = {value for group in groups for value in vars(group).values() if isinstance(value, str)}
    keys = {name.replace("{arch}", "llama") for name in names if name.startswith("{arch}.") and name.count("{") == 1}
    assert len(keys) > 60
    plain = Tiny(layers=1, hidden=16, heads=1, kv_heads=1, ffn=8)
    silent = set()
    for key in sorted(keys):
        path = plain.write(tmp_path / "key.gguf", {key: 7})
        try:
            told = " ".join(open_gguf(path).warnings)
        except SourceInvalid as error:
            told = str(error)
        if key not in told and not re.search("tensor|shape", told):
            silent.add(key.removeprefix("llama."))
    # What changes numbers, and is followed; and what changes none.
    assert {name for name in silent if not name.startswith("rope.scaling.yarn_")} <= {
        "context_length", "rope.freq_base", "rope.scaling.factor", "rope.scale_linear", "rope.scaling.attn_factor",
        "attention.layer_norm_rms_epsilon", "rope.scaling.original_context_length", "vocab_size",
        "tensor_data_layout", "rope.scaling.finetuned", "attention.sliding_window",
    }  # fmt: skip


def test_a_number_for_each_layer(tmp_path: Path) -> None:
    path = Tiny().write(tmp_path / "t.gguf", {"llama.attention.head_count_kv": [2, 2]})
    assert open_gguf(path).architecture.kv_heads == 2
    path = Tiny().write(tmp_path / "t.gguf", {"llama.attention.head_count_kv": [2, 4]})
    with pytest.raises(SourceInvalid, match=r"llama\.attention.head_count_kv: layers that differ"):
        open_gguf(path)
