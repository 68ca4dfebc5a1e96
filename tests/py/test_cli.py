"""The command line from end to end on a tiny model: compile, build, chat and score, and each error in one line."""

from __future__ import annotations

import contextlib
import io
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from inpage.cli import main, paths, site
from inpage.cli.headless import flags
from inpage.cli.session import FIELDS
from inpage.cli.static import StaticServer
from support.tiny import MODELS

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line; gives its exit code, stdout and stderr."""

    def command(*argv: str) -> tuple[int, str, str]:
        try:
            code = main(argv)
        except SystemExit as stop:  # argparse's way out
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS["mixed"].write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def compiled(gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The tiny model, compiled by the command line for this machine and for pages; and what that printed."""
    out, said = tmp_path_factory.mktemp("models") / "tiny", io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["compile", str(gguf), "--out", str(out), "--variants", "native,wasm-simd", "--dump"]) == 0
    return out, said.getvalue()


@pytest.fixture(scope="module")
def model(compiled: tuple[Path, str]) -> Path:
    return compiled[0]


def fails(result: tuple[int, str, str], *words: str, code: int = 1) -> None:
    """One line on stderr that says what is wrong, nothing on stdout."""
    assert result[0] == code
    assert result[1] == ""
    assert result[2].startswith("inpage: ")
    assert result[2].count("\n") == 1
    for word in words:
        assert word in result[2]


def test_compiling_again_changes_nothing(run: Run, model: Path, gguf: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    code, out, _ = run("compile", str(gguf), "--out", str(model), "--variants", "native,wasm-simd")
    assert (code, out.strip()) == (0, str(model))
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before


def test_dump_prints_a_plan_for_people(compiled: tuple[Path, str]) -> None:
    for word in ("token_ids", "blk.0", "bytes"):
        assert word in compiled[1]


def test_native_chat_streams_and_reports(run: Run, model: Path) -> None:
    code, out, err = run("chat", "hello", "--backend", "native", "--model", str(model), "--greedy", "--max-tokens", "9")
    assert code == 0
    assert out.strip()
    assert err.strip().splitlines()[-1].startswith("[native, ")
    assert "tokens/s" in err


def test_json_is_one_object_with_the_promised_fields(run: Run, model: Path) -> None:
    arguments = ("--backend", "native", "--model", str(model), "--greedy", "--max-tokens", "9", "--json")
    code, out, err = run("chat", "hello", *arguments)
    answer: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    assert tuple(answer) == FIELDS
    assert (answer["backend"], answer["variant"]) == ("native", "native")
    assert answer["finish_reason"] in ("stop", "length")
    assert len(answer["token_ids"]) <= 9
    assert answer["prompt_ids"][0] == 1  # the template's <|im_start|>
    raw = json.loads(run("chat", "hello", "--raw", *arguments)[1])
    assert 1 not in raw["prompt_ids"]
    system = json.loads(run("chat", "hello", "--system", "Be brief.", *arguments)[1])
    assert len(system["prompt_ids"]) > len(answer["prompt_ids"])


def test_the_browser_answers_as_this_machine_does(run: Run, model: Path, tmp_path: Path) -> None:
    arguments = ("--model", str(model), "--greedy", "--max-tokens", "9", "--json", "--raw")
    traces = {place: tmp_path / f"{place}.json" for place in ("page", "here")}
    traced = ("--threads", "1", "--trace", str(traces["page"]))
    _, out, told = run("chat", "hello world", *traced, "--profile", *arguments)
    page = json.loads(out)
    assert f"prefill: reading the prompt, {len(page['prompt_ids'])} tokens" in told
    assert f"decode: writing the answer, {len(page['token_ids']) - 1} tokens" in told
    traced = ("--backend", "native", "--trace", str(traces["here"]))
    here = json.loads(run("chat", "hello world", *traced, *arguments)[1])
    for path in traces.values():
        events = json.loads(path.read_text("utf-8"))["traceEvents"]
        names = {event["name"] for event in events if event["ph"] in "Xb"}
        assert names >= {"encode", "admit", "request", "waiting", "reading", "prefill", "answering", "burst", "decode"}
        assert all(event["ts"] >= 0 and event.get("dur", 0) >= 0 for event in events if event["ph"] != "M")
    assert tuple(page) == FIELDS
    assert (page["backend"], page["variant"], page["threads"]) == ("wasm", "wasm-simd", 1)
    assert page["token_ids"] == here["token_ids"]
    assert page["prompt_ids"] == here["prompt_ids"]


def test_tune(run: Run, model: Path) -> None:
    code, out, _ = run("tune", str(model), "--backend", "native", "--json")
    found = json.loads(out)
    assert (code, found["variant"], found["kernels_settled"]) == (0, "native", True)
    assert [each["decode_tps"] > 0 for each in found["candidates"] if each["running"]] == [True]
    code, out, _ = run("tune", str(model), "--backend", "native")
    assert code == 0 and out.startswith("Running native") and "tokens a second" in out


def test_score(run: Run, model: Path, tmp_path: Path) -> None:
    ids = [5, 9, 12, 40, 7, 7, 100, 3, 250, 17]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    arguments = ("--backend", "native", "--model", str(model))
    code, out, _ = run("score", "--ids", str(tmp_path / "ids.json"), "--window", "4", *arguments, "--json")
    score = json.loads(out)
    assert code == 0
    assert len(score["nll"]) == len(score["argmax"]) == len(score["margin"]) == 3 + 3 + 1
    assert score["perplexity"] > 1
    in_page = ("--ids", str(tmp_path / "ids.json"), "--window", "4", "--model", str(model), "--json")
    page = json.loads(run("score", *in_page)[1])  # with whatever is usual: no backend, no number of threads
    assert page["backend"] == "wasm" and page["argmax"] == score["argmax"]
    assert run("score", "hello", *arguments, "--json")[0] == 0  # the usual window fits this model's context
    fails(run("score", "hello", "--window", "512", *arguments), "window is 512")
    code, out, _ = run("score", "hello hello hello", "--window", "32", *arguments)
    assert code == 0
    assert out.startswith("perplexity ")


def test_wrong_command_lines(run: Run, model: Path) -> None:
    fails(run(), "command", code=2)
    fails(run("chat"), "PROMPT", code=2)
    fails(run("chat", "x", "--max-tokens", "many"), "--max-tokens", code=2)
    fails(run("chat", "x", "--raw", "--system", "y"), "--system", code=2)
    fails(run("chat", "x", "--greedy", "--temperature", "1"), "--greedy", code=2)
    fails(run("score"), "--ids", code=2)
    fails(run("serve", "--port", "99999"), "99999", code=2)


def test_what_goes_wrong_is_said(run: Run, model: Path, gguf: Path, tmp_path: Path) -> None:
    native = ("--backend", "native", "--model", str(model))
    fails(run("chat", "x", "--model", str(tmp_path)), "no compiled model")
    fails(run("chat", "x", "--backend", "webgpu", "--model", str(model)), "webgpu", "native")
    fails(run("chat", "x " * 400, *native, "--json"), "815 tokens")
    fails(run("chat", "x", *native, "--json", "--temperature", "9"), "temperature")
    fails(run("score", "--ids", str(tmp_path / "none.json"), *native), "none.json")
    (tmp_path / "bad.json").write_text("{}")
    fails(run("score", "--ids", str(tmp_path / "bad.json"), *native), "list")
    fails(run("serve", str(tmp_path)), "no site")
    fails(run("build", "--model", str(model), "--out", str(tmp_path)), "not empty")
    fails(run("compile", str(tmp_path / "none.gguf")), "none.gguf")
    fails(run("compile", str(gguf), "--variants", "abacus"), "abacus")
    code, out, _ = run("chat", "x", *native, "--json", "--max-tokens", "2")
    assert (code, json.loads(out)["backend"]) == (0, "native")


def test_damage_is_found_before_use(run: Run, model: Path, gguf: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf.read_bytes()[:-100])
    code, _, err = run("compile", str(cut), "--out", str(tmp_path / "m"))
    assert code == 1
    assert "cut off" in err.splitlines()[-1]
    shard = next(model.glob("weights/*.bin"))
    good = shard.read_bytes()
    try:
        shard.write_bytes(b"\0" + good[1:])
        code, _, err = run("chat", "x", "--backend", "native", "--model", str(model))
        assert code == 1
        assert shard.name in err.splitlines()[-1]
        shard.unlink()
        code, _, err = run("chat", "x", "--backend", "native", "--model", str(model))
        assert code == 1
        assert shard.name in err.splitlines()[-1]
    finally:
        shard.write_bytes(good)
    assert run("chat", "x", "--backend", "native", "--model", str(model), "--max-tokens", "1")[0] == 0


def test_build_is_deterministic_and_complete(run: Run, model: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for out in (one, two):
        code, printed, err = run("build", "--model", str(model), "--out", str(out))
        assert (code, printed.strip()) == (0, str(out))
        assert "besides Pyodide and the weights" in err
    names = sorted(path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(two).as_posix() for path in two.rglob("*") if path.is_file())
    for name in names:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    (listed,) = json.loads((one / "site.json").read_text())["models"]
    manifest = json.loads((one / listed["path"] / "manifest.json").read_text())
    assert (listed["name"], listed["license"]) == (manifest["name"], manifest["license"]["id"])
    assert (listed["context"], listed["bytes"]) == (manifest["architecture"]["context"], manifest["weights"]["bytes"])
    assert listed["parameters"] == sum(math.prod(tensor["shape"]) for tensor in manifest["tensors"])
    assert {f"models/{manifest['id']}/{shard['file']}" for shard in manifest["weights"]["shards"]} <= set(names)
    assert not [name for name in names if "native" in Path(name).parts or name.endswith(".so")]
    notices = (one / "NOTICES.txt").read_text()
    assert manifest["name"] in notices
    for word in ("Mozilla Public License", "PYTHON SOFTWARE FOUNDATION", "Pallets", "Apache License"):
        assert word in notices


_ASK = """
async (asked) => {
  const { InPage } = await import("./client/inpage.js");
  const site = await (await fetch("site.json")).json();
  const settings = { answers: { enabled: true, bundle: site.answers } };
  const inpage = await InPage.start({ model: site.models[0].id, threads: 1, settings });
  const answers = [];
  for (const [kind, prompt, params] of asked) {
    for await (const piece of inpage[kind](prompt, params)) if (piece.completion) answers.push(piece.completion);
  }
  return { answers, steps: (await inpage.counters()).steps };
}
"""


def test_a_site_brings_answers_that_were_made_ahead(run: Run, model: Path, tmp_path: Path) -> None:
    """Computed here, answered in the page without one step of its engine: both make the same keys."""
    file, out = tmp_path / "asked.jsonl", tmp_path / "site"
    lines: list[dict[str, Any]] = [
        {"messages": "hello", "temperature": 0, "max_tokens": 8},
        {"messages": [{"role": "user", "content": "world"}], "seed": 7, "max_tokens": 8, "tags": ["faq"]},
        {"prompt": "token light", "temperature": 0, "repetition_penalty": 1.1},
        {"messages": "who made you?", "temperature": 0, "answer": "the people of the page"},
    ]
    file.write_text("\n\n".join(json.dumps(line) for line in lines), "utf-8")
    assert run("build", "--model", str(model), "--answers", str(file), "--out", str(out))[0] == 0
    asked = [
        ("complete" if "prompt" in line else "chat", line.pop("prompt", None) or line.pop("messages"), line)
        for line in (dict(line) for line in lines)
    ]
    given = asked[-1][2].pop("answer")
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    with StaticServer({**files, "page.html": b"<!doctype html>"}) as server, sync_playwright() as playwright:
        server.start()
        browser = playwright.chromium.launch(executable_path=paths.chromium(), args=flags(webgpu=False))
        page = browser.new_page()
        page.goto(server.url + "page.html")
        told = page.evaluate(_ASK, [*asked, asked[0]])
        browser.close()
        server.shutdown()
    assert [answer["source"] for answer in told["answers"]] == ["bundle"] * 4 + ["memory"]
    assert told["steps"] == 0
    assert told["answers"][3]["text"] == given
    for (_, prompt, params), answer in zip(asked[:1], told["answers"], strict=False):
        more = ("--greedy", "--max-tokens", str(params["max_tokens"]), "--backend", "native", "--json")
        alone = json.loads(run("chat", str(prompt), "--model", str(model), *more)[1])
        assert (answer["token_ids"], answer["text"]) == (alone["token_ids"], alone["text"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "no JSON"),
        ("[]", "must be an object"),
        ('{"temperature": 0}', '"messages" or "prompt"'),
        ('{"messages": "hi"}', "not determined"),
        ('{"messages": "hi", "temperature": 9}', "temperature"),
        ('{"messages": "hi", "temperature": 0, "model": "other"}', "no model 'other'"),
        ('{"messages": "hi", "temperature": 0, "answer": 5}', "answer must be a text"),
    ],
)
def test_requests_that_cannot_be_answered_ahead(run: Run, model: Path, tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "asked.jsonl"
    file.write_text(f"\n{line}\n", "utf-8")
    fails(run("build", "--model", str(model), "--answers", str(file), "--out", str(tmp_path / "site")), "line 2", why)


def test_package_for_the_page_is_pure_python(tmp_path: Path) -> None:
    (tmp_path / "inpage.zip").write_bytes(site.package_zip())
    names = zipfile.ZipFile(tmp_path / "inpage.zip").namelist()
    assert "inpage/router/router.py" in names
    assert all(name.endswith(".py") for name in names)
    assert not [name for name in names if "/cli/" in name or name.endswith("/native.py")]


def test_loopback_unless_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("serve", "--help")
    assert code == 0
    assert "127.0.0.1" in out
