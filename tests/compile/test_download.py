"""Models from the hub's API and from addresses: against a real server of this machine, with all that goes wrong."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inpage.errors import NetworkError, SourceInvalid
from inpage_compile.sources import Recipe, download, load_recipe, open_source
from inpage_compile.sources.download import TRIES, Download, Remote
from inpage_compile.sources.http_files import Client, _Redirects, check_url, shown
from inpage_compile.sources.hub import Hub
from support.folder import write_folder
from support.hub_server import COMMIT, Asked, Server, serving
from support.tiny import MODELS, Tiny

STEP = 10_000
DATA = np.random.default_rng(5).bytes(4 * STEP + 123)  # five ranges
SHA256 = hashlib.sha256(DATA).hexdigest()
TOKEN = "hf_secret"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server({"/file": DATA})) as made:
        yield made


class Fetch:
    """A download in ranges of `STEP`; ``waits``: what it would have waited."""

    def __init__(self, server: Server, target: Path, sha256: str | None = SHA256, size: int | None = len(DATA)) -> None:
        self.waits: list[float] = []
        self.progress: list[tuple[int, int]] = []
        self.remote, self.target = Remote(f"{server.url}/file", size, sha256), target

    def __call__(self) -> bytes:
        made = Download(Client(), lambda *so: self.progress.append(so), self.waits.append, STEP)
        return made.fetch(self.remote, self.target).read_bytes()

    def fails(self, kind: type[Exception], match: str) -> None:
        with pytest.raises(kind, match=match):
            self()
        assert not self.target.exists()


def ranges(server: Server) -> list[int]:
    """Which were asked for, without the look at the first byte."""
    return sorted(asked.span[0] // STEP for asked in server.asked if asked.span and asked.span != (0, 1))


def test_in_ranges_once(server: Server, tmp_path: Path) -> None:
    fetch = Fetch(server, tmp_path / "model")
    assert fetch() == DATA
    assert ranges(server) == [0, 1, 2, 3, 4]
    assert fetch.progress[0] == (0, len(DATA)) and fetch.progress[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in fetch.progress] == sorted(done for done, _ in fetch.progress)
    count = len(server.asked)
    assert fetch() == DATA and len(server.asked) == count  # it is there
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")] == ["model"]


def test_cut_lines_are_taken_up_where_they_ended(server: Server, tmp_path: Path) -> None:
    seen: list[int] = []

    def cut(asked: Asked, _: int) -> Any:
        assert asked.span
        seen.append(asked.span[0])
        return ("cut", 4000) if asked.span[1] - asked.span[0] > 4000 else None

    server.fault = cut
    fetch = Fetch(server, tmp_path / "model")
    assert fetch() == DATA
    assert sorted(seen[1:]) == sorted([*(i * STEP + at for i in range(4) for at in (0, 4000, 8000)), 4 * STEP])
    assert len(fetch.waits) == 8


def test_a_line_that_is_always_cut(server: Server, tmp_path: Path) -> None:
    server.fault = lambda asked, before: ("cut", 0) if asked.span != (0, 1) else None
    fetch = Fetch(server, tmp_path / "model")
    fetch.fails(NetworkError, rf"/file: .*\({TRIES} tries\)")
    assert max(fetch.waits) <= 30


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it is certain what came before a fault."""
    monkeypatch.setattr(download, "AT_ONCE", 1)


@pytest.mark.usefixtures("one_at_a_time")
def test_the_second_run_goes_on_where_the_first_ended(server: Server, tmp_path: Path) -> None:
    server.fault = lambda asked, before: (404, {}) if asked.span and asked.span[0] == 2 * STEP else None
    fetch = Fetch(server, tmp_path / "model")
    fetch.fails(SourceInvalid, "is not there")
    record = json.loads((tmp_path / "model.part.json").read_text())
    assert record["done"] == [0, 1]
    server.fault = lambda asked, before: None
    server.asked.clear()
    assert fetch() == DATA
    assert ranges(server) == [2, 3, 4]
    assert fetch.waits == []  # what is not there is not tried again


@pytest.mark.usefixtures("one_at_a_time")
@pytest.mark.parametrize("damage", ["{", "[]", '{"done": [0]}', "etag", "done", "size"])
def test_a_record_that_is_not_of_this_file_is_no_help(damage: str, server: Server, tmp_path: Path) -> None:
    server.fault = lambda asked, before: (404, {}) if asked.span and asked.span[0] == 2 * STEP else None
    fetch = Fetch(server, tmp_path / "model")
    fetch.fails(SourceInvalid, "is not there")
    record, part = tmp_path / "model.part.json", tmp_path / "model.part"
    if damage == "size":
        part.write_bytes(b"x" * 100)
    elif damage in ("etag", "done"):
        record.write_text(
            json.dumps(json.loads(record.read_text()) | {damage: {"etag": '"other"', "done": "all"}[damage]})
        )
    else:
        record.write_text(damage)
    server.fault = lambda asked, before: None
    server.asked.clear()
    assert fetch() == DATA
    assert ranges(server) == [0, 1, 2, 3, 4]


def test_wrong_bytes_are_never_trusted(server: Server, tmp_path: Path) -> None:
    server.files["/file"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    fetch = Fetch(server, tmp_path / "model")
    fetch.fails(SourceInvalid, rf"model came damaged: it has hash .*expected {SHA256}")
    assert not list(tmp_path.glob("model*"))
    server.files["/file"] = DATA
    assert fetch() == DATA
    blob = hashlib.sha1(b"blob %d\0" % len(DATA) + DATA).hexdigest()
    for git, good in ((blob, True), ("0" * 40, False)):
        (tmp_path / "model").unlink(missing_ok=True)
        fetch.remote = Remote(f"{server.url}/file", len(DATA), None, git)
        if good:
            assert fetch() == DATA
        else:
            fetch.fails(SourceInvalid, "expected 0000")


def test_a_file_that_changes_between_ranges(server: Server, tmp_path: Path) -> None:
    """Once: begun anew. Always: an error."""
    other = bytes(reversed(DATA))

    def swap(asked: Asked, before: int) -> Any:
        if before == 3:
            server.files["/file"] = other

    server.fault = swap
    fetch = Fetch(server, tmp_path / "model", hashlib.sha256(other).hexdigest())
    assert fetch() == other

    def always(asked: Asked, before: int) -> Any:
        server.files["/file"] = DATA[before % 7 :] + DATA[: before % 7]

    (tmp_path / "model").unlink()
    server.fault = always
    fetch.fails(NetworkError, "changes while it is downloaded")
    server.fault = lambda asked, before: (416, {}) if asked.span and asked.span[0] == STEP else None
    fetch.fails(NetworkError, "has become shorter.*changes while")
    server.files["/file"], server.fault = DATA[:-5], lambda asked, before: None
    fetch.fails(NetworkError, f"has {len(DATA) - 5} bytes, not {len(DATA)}")


def test_a_busy_server_is_asked_again_when_it_says(server: Server, tmp_path: Path) -> None:
    answers: list[Any] = [(429, {"Retry-After": "7"}), (503, {"Retry-After": "999999"}), (502, {}),
                          (503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})]  # fmt: skip
    server.fault = lambda asked, before: answers[before] if before < len(answers) else None
    fetch = Fetch(server, tmp_path / "model")
    assert fetch() == DATA
    assert fetch.waits == [7.0, 60.0, 4.0, 8.0]
    server.fault = lambda asked, before: (503, {})
    (tmp_path / "model").unlink()
    fetch.fails(NetworkError, f"status 503 .{TRIES} tries")


@pytest.mark.parametrize("cut", [False, True])
def test_a_server_without_ranges(cut: bool, server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.fault = lambda asked, before: ("cut", 9000) if cut and before == 1 else None
    fetch = Fetch(server, tmp_path / "model", size=None)
    assert fetch() == DATA
    assert len(server.asked) == (3 if cut else 2)
    (tmp_path / "model").unlink()
    server.etags, server.ranges = False, True  # and one that says nothing of versions
    assert fetch() == DATA


def test_a_server_that_cannot_be_reached(server: Server, tmp_path: Path) -> None:
    fetch = Fetch(server, tmp_path / "model")
    fetch.remote = Remote("http://127.0.0.1:1/file")
    fetch.fails(NetworkError, r"127.0.0.1:1/file: .*refused.*6 tries")


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("http://example.org/m.gguf", "is not an https address"),
        ("ftp://127.0.0.1/m.gguf", "is not an https address"),
        ("file:///etc/passwd", "is not an address"),
        ("https://user:pw@example.org/m.gguf", "password in it"),
        ("https://exa mple.org/m.gguf", "is not an address"),
        ("https://example.org:99999/m.gguf", "is not an address"),
        ("https://[::1/m.gguf", "is not an address"),
        ("https://example.org/\r\nX: y", "is not an address"),
        ("https://example.org/m\xf6del.gguf", "is not an address"),
    ],
)
def test_addresses_that_are_not_taken(url: str, match: str) -> None:
    with pytest.raises(SourceInvalid, match=match) as e:
        check_url(url)
    assert "pw" not in str(e.value)


def test_redirects_leave_no_encryption(server: Server, tmp_path: Path) -> None:
    request = urllib.request.Request("https://127.0.0.1/file")
    with pytest.raises(NetworkError, match="not encrypted"):
        _Redirects(lambda _: None).redirect_request(request, None, 302, "", {}, "http://127.0.0.1/other")
    fetch = Fetch(server, tmp_path / "model")
    server.redirects["/file"] = "file:///etc/passwd"
    fetch.fails(NetworkError, "redirects to what is no address, or for ever")
    server.redirects["/file"] = f"{server.url}/file"
    fetch.fails(NetworkError, "or for ever")
    server.redirects["/file"] = "http://example.org/file"
    fetch.fails(SourceInvalid, "'http://example.org/file' is not an https address")


# --- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The API on one server that wants a token, the large files on another, ``server``."""
    server.files.clear()
    with serving(Server(token=TOKEN)) as made:
        for name, value in {
            "HF_ENDPOINT": made.url,
            "HF_TOKEN": TOKEN,
            "INPAGE_CACHE": str(tmp_path / "cache"),
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(download, "RANGE", STEP)
        yield made


def offer(hub: Server, cdn: Server, name: str, files: dict[str, bytes], card: dict[str, Any] | None = None) -> None:
    hub.add_model(name, files, card, cdn.url)
    cdn.files |= {f"/{file}": data for file, data in files.items()}


def test_a_file_of_the_hub(hub: Server, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = MODELS["mixed"].write(tmp_path / "m.gguf", {"general.license": None}).read_bytes()
    offer(hub, server, "me/tiny-GGUF", {"tiny-Q4_1.gguf": data, "README.md": b"x"}, {"license": "apache-2.0"})
    came: list[tuple[int, int]] = []
    source = open_source("hf:me/tiny-GGUF", progress=lambda *so: came.append(so))
    assert (source.origin.kind, source.origin.ref) == ("hub", f"me/tiny-GGUF@{COMMIT}")
    assert (source.origin.sha256, source.origin.file) == (hashlib.sha256(data).hexdigest(), "tiny-Q4_1.gguf")
    assert (source.license.id, source.id) == ("apache-2.0", "tiny-q4_1")
    assert came[-1] == (len(data), len(data))
    # The token stays with the one that it is for.
    assert {asked.authorization for asked in hub.asked} == {f"Bearer {TOKEN}"}
    assert {asked.authorization for asked in server.asked} == {None}
    assert server.asked
    # Asked again only for what the name means by now, and not at all where nobody answers.
    server.asked.clear()
    assert open_source("hf:me/tiny-GGUF").origin == source.origin
    assert server.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    assert open_source("hf:me/tiny-GGUF:Q4_1").origin == source.origin
    assert hub.asked == []
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE"):
        open_source("hf:me/other")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert open_source("hf:me/tiny-GGUF").origin == source.origin
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # what one server says is not another's word
    with pytest.raises(NetworkError):
        open_source("hf:me/tiny-GGUF")


def test_a_folder_of_the_hub(hub: Server, server: Server, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", "qwen2", shards=2)
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    more = {"README.md": b"---\nlicense: mit\n---\n", "onnx/model.onnx": b"no", "pytorch_model.bin": b"no"}
    offer(hub, server, "me/Tiny", files | more)
    source = open_source("hf:me/Tiny@main")
    assert (source.id, source.name, source.license.id) == ("tiny", "Tiny", "mit")
    assert (source.origin.kind, source.origin.ref) == ("hub", f"me/Tiny@{COMMIT}")
    (kept,) = (tmp_path / "cache").glob(f"hub-*/me--Tiny/{COMMIT}")
    assert {p.name for p in kept.iterdir() if not p.name.startswith(".")} == {*files, "README.md"}
    assert source.architecture.family == "qwen2"


def test_a_split_file_of_the_hub(hub: Server, server: Server, tmp_path: Path) -> None:
    from test_gguf_files import split

    parts = split(Tiny().write(tmp_path / "whole.gguf"), tmp_path, 2)
    data = {f"Q8_0/{p.name}": p.read_bytes() for p in parts}
    offer(hub, server, "me/tiny", data)
    assert open_source("hf:me/tiny").architecture.layers == 2
    offer(hub, server, "me/less", dict(list(data.items())[:1]))
    with pytest.raises(SourceInvalid, match=r"me/less lacks Q8_0/tiny-00002-of-00002\.gguf"):
        open_source("hf:me/less")


def test_which_file(hub: Server, server: Server) -> None:
    names = ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-q8_0.gguf", "mmproj-m.gguf")
    offer(hub, server, "me/many", dict.fromkeys(names, b"GGUF" * 5) | {"notes.txt": b""})
    fetch = Hub(Path("/nowhere"))

    def fails(ref: str, match: str) -> None:
        with pytest.raises(SourceInvalid, match=match):
            open_source(ref)

    fails("hf:me/many", r"several: say which, as in hf:me/many:m-Q4_K_M.gguf; it has m-Q4_K_M.gguf \(0 MB\), m-Q4_K_S")
    fails("hf:me/many:Q4_K", "no one file 'Q4_K'; it has m-Q4_K_M.gguf")
    fails("hf:me/many:Q5_0", "no one file 'Q5_0'")
    fails("hf:me/many:notes.txt", "is not a GGUF file")
    fails("hf:me/many:q8_0", "GGUF version")  # found, and no model
    offer(hub, server, "me/none", {"notes.txt": b"x"})
    fails("hf:me/none", "neither a GGUF file nor a folder")
    for ref in ("hf:", "hf:me", "hf:me/../x", "hf:me/x@../y", "hf:me/x y", "hf:/x/y", "hf:me/x:../y", "hf:http://x/y"):
        fails(ref, "hf:OWNER/NAME|no one file")
    assert not fetch.cache.exists()


def test_who_may_not_read(hub: Server, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SourceInvalid, match="is the token in HF_TOKEN allowed") as e:
        open_source("hf:me/tiny")
    assert "hf_wrong" not in str(e.value)
    monkeypatch.setenv("HF_TOKEN", "hf_two words")
    with pytest.raises(SourceInvalid, match="HF_TOKEN holds no token") as e:
        open_source("hf:me/tiny")
    assert "words" not in str(e.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SourceInvalid, match="set HF_TOKEN"):
        open_source("hf:me/tiny")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(SourceInvalid, match="api/models/me/tiny/revision/main is not there"):
        open_source("hf:me/tiny")


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"<html>", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        ([], "no commit and files"),
        ({"sha": "../../x", "siblings": []}, "no commit and files"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "../m.gguf", "size": 1}]}, "neither a GGUF"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "/etc/m.gguf", "size": 1}]}, "neither a GGUF"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "a/.ssh/m.gguf", "size": 1}]}, "neither a GGUF"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "m.gguf", "size": "1"}]}, "describes 'm.gguf'"),
        ({"sha": COMMIT, "siblings": [{"rfilename": "m.gguf", "size": 1, "lfs": {"sha256": "x"}}]}, "describes"),
    ],
)
def test_answers_that_are_none(answer: Any, match: str, hub: Server) -> None:
    hub.answers["/api/models/me/tiny/revision/main"] = answer
    with pytest.raises((SourceInvalid, NetworkError), match=match):
        open_source("hf:me/tiny")


def test_an_address(server: Server, tmp_path: Path) -> None:
    data = MODELS["f32"].write(tmp_path / "m.gguf").read_bytes()
    server.files["/models/tiny.gguf"] = data
    url = f"{server.url}/models/tiny.gguf?key=secret"
    source = open_source(url, cache=tmp_path / "cache")
    assert (source.origin.kind, source.origin.ref) == ("url", f"{server.url}/models/tiny.gguf")
    assert source.origin.sha256 == hashlib.sha256(data).hexdigest()
    assert not any(b"secret" in p.read_bytes() for p in (tmp_path / "cache").rglob("*.json"))
    server.files.clear()
    assert open_source(url, cache=tmp_path / "cache").origin == source.origin
    with pytest.raises(SourceInvalid, match=r"tiny.gguf is not there"):
        open_source(f"{server.url}/models/tiny.gguf", cache=tmp_path / "cache")
    with pytest.raises(SourceInvalid, match=r"not the address of a \.gguf file"):
        open_source(f"{server.url}/models/", cache=tmp_path / "cache")
    wrong = Recipe("tiny", "Tiny", url, "0" * 64)
    with pytest.raises(SourceInvalid, match="expected 0000"):
        open_source(url, wrong, cache=tmp_path / "cache")
    assert shown("https://u:p@host/a?b#c") == "https://host/a"


def test_a_recipe_of_the_hub_needs_no_hash(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text('id = "x"\nname = "x"\nsource = "hf:me/x"\nfile = "x.gguf"\n[sampling]\ntemperature = 0.6\n')
    recipe = load_recipe(path)
    assert (recipe.sha256, recipe.file) == (None, "x.gguf")
    assert recipe.sampling is not None and recipe.sampling.temperature == 0.6
    for text, match in (
        ("[sampling]\nheat = 1", "unknown key 'heat' in sampling"),
        ("[sampling]\ntemperature = 3", "sampling.temperature: 3"),
        ("sampling = 1", "must be a table"),
    ):
        path.write_text(f'id = "x"\nname = "x"\nsource = "hf:me/x"\n{text}')
        with pytest.raises(SourceInvalid, match=match):
            load_recipe(path)
    path.write_text('id = "x"\nname = "x"\nsource = "x.gguf"')
    with pytest.raises(SourceInvalid, match="sha256"):
        load_recipe(path)
