"""`inpage serve` against clients that mean no good: malformed requests, other people's names, slow and many ones. Each
request gets an answer that says why, over raw sockets, and no thread dies of one."""

from __future__ import annotations

import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from inpage.cli.csp import policy_of
from inpage.cli.http_request import HEAD_BYTES, LINE_BYTES, Hosts, Refused
from inpage.cli.static import Folder, Limits, StaticServer

CHECKOUT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(path.parent.name for path in (CHECKOUT / "examples").glob("*/index.html"))
DEADLINE = 20  # seconds after which something hangs
QUICK = Limits(head=0.3, idle=DEADLINE, send=DEADLINE, linger=DEADLINE)
BODY = bytes(range(256)) * 64


class Watched(StaticServer):
    """Notes what kills a thread."""

    def __init__(self, *args: object, **options: object) -> None:
        self.failures: list[BaseException | None] = []
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        self.failures.append(sys.exception())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for name in (
        "index.html",
        "w.bin",
        "app/app.js",
        ".env",
        ".git/config",
        "app/.hidden.js",
        "examples/pyscript/a.js",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(BODY)
    (root / "shown.txt").symlink_to(root / ".env")
    (root / "circle").symlink_to(root / "circle")
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Watched]:
    with Watched(Folder(root), limits=QUICK) as server:
        server.start()
        yield server
        server.shutdown()
        assert server.failures == []


def exchange(server: StaticServer, sent: bytes, *, end: bool = True) -> bytes:
    """Everything that comes back until the server closes. ``end``: the client says that no more comes."""
    with socket.create_connection(server.server_address[:2], timeout=DEADLINE) as client:  # type: ignore[arg-type]
        try:
            client.sendall(sent)
            if end:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was all sent; the answer is there
        received = b""
        while piece := client.recv(1 << 16):
            received += piece
        return received


def answer(received: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the first response."""
    head, blank, rest = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    found = re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Za-z' -]+", first)
    assert blank and found, received[:200]
    headers = dict(line.split(": ", 1) for line in lines)
    return int(found[1]), headers, rest[: int(headers.get("Content-Length", 0))]


def get(target: str, *headers: str, host: str = "localhost") -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def status(server: StaticServer, sent: bytes, *, end: bool = True) -> tuple[int, str]:
    code, _, body = answer(exchange(server, sent, end=end))
    return code, body.decode("latin-1")


def test_a_good_request_is_answered(server: Watched) -> None:
    code, headers, body = answer(exchange(server, get("/w.bin")))
    assert (code, body) == (200, BODY)
    assert headers["Content-Security-Policy"] == policy_of("w.bin")


BAD: list[tuple[bytes, int, str]] = [
    (get("/" + "a" * 3000), 404, "not found"),
    (get("/" + "a/" * 1500), 404, "not found"),
    (get("/circle"), 404, "not found"),
    (get("/circle/x"), 404, "not found"),
    (get("http://[/x"), 400, "Host"),
    (get("http://[::1/x"), 400, "Host"),
    (get("http://localhost:999999/x"), 400, "Host"),
    (get("http://user@localhost/x"), 400, "Host"),
    (get("https://localhost/x"), 400, "http://"),
    (get("http://evil.example/x"), 421, "evil.example"),
    (get("x"), 400, "begin with /"),
    (get("*"), 400, "begin with /"),
    (get("/%"), 400, "hex digits"),
    (get("/%zz"), 400, "hex digits"),
    (get("/%4"), 400, "hex digits"),
    (get("/%ff%fe"), 400, "UTF-8"),
    (get("/%ed%a0%80"), 400, "UTF-8"),
    (get("/\xfc"), 400, "percent-encoded"),
    (get("/a\tb"), 400, "percent-encoded"),
    (get("/a b"), 400, "METHOD TARGET"),
    (get("/%00"), 404, "not found"),
    (get("/%2e%2e/%2e%2e/etc/passwd"), 404, "not found"),
    (get("/..%2f..%2fetc%2fpasswd"), 404, "not found"),
    (get("/..%5c..%5cetc"), 404, "not found"),
    (get("//etc/passwd"), 404, "not found"),
    (get("/" + "a" * LINE_BYTES), 414, "request line"),
    (b"G" * (1 << 20), 414, "request line"),
    (get("/", "X: " + "a" * HEAD_BYTES), 431, "headers are larger"),
    (get("/", *[f"X{i}: {'a' * 1000}" for i in range(1000)]), 431, "headers are larger"),
    (get("/", *["X: 1"] * 200), 431, "more than"),
    (get("/", "no colon"), 400, "NAME: VALUE"),
    (get("/", ": empty"), 400, "NAME: VALUE"),
    (get("/", "X : spaced"), 400, "NAME: VALUE"),
    (get("/", "X: a", " folded"), 400, "NAME: VALUE"),
    (get("/", "X: a\0b"), 400, "NAME: VALUE"),
    (get("/", "X: a\rb"), 400, "NAME: VALUE"),
    (get("/", "Host: localhost"), 400, "twice"),
    (get("/w.bin", "Range: bytes=0-1", "Range: bytes=2-3"), 400, "twice"),
    (get("/", host=""), 400, "HOST:PORT"),
    (get("/", host="a b"), 400, "HOST:PORT"),
    (get("/", host="localhost:"), 200, ""),
    (get("/", host="localhost:99999"), 400, "HOST:PORT"),
    (b"GET / HTTP/1.1\r\n\r\n", 400, "Host header is missing"),
    (b"GET / HTTP/1.0\r\n\r\n", 400, "Host header is missing"),
    (b"GET /\r\n\r\n", 400, "METHOD TARGET"),
    (b"GET\r\n\r\n", 400, "METHOD TARGET"),
    (b"GET / HTTP/1.x\r\n\r\n", 400, "HTTP/1.1"),
    (b"GET / HTTP/11.1\r\n\r\n", 400, "HTTP/1.1"),
    (b"GET / HTTP/3.0\r\nHost: localhost\r\n\r\n", 505, "HTTP/1.1"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
    (b"G\0T / HTTP/1.1\r\n\r\n", 400, "token"),
    (b"get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "GET and HEAD"),
    (b"BREW /pot HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "GET and HEAD"),
    (b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "GET and HEAD"),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000, 405, "GET and HEAD"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "TLS"),
    (b"\xff" * 100_000, 400, "not HTTP"),
    (b"GET / HTTP/1.1\r\nHost: local", 400, "ends before"),
    (b"GET", 400, "ends before"),
]


@pytest.mark.parametrize(("sent", "code", "why"), BAD, ids=[f"{i}-{code}" for i, (_, code, _) in enumerate(BAD)])
def test_every_malformed_request_gets_an_answer_that_says_why(
    server: Watched, sent: bytes, code: int, why: str
) -> None:
    got, headers, body = answer(exchange(server, sent))
    assert (got, why in body.decode("latin-1")) == (code, True), (got, body[:200])
    assert headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    assert b"Traceback" not in body


@pytest.mark.parametrize(
    ("header", "code", "span"),
    [
        ("bytes=-" + "9" * 5000, 206, f"bytes 0-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=0" + "9" * 5000 + "-", 416, f"bytes */{len(BODY)}"),
        ("bytes=" + "9" * 5000 + "-", 416, f"bytes */{len(BODY)}"),
        ("bytes=0-" + "9" * 5000, 206, f"bytes 0-{len(BODY) - 1}/{len(BODY)}"),
        ("bytes=" + "0" * 5000 + "1-2", 206, f"bytes 1-2/{len(BODY)}"),
        ("bytes=" + "1," * 2000, 200, None),
        ("bytes==1-2", 200, None),
        ("=", 200, None),
    ],
)
def test_ranges_of_any_length(server: Watched, header: str, code: int, span: str | None) -> None:
    got, headers, _ = answer(exchange(server, get("/w.bin", f"Range: {header}")))
    assert (got, headers.get("Content-Range")) == (code, span)


SEEDS = [
    get("/w.bin", "Range: bytes=1-200", "If-Range: x", "Accept-Encoding: gzip;q=1"),
    get("/app/app.js?v=1", 'If-None-Match: "a", W/"b"'),
    get("http://localhost:80/index.html"),
    b"HEAD /%77.bin HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    b"\r\n\r\nGET / HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n",
]
PIECES = [b"%", b"\0",
          b"\r\n", b"\n", b"\r", b"://", b"[", b"]", b"..", b"%2e", b"%00", b"9" * 5000, b":", b" ", b"\xff",
          b"HTTP/", b"bytes=", b"-", b",", b"a" * 3000, b"Host: x\r\n", b"\t", b"=", b"?", b"#", b"\\"]  # fmt: skip


def mutated(source: random.Random) -> bytes:
    data = bytearray(source.choice(SEEDS))
    for _ in range(source.randrange(1, 6)):
        at = source.randrange(len(data) + 1)
        match source.randrange(5):
            case 0:
                data[at:at] = source.choice(PIECES)
            case 1:
                del data[at : at + source.randrange(1, 20)]
            case 2:
                data[at : at + 1] = bytes([source.randrange(256)])
            case 3:
                data[at:at] = data[at : at + source.randrange(1, 60)] * source.randrange(1, 40)
            case _:
                data[at : at + 4] = source.choice(PIECES)
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_no_mutation_goes_unanswered_or_kills_a_thread(server: Watched, seed: int) -> None:
    source = random.Random(seed)
    for i in range(100):
        sent = mutated(source)
        received = exchange(server, sent, end=i % 10 != 0 or sent.endswith(b"\r\n\r\n"))
        if sent.strip(b"\r\n"):
            answer(received)
        assert b"Traceback" not in received
    assert server.failures == []
    assert status(server, get("/w.bin"))[0] == 200


@pytest.mark.parametrize(
    "path", ["/.env", "/.git/config", "/app/.hidden.js", "/%2eenv", "/app/%2e/app.js", "/shown.txt", "/./w.bin"]
)
def test_hidden_files_are_not_served(server: Watched, path: str) -> None:
    assert status(server, get(path)) == (404, "not found\n")


def test_a_site_below_a_hidden_folder_is_served(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "index.html").write_text("x")
    with StaticServer(Folder(tmp_path / ".cache")) as server:
        server.start()
        assert status(server, get("/"))[0] == 200
        server.shutdown()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.1.2",
        "0.0.0.0",
        "[::2]",
        "xn--lcalhost-4za",
    ],
)
def test_a_name_that_is_not_this_servers_is_refused(server: Watched, host: str) -> None:
    code, why = status(server, get("/w.bin", host=host))
    assert code == 421 and "localhost" in why and "--host" in why


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:65535", "[::1]", "[::1]:80", "site.localhost:8000"]
)
def test_loopbacks_names_are_this_servers(server: Watched, host: str) -> None:
    assert status(server, get("/w.bin", host=host))[0] == 200


def refuses(hosts: Hosts, name: str) -> bool:
    try:
        hosts.check(name)
    except Refused as refused:
        return refused.status == 421
    return False


def test_what_it_is_bound_to_decides_its_names() -> None:
    named = Hosts({"desk.example", "10.0.0.7"})
    assert not refuses(named, "desk.example:80") and not refuses(named, "10.0.0.7")
    assert refuses(named, "localhost") and refuses(named, "10.0.0.8") and refuses(named, "other.example")
    for name in ("0.0.0.0", "::", ""):
        everywhere = Hosts({name})
        for good in ("localhost", "10.0.0.8", "[fe80::1]", socket.gethostname()):
            assert not refuses(everywhere, good), good
        assert refuses(everywhere, "evil.example")


@pytest.mark.parametrize("host", ["localhost", "::1"])
def test_it_listens_where_it_was_asked_to(host: str) -> None:
    with StaticServer({"index.html": b"x"}, host) as server:
        server.start()
        authority = server.url.removeprefix("http://").rstrip("/")
        assert status(server, get("/", host=authority))[0] == 200
        server.shutdown()


def test_the_policy_is_on_every_response(server: Watched) -> None:
    for sent in (
        get("/"),
        get("/none"),
        get("/w.bin", "Range: bytes=0-1"),
        get("/w.bin", "Range: bytes=999999-"),
        b"x\r\n\r\n",
    ):
        policy = answer(exchange(server, sent))[1]["Content-Security-Policy"]
        assert "script-src 'self' 'wasm-unsafe-eval';" in policy
        assert "frame-ancestors 'self'" in policy and "'unsafe-inline'" not in policy
    etag = answer(exchange(server, get("/w.bin")))[1]["ETag"]
    code, headers, _ = answer(exchange(server, get("/w.bin", f"If-None-Match: {etag}")))
    assert (code, "Content-Security-Policy" in headers) == (304, True)
    assert "'unsafe-eval'" in answer(exchange(server, get("/examples/pyscript/a.js")))[1]["Content-Security-Policy"]


def test_another_policy_or_none(root: Path) -> None:
    for policy in ("default-src 'none'", ""):
        with StaticServer(Folder(root), policy=lambda _, policy=policy: policy) as server:  # type: ignore[misc]
            server.start()
            assert answer(exchange(server, get("/")))[1].get("Content-Security-Policy", "") == policy
            server.shutdown()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"G", get("/w.bin")[:-1]])
def test_a_head_that_does_not_come_whole_is_told_so(server: Watched, sent: bytes) -> None:
    assert status(server, sent, end=False)[0] == 408


def test_a_head_that_trickles_has_one_deadline() -> None:
    """Not one for each byte: the server's time is over whatever still comes."""
    with StaticServer({"index.html": b"x"}, limits=Limits(head=0.3, linger=0.1)) as server:
        server.start()
        with socket.create_connection(server.server_address[:2], timeout=DEADLINE) as client:  # type: ignore[arg-type]
            client.settimeout(0.05)
            received, sent = b"", 0
            while not received and sent < DEADLINE * 20:
                client.sendall(b"G")
                sent += 1
                try:
                    received = client.recv(1 << 16)
                except TimeoutError:
                    continue
            assert answer(received)[0] == 408
        server.shutdown()


def test_a_client_that_does_not_read_is_left(tmp_path: Path) -> None:
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(1 << 28)  # more than any socket's buffer
    limits = Limits(connections=1, send=0.2, linger=0.1)
    with StaticServer(Folder(tmp_path), limits=limits) as server:
        server.start()
        with socket.create_connection(server.server_address[:2], timeout=DEADLINE) as lazy:  # type: ignore[arg-type]
            lazy.sendall(get("/w.bin"))
            assert lazy.recv(100).startswith(b"HTTP/1.1 200 ")
            wait_for(lambda: server._slots.acquire(blocking=False) and not server._slots.release())
        server.shutdown()


def wait_for(true: Callable[[], bool]) -> None:
    """As often as it takes, up to the deadline."""
    tries = threading.Event()
    for _ in range(DEADLINE * 100):
        if true():
            return
        tries.wait(0.01)
    pytest.fail("it never came")


def test_connections_are_bounded_and_idle_ones_make_room() -> None:
    limits = Limits(connections=4, head=DEADLINE, idle=DEADLINE, linger=0.1)
    with Watched({"index.html": b"x"}, limits=limits) as server:
        server.start()
        before = threading.active_count()
        idle = []
        for i in range(12):
            idle.append(socket.create_connection(server.server_address[:2], timeout=DEADLINE))  # type: ignore[arg-type]
            idle[-1].sendall(b"" if i % 2 else b"GET / HT")
        assert status(server, get("/"))[0] == 200
        assert threading.active_count() <= before + limits.connections
        for i, client in enumerate(idle[:8]):  # those that had to go
            received = client.recv(1 << 16)
            if i % 2 == 0:
                assert answer(received)[0] == 400
        for client in idle:
            client.close()
        server.shutdown()
        assert server.failures == []


def test_more_than_can_be_served_is_refused_and_not_dropped(tmp_path: Path) -> None:
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(1 << 28)
    (tmp_path / "index.html").write_text("x")
    limits = Limits(connections=2, send=DEADLINE, linger=0.1)
    with Watched(Folder(tmp_path), limits=limits) as server:
        server.start()
        busy = [socket.create_connection(server.server_address[:2], timeout=DEADLINE) for _ in range(2)]  # type: ignore[arg-type]
        for client in busy:
            client.sendall(get("/w.bin"))
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        for _ in range(3):
            code, headers, body = answer(exchange(server, get("/")))
            assert (code, headers["Retry-After"], b"in use" in body) == (503, "1", True)
        for client in busy:
            client.close()
        wait_for(lambda: status(server, get("/"))[0] == 200)
        server.shutdown()
        assert server.failures == []


def test_a_port_that_is_taken_is_said_in_one_line(root: Path) -> None:
    with StaticServer({}) as server:
        asked = [sys.executable, "-m", "inpage.cli", "serve", str(root), "--port", str(server.server_address[1])]
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--port 0" in done.stderr and str(server.server_address[1]) in done.stderr


def directives(policy: str) -> dict[str, set[str]]:
    return {words[0]: set(words[1:]) for words in (part.split() for part in policy.split(";")) if words}


@pytest.mark.parametrize("name", ["app/index.html", *(f"examples/{name}/index.html" for name in EXAMPLES)])
def test_each_page_states_a_policy_that_the_served_one_grants(name: str) -> None:
    """Both apply at once: what a page says that it needs must stand in the header too. One that a bundler's server adds
    code to only says it."""
    text = (CHECKOUT / ("web" if name.startswith("app/") else "") / name).read_text("utf-8")
    found = re.search(r'<meta http-equiv="Content-Security-Policy"\s+content="([^"]+)">', text)
    if "/src/" in text:
        found = re.search(r"Content-Security-Policy: (.+) -->", text)
    assert found, f"{name} states no policy"
    stated, sent = directives(found[1]), directives(policy_of("index.html" if name.startswith("app/") else name))
    assert stated["default-src"] == {"'none'"} and stated["script-src"] == sent["script-src"]
    for directive, sources in stated.items():
        assert sources <= sent[directive], directive
    assert not re.search(r"<script(?![^>]*(?:src=|type=\"py\"))|<style|\son\w+=|\sstyle=", text), "inline code"
