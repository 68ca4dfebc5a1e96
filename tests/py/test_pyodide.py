"""The package in Pyodide (Python 3.14): it imports, and its tokenizer and templates give the ids that CPython's do."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Tokenizer, load_tokenizer
from inpage_compile.tokenizers.tables import tables_of
from support.small import small_tokenizer_json
from support.templates import DEEP, MODELS, MUCH, TOKENS, reference, rendered, undated
from support.tiny import TEMPLATE
from support.vocabularies import small, stored, tokenizer_of

SCRIPT = Path(__file__).resolve().parents[1] / "support" / "in_pyodide.mjs"


class Pyodide:
    """A Pyodide that runs one code after another, each with names of its own; modules and what JavaScript's global
    scope holds stay."""

    def __init__(self) -> None:
        self._node = subprocess.Popen(["node", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, code: str, data: Any = None) -> Any:
        """Run ``code``. It finds ``data`` (as JSON text) and ends in an expression that is a JSON text."""
        assert self._node.stdin is not None and self._node.stdout is not None
        self._node.stdin.write(json.dumps({"code": code, "data": json.dumps(data)}) + "\n")
        self._node.stdin.flush()
        said = json.loads(self._node.stdout.readline())
        assert "error" not in said, said["error"][-3000:]
        return json.loads(said["value"])

    def close(self) -> None:
        self._node.kill()
        self._node.communicate()


@pytest.fixture(scope="module")
def in_pyodide() -> Iterator[Pyodide]:
    """One for all: a start takes seconds."""
    pyodide = Pyodide()
    yield pyodide
    pyodide.close()


def test_every_module_of_the_page_imports(in_pyodide: Pyodide) -> None:
    code = """
import importlib, json, pkgutil, sys
import inpage
cpython = ("inpage.bench", "inpage.cli", "inpage.openai.client", "inpage.engines.native", "inpage.responses.sqlite")
names = [m.name for m in pkgutil.walk_packages(inpage.__path__, "inpage.") if not m.name.startswith(cpython)]
for name in names:
    importlib.import_module(name)
json.dumps({"version": sys.version_info[:2], "names": names, "numpy": "numpy" in sys.modules})
"""
    found = in_pyodide(code)
    assert found["version"] == [3, 14]
    assert {"inpage.router.router", "inpage.worker.messages", "inpage.engines.in_page"} <= set(found["names"])


_RENDERED = """
import functools, json
from inpage.errors import InpageError
from inpage.text.template_sandbox import BoundedTemplate
given = json.loads(data)
more = {"documents": None, "add_generation_prompt": True, **given["tokens"]}
made = functools.cache(BoundedTemplate)
async def tried(source, conversation):
    try:
        template = made(source)
        return await template.render_aside({**conversation, "tools": conversation["tools"] or None, **more}, {})
    except InpageError as error:
        return error.code
    except Exception as error:
        return f"ERR {type(error).__name__}"
json.dumps([[await tried(source, given["conversations"][name]) for name in names] for source, names in given["cases"]])
"""


def test_templates_are_rendered_as_in_cpython(in_pyodide: Pyodide) -> None:
    """Which is as in transformers: test_template_environment.py. What is too much is refused as well."""
    large, small = reference()["templates"][:MODELS], reference()["templates"][MODELS:]
    cases = [(case["source"], list(case["expected"])) for case in large[::4] + small]
    refused = [(source, ["one"]) for source in (*MUCH, *DEEP)]
    conversations = reference()["conversations"]
    found = in_pyodide(_RENDERED, {"tokens": TOKENS, "conversations": conversations, "cases": cases + refused})
    for (source, names), texts in zip(cases, found, strict=False):
        for name, text in zip(names, texts, strict=True):
            expected = rendered(source, conversations[name])
            assert (text == expected.partition(":")[0]) if text.startswith("ERR") else (undated(text) == expected)
    assert {*(one for (one,) in found[len(cases) :])} <= {
        "artifact_invalid",
        "ERR RecursionError",
        "ERR TemplateSyntaxError",
    }


_PARITY = """
import json, random
from inpage.text.chat_template import ChatTemplate
from inpage.text.tokenizer import Detokenizer, load_tokenizer
given = json.loads(data)
tokenizer = load_tokenizer(given["tokenizer"], {})
template = ChatTemplate(given["template"], tokenizer, bos=1, eos=2)
def streamed(ids):
    detokenizer = Detokenizer(tokenizer)
    return "".join([*(detokenizer.push([i]) for i in ids), detokenizer.flush()])
json.dumps({
    "ids": [tokenizer.encode(text) for text in given["texts"]],
    "rendered": [tokenizer.encode_rendered(text, {}) for text in given["texts"]],
    "chats": [template.encode([{"role": "user", "content": text}]) for text in given["texts"] if text],
    "texts": [tokenizer.decode(ids) for ids in given["ids"]],
    "streamed": [streamed(ids) for ids in given["ids"]],
})
"""


def both(
    in_pyodide: Pyodide, tokenizer: Tokenizer, template: str, description: str, texts: list[str], ids: list[list[int]]
) -> Any:
    """What CPython gives, once Pyodide was found to give the same."""
    native = ChatTemplate(template, tokenizer, bos=1, eos=2)
    decoded = [tokenizer.decode(some) for some in ids]
    expected = {
        "ids": [tokenizer.encode(text) for text in texts],
        "rendered": [tokenizer.encode_rendered(text, {}) for text in texts],
        "chats": [native.encode([{"role": "user", "content": text}]) for text in texts if text],
        "texts": decoded,
        "streamed": decoded,
    }
    data = {"tokenizer": description, "template": template, "texts": texts, "ids": ids}
    found = in_pyodide(_PARITY, data)
    for name, values in expected.items():
        assert found[name] == values, name
    return expected


def test_small_tokenizer_is_the_same(in_pyodide: Pyodide, small_tokenizer: Tokenizer) -> None:
    rng = random.Random(2)
    parts = ["<|im_end|>", "<|im_start|>", "the", " ", "é", "🙂", "\n", "日本", "\ufeff", "<|", "|>", "12"]
    texts = ["".join(rng.choices(parts, k=8)) for _ in range(200)]
    ids = [[rng.randrange(320) for _ in range(20)] for _ in range(200)]
    both(in_pyodide, small_tokenizer, TEMPLATE, small_tokenizer_json(), texts, ids)


def test_sentencepiece_is_the_same(in_pyodide: Pyodide, tmp_path: Path) -> None:
    description = json.dumps(tokenizer_of(small("spm", tmp_path)).json)
    ids = [some for some, _ in stored()["decoded"]["spm"]]
    both(in_pyodide, load_tokenizer(description, {}), TEMPLATE, description, stored()["texts"][:200], ids)


@pytest.mark.model
def test_real_tokenizer_is_the_same_and_equals_llama_cpp(
    in_pyodide: Pyodide, artifact: Path, manifest_json: dict[str, Any], real_tokenizer: Tokenizer,
    corpus: list[dict[str, Any]],
) -> None:  # fmt: skip
    rng = random.Random(3)
    texts = [case["text"] for case in corpus]
    ids = [[rng.randrange(49152) for _ in range(30)] for _ in range(300)]
    ids += [[rng.randrange(280) for _ in range(30)] for _ in range(300)]  # mostly broken characters
    description = (artifact / "tokenizer.json").read_text("utf-8")
    same = both(in_pyodide, real_tokenizer, manifest_json["chat_template"], description, texts, ids)
    assert same["ids"] == [case["plain_ids"] for case in corpus]


def test_a_burst_crosses_as_typed_arrays(in_pyodide: Pyodide) -> None:
    """The page engine over a JavaScript client that only records what it is handed."""
    code = """
import asyncio, json
from pyodide.code import run_js
from inpage.engines.in_page import BrowserEngine
from inpage.engines.protocol import Flags, SequenceInput
client = run_js('''({
  calls: [],
  kinds(input) { return Object.entries(input).map(([k, v]) => k + ":" + (v?.constructor?.name ?? v)).sort(); },
  async reservePages(n) { this.calls.push(n); if (n > 9) throw Object.assign(new Error("full"), {name: "x"}); },
  async step(input) {
    this.calls.push(this.kinds(input));
    return { sequences: input.sample, scores: undefined };
  },
  async run(input, onSlice) {
    this.calls.push(this.kinds(input));
    if (input.tellMs) onSlice({ steps: 1, out: Int32Array.of(7), finished: Int32Array.of(0) });
    return { steps: 2, out: Int32Array.of(7, 8), sequences: input.sequences, finished: Int32Array.of(2) };
  },
})''')
sizes = dict(backend="wasm", variant="wasm-simd", threads=1, vocab=100, context=64, page_tokens=16, page_bytes=64,
             max_rows=8, max_sequences=2, max_logit_rows=2, max_pages=8, weight_bytes=1, arena_bytes=1, load_ms=1.0)
engine = BrowserEngine(client, {**sizes, "blocks_per_sequence": 4, "isolated": True}, Flags(grammars=True))
loaded = run_js('''({groups: [
  { layers: [0, 2], page_tokens: 16, window: null },
  { layers: [1], page_tokens: 32, window: 9 },
]})''')
grouped = BrowserEngine(client, {**sizes, "blocks_per_sequence": 6, **loaded.to_py()}, Flags())
groups = [(g.layers, g.page_tokens, g.window) for g in (*engine.info.groups, *grouped.info.groups)]
await engine.reserve_pages(2)
stepped = await engine.step([SequenceInput([1, 2], 0, [1], sample=True)])
ran = await engine.run([SequenceInput([5], 2, [1], max_new_tokens=4)], 2)
told = []
rest = await engine.run([SequenceInput([5], 2, [1], max_new_tokens=4)], 2, told.append)
parts = [(out.tokens, out.finished) for (out,) in [*told, rest]]
try:
    await engine.reserve_pages(10)
    failed = None
except Exception as error:
    failed = [type(error).__name__, str(error)]
found = {"calls": client.calls.to_py(), "token": stepped[0].token, "ran": ran[0].tokens, "parts": parts}
json.dumps({**found, "failed": failed, "groups": groups})
"""
    found = in_pyodide(code)
    assert found["groups"] == [[[0, 2], 16, None], [[1], 32, 9]]
    assert found["calls"][1] == [
        "bias:Int32Array",
        "blockTables:Int32Array",
        "logitRows:Int32Array",
        "positions:Int32Array",
        "rowSequence:Int32Array",
        "sample:Int32Array",
        "tokenIds:Int32Array",
        "wantLogits:Boolean",
    ]
    assert found["token"] == 0
    assert found["ran"] == [7, 8]
    assert found["parts"] == [[[7], None], [[8], "length"]]
    assert found["failed"] == ["InpageError", "x: full"]


def test_the_depth_that_is_allowed_is_far_from_what_ends_pyodide(in_pyodide: Pyodide) -> None:
    """Half-way down Python's own stack of the page still reads, writes and shows it; more is refused, not tried."""
    code = """
import json
from inpage.format import bounded
from inpage.errors import InvalidRequest
deep = lambda n: "[" * n + "]" * n
def at(level, work):
    return at(level - 1, work) if level else work()
def work():
    value = bounded.read(deep(bounded.DEPTH))
    return len(json.dumps(value)) == 2 * bounded.DEPTH == len(repr(value)) and value == json.loads(json.dumps(value))
refused = []
for given in (deep(bounded.DEPTH + 1), deep(3000), "[" * 100000):
    try:
        bounded.read(given)
    except bounded.Excessive as error:
        refused.append(str(error))
json.dumps([at(100, work), refused])
"""
    assert in_pyodide(code) == [True, ["it is nested more than 100 deep"] * 3]


# `js.large` lists texts of a tokenizer's size that JavaScript parsed or wrote, until `js.unwatch()`.
_WATCHED = """
import js
js.eval('''
globalThis.large = [];
const { parse, stringify } = JSON;
for (const [name, real] of Object.entries({ parse, stringify })) {
  JSON[name] = (...given) => {
    const made = real(...given);
    if (String(name === "parse" ? given[0] : made).length > 50000) globalThis.large.push(name);
    return made;
  };
}
globalThis.unwatch = () => void Object.assign(JSON, { parse, stringify });
''')
"""


def test_a_tokenizer_is_parsed_once(in_pyodide: Pyodide) -> None:
    """By JavaScript alone, and nothing writes it anew; what it does not believe is refused by the same bounds."""
    code = (
        _WATCHED
        + """
import json
from inpage.errors import ArtifactInvalid
from inpage.format import bounded
from inpage.text.tokenizer import load_tokenizer
text = json.loads(data)
python, loads, dumps = [], json.loads, json.dumps
def counted(name, real):
    def call(given, *rest, **more):
        made = real(given, *rest, **more)
        if len(given if name == "loads" else made) > 50000:
            python.append(name)
        return made
    return call
json.loads, json.dumps = counted("loads", loads), counted("dumps", dumps)
tokenizer = load_tokenizer(text, {})
json.loads, json.dumps = loads, dumps
refused = []
for bad in ("[" * 5000, '{"model": {"vocab": {"a": 0}, "x": ' + "[" * 200 + "]" * 200 + "}}", '"' + text[1:], "[]"):
    try:
        load_tokenizer(bad, {})
    except ArtifactInvalid as error:
        refused.append(error.field)
ids = tokenizer.encode("the world")
js.unwatch()
json.dumps({"ids": ids, "large": list(js.large), "python": python, "longest": tokenizer.longest, "refused": refused})
"""
    )
    description = json.loads(small_tokenizer_json())
    vocab = description["model"]["vocab"]
    vocab |= {f"unused {i} \U0001f642": len(vocab) + i for i in range(4000)}
    text = json.dumps(description)
    assert len(text) > 100_000
    native = load_tokenizer(text, {})
    assert in_pyodide(code, text) == {
        "ids": native.encode("the world"),
        "large": ["parse"],
        "python": [],
        "longest": native.longest,
        "refused": ["tokenizer.file"] * 4,
    }


def test_tables_of_a_tokenizer_are_read_without_parsing(in_pyodide: Pyodide) -> None:
    """Neither JavaScript nor Python parses or writes a text of its size, and Python holds none of its vocabulary."""
    code = (
        _WATCHED
        + """
import base64, json
from pyodide.ffi import to_js
from inpage.errors import ArtifactInvalid
from inpage.text.tokenizer import load_tokenizer
def file(content):
    return js.Object.fromEntries(to_js([["content", js.Uint8Array.new(to_js(content))]]))
content = base64.b64decode(json.loads(data))
tokenizer = load_tokenizer(file(content), {})
refused = []
later = content[:4] + b"\\2" + content[5:]
for bad in (b"", content[:-1], content + b"0", b"X" + content[1:], later, content.replace(b"{", b"[", 1)):
    try:
        load_tokenizer(file(bad), {})
    except ArtifactInvalid as error:
        refused.append(error.field)
ids = tokenizer.encode("the world \U0001f642")
text = tokenizer.decode(ids)
js.unwatch()
json.dumps({"ids": ids, "text": text, "large": list(js.large), "longest": tokenizer.longest, "refused": refused})
"""
    )
    description = json.loads(small_tokenizer_json())
    vocab = description["model"]["vocab"]
    vocab |= {f"unused {i} \U0001f642": len(vocab) + i for i in range(4000)}
    content = tables_of(description)
    assert content is not None and len(content) > 50_000
    native = load_tokenizer(json.dumps(description), {})
    ids = native.encode("the world \U0001f642")
    assert in_pyodide(code, base64.b64encode(content).decode()) == {
        "ids": ids,
        "text": native.decode(ids),
        "large": [],
        "longest": native.longest,
        "refused": ["tokenizer.file"] * 6,
    }
