"""Readers of what comes with a model, or from storage: manifest, plan, tokenizer, template, GGUF, what was kept."""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import zlib
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from inpage.backends.device_profile import DeviceProfile
from inpage.cli.out_folder import RECORD, _read_record
from inpage.engines.native_trust import is_stamped
from inpage.format.manifest import parse_manifest, revision_of
from inpage.format.plan import parse_plan
from inpage.format.plan_views import check_for_webgpu, describe, encode_program
from inpage.format.schema import Tensor
from inpage.host.capability import host_device
from inpage.kv.saved import SavedPages
from inpage.kv.storage import FolderPages
from inpage.responses import Answer, AnswerCache, Bundle, pack_bundle
from inpage.responses.sqlite import SqliteTier
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from inpage_compile.sources.gguf import open_gguf
from support.corpus import corpus
from support.small import small_tokenizer_json
from support.templates import reference
from support.tiny import CONTROL, Tiny

from .harness import Fault, Reader
from .mutate import Mutator

_MANIFEST, _PLAN = corpus("manifest")["good"], corpus("plan")
_TENSORS = [Tensor(**{**t, "shape": tuple(t["shape"])}) for t in _PLAN["tensors"]]
_PLANS = list(_PLAN["good"].values())
_KEPT = Answer((5, 6, 7), "stop", ("model:m",), 1e12)
_TEXT = "hello <|im_end|> wörld \U0001f600\n\n  x<|im_start|>"


@cache
def scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="inpage-fuzz-"))
    atexit.register(shutil.rmtree, folder, True)
    return folder


def _make_manifest(m: Mutator) -> Any:
    document = m.value(_MANIFEST, [_MANIFEST])
    if isinstance(document, dict) and m.rng.random() < 0.95:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            document["revision"] = revision_of(document)
    return document if m.rng.random() < 0.5 else _text(document)


def _text(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _plan(document: Any) -> None:
    plan = parse_plan(document, _TENSORS)
    encode_program(plan)
    describe(plan)
    check_for_webgpu(plan)


@cache
def _tokenizers() -> list[dict[str, Any]]:
    """The tests' tokenizer, with little of its vocabulary so that mutations meet the rest, and other kinds."""
    whole = json.loads(small_tokenizer_json())
    vocab = whole["model"]["vocab"]
    small = {token: i for token, i in vocab.items() if i < 80}
    merges = [pair for pair in whole["model"]["merges"] if "".join(pair) in small]
    bpe = whole | {"model": whole["model"] | {"vocab": small, "merges": merges[:5]}}
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
    spm = bpe | {
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": meta,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True, "dropout": None,
                  "vocab": {"<unk>": 3, "▁": 4, "a": 5, "b": 6, "<0x41>": 7, "▁a": 8}, "merges": [["▁", "a"]]},
    }  # fmt: skip
    pieces = [["<unk>", 0.0], ["▁", -1.5], ["a", -2.0]]
    model = {"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": pieces}
    unigram = bpe | {"pre_tokenizer": meta, "decoder": meta, "model": model}
    pattern = {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}|\\s+"}, "behavior": "Isolated", "invert": False}
    split = bpe | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [pattern, bpe["pre_tokenizer"]]}}
    return [bpe, spm, unigram, split]


def _tokenizer(text: str) -> None:
    tokenizer = load_tokenizer(text, {"<|im_end|>": 2})
    for ids in (tokenizer.encode(_TEXT), tokenizer.encode_rendered(_TEXT, {}), [5, 6, 1 << 31, 7, 4]):
        tokenizer.decode(ids)
        for token in ids[:9]:
            if token not in tokenizer.control_ids:
                tokenizer.bytes_of(token)


@cache
def _small() -> Tokenizer:
    return load_tokenizer(small_tokenizer_json(), {})


def _make_template(m: Mutator) -> Any:
    told = reference()
    sources = [one["source"] for one in told["templates"]]
    conversation = m.rng.choice(list(told["conversations"].values()))
    source = m.rng.choice(sources)
    if m.rng.random() < 0.7:
        source = m.text(source)
    if m.rng.random() < 0.2:
        source = source[: m.rng.randrange(len(source) + 1)] + m.rng.choice(sources)
    tools = conversation["tools"] if m.rng.random() < 0.5 else []
    return source, conversation["messages"], tools


def _template(given: Any) -> None:
    source, messages, tools = given
    ChatTemplate(source, _small(), bos=1, eos=2).encode(messages, tools)


@cache
def _gguf() -> tuple[bytes, list[int], int]:
    """A file, where the values of its keys and tensors begin, and where its header ends."""
    path = Tiny(hidden=32, layers=1, heads=2, kv_heads=1, head_dim=16, ffn=32).write(scratch() / "good.gguf")
    data = path.read_bytes()
    names = [b"general.", b"llama.", b"tokenizer.", b"blk.", b"token_embd", b"output_norm"]
    places = [at for name in names for at in _all(data, name)]
    end = data.rindex(b"output_norm.weight") + 64
    return data, places, end


def _all(data: bytes, part: bytes) -> list[int]:
    found, at = [], data.find(part)
    while at >= 0:
        found.append(at)
        at = data.find(part, at + 1)
    return found


def _make_gguf(m: Mutator) -> bytes:
    """Changed near a key: its name, its type, its length or its value."""
    data, places, end = _gguf()
    out = data
    for _ in range(m.rng.choice((1, 1, 2, 3))):
        start = max(0, m.rng.choice((0, *places)) - 8) if m.rng.random() < 0.8 else m.rng.randrange(end)
        length = m.rng.choice((16, 48, 64))
        out = out[:start] + m.bytes(out[start : start + length]) + out[start + length :]
    return out if m.rng.random() < 0.9 else out[: m.rng.randrange(len(out))]


def _open_gguf(data: bytes) -> None:
    path = scratch() / "changed.gguf"
    path.write_bytes(data)
    source = open_gguf(path)
    for tensor in source.tensors.values():
        tensor.data.nbytes  # noqa: B018


def _make_answer(m: Mutator) -> bytes:
    if m.rng.random() < 0.3:
        return m.bytes(_KEPT.pack("k"))
    fields = m.value(json.loads(zlib.decompress(_KEPT.pack("k"))))
    if isinstance(fields, list) and len(fields) == 6 and m.rng.random() < 0.8:
        parts = [fields[0], "k", *fields[1:4], fields[5]]
        text = json.dumps(parts, separators=(",", ":")).encode()
        fields[4] = hashlib.sha256(text).hexdigest()
    return zlib.compress(json.dumps(fields).encode())


def _answer(packed: bytes) -> None:
    found = Answer.unpack(packed, "k")
    if found is not None and Answer.unpack(found.pack("k"), "k") != found:
        raise Fault(f"{found!r} is not what is kept of it")


def _make_bundle(m: Mutator) -> str:
    document = json.loads(pack_bundle([("k", _KEPT), ("l", Answer((), "length"))]))
    if m.rng.random() < 0.5:
        document["answers"]["k"] = base64.b64encode(_make_answer(m)).decode()
        return json.dumps(document)
    return m.json(document)


async def _bundle(text: str) -> None:
    bundle = Bundle(text)
    for key in ("k", "l", "m"):
        await bundle.get(key)


@cache
def _sqlite() -> bytes:
    path = scratch() / "good.sqlite"
    tier = SqliteTier(path)
    for i in range(20):
        tier._db.execute("insert into answers values (?, ?, ?)", (f"k{i}", _KEPT.pack(f"k{i}"), float(i)))
        tier._db.execute("insert into tags values (?, ?)", ("t", f"k{i}"))
    tier._db.commit()
    tier._db.execute("pragma wal_checkpoint(truncate)")
    tier._db.close()
    return path.read_bytes()


def _make_sqlite(m: Mutator) -> bytes | list[tuple[str, tuple[Any, ...]]]:
    if m.rng.random() < 0.7:
        return m.bytes(_sqlite())
    kinds = (None, 1, -(2**63), 1e300, "x", b"\xff\xfe", "", b"", _KEPT.pack("k1"), zlib.compress(bytes(1 << 22)))
    return [("update answers set value = ?, used = ?", (m.rng.choice(kinds), m.rng.choice(kinds))),
            ("update tags set tag = cast(? as text)", (m.rng.choice(kinds),)),
            ("update answers set key = cast(? as text) where key = 'k1'", (m.rng.choice(kinds),))]  # fmt: skip


async def _stored(change: bytes | list[tuple[str, tuple[Any, ...]]]) -> None:
    path = scratch() / "changed.sqlite"
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(change if isinstance(change, bytes) else _sqlite())
    if not isinstance(change, bytes):
        db = sqlite3.connect(path)
        for statement, values in change:
            with contextlib.suppress(sqlite3.Error):
                db.execute(statement, values)
        db.commit()
        db.close()
    cache = AnswerCache([SqliteTier(path, 1 << 20)])
    for key in ("k1", "k2", "none"):
        await cache.get(key)
    await cache.put("k1", _KEPT)
    found = await cache.get("k1")
    await cache.invalidate("t")
    await cache.invalidate()
    await cache.close()
    if found is not None and found[0].token_ids != _KEPT.token_ids:
        raise Fault(f"another answer came back: {found[0]!r}")


def _make_prefix(m: Mutator) -> tuple[str, bytes]:
    tokens = list(range(64))
    saved = _saved(FolderPages(scratch(), 1 << 20))
    (key, *_) = saved.keys(tokens, 64)
    name = f"{saved._listed}64-{key}"
    content = bytes(range(256))
    whole = hashlib.sha256(content + name.encode()).digest() + content
    return (m.text(name) if m.rng.random() < 0.5 else name), (m.bytes(whole) if m.rng.random() < 0.5 else whole)


def _saved(storage: FolderPages) -> SavedPages:
    return SavedPages(storage, "ab" * 32)


async def _prefix(given: tuple[str, bytes]) -> None:
    folder = scratch() / "pages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with contextlib.suppress(OSError, ValueError):  # no name of a file
        (folder / given[0]).write_bytes(given[1])
    for ids in await _saved(FolderPages(folder, 1 << 20)).listed():
        if not all(isinstance(token, int) for token in ids):
            raise Fault(f"{ids!r}")


_NOTES: dict[str, Any] = {"version": 1, "devices": {"x": {
    "figures": {"native": {"decode_tps": 5.0, "prefill_tps": 9.5, "threads": 2, "at": 1e9}},
    "choices": {"native": {"kernels": ["a"], "settled": True, "threads": 2, "threads_measured": {"2": 5.5}}},
    "faults": {"native": {"faults": [["device_lost", "m", 1.0]], "rest": [1e9, 2]}},
}}}  # fmt: skip


async def _notes(text: str) -> None:
    """Noted for this device, so that all of it is read."""
    home = scratch() / "cache"
    manifest: Any = SimpleNamespace(id="small", revision="0" * 64)
    device = host_device()
    path = home / "inpage" / "notes" / "small.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = f"{device.fingerprint} | 2 | {manifest.revision}"
    mine = hashlib.sha256(words.encode()).hexdigest()[:16]
    path.write_bytes(text.replace('"x": {', f'"{mine}": {{', 1).encode("utf-8", "surrogatepass"))
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(home)}):
        profile = await DeviceProfile.open(manifest, device, 2)
        await profile.save()


_RECORDS: list[Any] = [{"files": {"a/b.html": ["ab" * 32], "c": []}}, {"stamps": {"ab" * 32: "cd" * 32}}]


def _record(text: bytes) -> None:
    folder = scratch() / "out"
    folder.mkdir(exist_ok=True)
    for name in (RECORD, "build.json"):
        (folder / name).write_bytes(text)
    is_stamped(folder, "ab" * 32)
    _read_record(folder)


READERS = [
    Reader("manifest", _make_manifest, parse_manifest),
    Reader("plan", lambda m: m.value(m.rng.choice(_PLANS), _PLANS), _plan),
    Reader("plan-text", lambda m: m.json(m.rng.choice(_PLANS), _PLANS).encode("utf-8", "surrogatepass"), _plan),
    Reader("tokenizer", lambda m: m.json(m.rng.choice(_tokenizers()), _tokenizers()), _tokenizer),
    Reader("template", _make_template, _template, share=0.4),
    Reader("gguf", _make_gguf, _open_gguf, share=0.4),
    Reader("answer", _make_answer, _answer),
    Reader("bundle", _make_bundle, _bundle),
    Reader("sqlite", _make_sqlite, _stored, share=0.2),
    Reader("prefix", _make_prefix, _prefix, share=0.5),
    Reader("notes", lambda m: m.json(_NOTES), _notes, share=0.5),
    Reader("record", lambda m: m.json(m.rng.choice(_RECORDS)).encode("utf-8", "surrogatepass"), _record, share=0.5),
]
assert CONTROL[2] == "<|im_end|>"
