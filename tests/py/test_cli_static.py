"""The static server: what browsers rely on (types, isolation, ranges, compression, revalidation), over real sockets."""

import gzip
import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from inpage.cli.static import Folder, StaticServer, parse_range

TEXT = b"let x = 1;\n" * 1000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticServer]:
    root = tmp_path_factory.mktemp("site")
    for name, content in {
        "index.html": b"<!doctype html>",
        "app/app.js": TEXT,
        "k.wasm": b"\0asm" * 100,
        "w.bin": bytes(range(256)) * 4,
        "m.mjs": b"export {}",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    (root.parent / "secret.txt").write_text("no")
    (root / "out.txt").symlink_to(root.parent / "secret.txt")
    server = StaticServer(Folder(root))
    server.start()
    yield server
    server.shutdown()
    server.server_close()


def ask(server: StaticServer, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)  # type: ignore[arg-type]
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/app/app.js?v=1", "text/javascript; charset=utf-8"),
        ("/m.mjs", "text/javascript; charset=utf-8"),
        ("/k.wasm", "application/wasm"),
        ("/w.bin", "application/octet-stream"),
    ],
)
def test_type_and_isolation(server: StaticServer, path: str, kind: str) -> None:
    response, _ = ask(server, path)
    assert response.status == 200
    assert response.headers["Content-Type"] == kind
    assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_no_isolation_when_asked() -> None:
    with StaticServer({"index.html": b"x"}, isolated=False) as server:
        server.start()
        response, body = ask(server, "/")
        server.shutdown()
    assert body == b"x"
    assert "Cross-Origin-Embedder-Policy" not in response.headers


@pytest.mark.parametrize(
    "path", ["/none", "/../secret.txt", "/%2e%2e/secret.txt", "/app/..%2f..%2fsecret.txt", "/out.txt", "/app", "/a%00b"]
)
def test_nothing_outside(server: StaticServer, path: str) -> None:
    response, body = ask(server, path)
    assert (response.status, body) == (404, b"not found\n")


def test_compression(server: StaticServer) -> None:
    response, body = ask(server, "/app/app.js", Accept_Encoding="br, gzip;q=0.8")
    assert response.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == TEXT
    assert response.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in ask(server, "/app/app.js", Accept_Encoding="gzip;q=0, br")[0].headers
    assert "Content-Encoding" not in ask(server, "/w.bin", Accept_Encoding="gzip")[0].headers


def test_revalidation(server: StaticServer) -> None:
    plain, _ = ask(server, "/app/app.js")
    packed, _ = ask(server, "/app/app.js", Accept_Encoding="gzip")
    assert plain.headers["ETag"] != packed.headers["ETag"]
    response, body = ask(server, "/app/app.js", If_None_Match=f'"other", W/{plain.headers["ETag"]}')
    assert (response.status, body) == (304, b"")
    assert ask(server, "/app/app.js", If_None_Match='"other"')[0].status == 200


def test_ranges(server: StaticServer) -> None:
    whole = bytes(range(256)) * 4
    response, body = ask(server, "/w.bin", Range="bytes=1000-")
    assert (response.status, body) == (206, whole[1000:])
    assert response.headers["Content-Range"] == "bytes 1000-1023/1024"
    assert ask(server, "/w.bin", Range="bytes=0-9")[1] == whole[:10]
    assert ask(server, "/w.bin", Range="bytes=-4")[1] == whole[-4:]
    response, _ = ask(server, "/w.bin", Range="bytes=1024-")
    assert response.status == 416
    assert response.headers["Content-Range"] == "bytes */1024"
    etag = ask(server, "/w.bin")[0].headers["ETag"]
    assert ask(server, "/w.bin", Range="bytes=0-9", If_Range=etag)[0].status == 206
    response, body = ask(server, "/w.bin", Range="bytes=0-9", If_Range='"older"')
    assert (response.status, body) == (200, whole)
    # A range of a text is a range of the text, not of its compressed form.
    assert ask(server, "/app/app.js", Range="bytes=4-4", Accept_Encoding="gzip")[1] == b"x"


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=90-200", (90, 100)),
        ("bytes=-200", (0, 100)),
        ("bytes=-0", "unsatisfiable"),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("bytes=a-b", None),
        ("bytes=-", None),
        ("items=0-1", None),
        ("bytes=²-", None),
    ],
)
def test_parse_range(header: str, span: object) -> None:
    assert parse_range(header, 100) == span


def test_methods(server: StaticServer) -> None:
    response, body = ask(server, "/w.bin", method="HEAD")
    assert (response.status, response.headers["Content-Length"], body) == (200, "1024", b"")
    response, _ = ask(server, "/w.bin", method="POST")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_keep_alive(server: StaticServer) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)  # type: ignore[arg-type]
    for path, status in (("/w.bin", 200), ("/none", 404), ("/k.wasm", 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_changed_file_is_sent_anew(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([1]))
    with StaticServer(Folder(tmp_path)) as server:
        server.start()
        first, _ = ask(server, "/a.json", Accept_Encoding="gzip")
        (tmp_path / "a.json").write_text(json.dumps([1, 2]))
        second, body = ask(server, "/a.json", Accept_Encoding="gzip", If_None_Match=first.headers["ETag"])
        server.shutdown()
    assert (second.status, json.loads(gzip.decompress(body))) == (200, [1, 2])
