"""Serve a built site on this machine, or with --api OpenAI's interface.

With the headers that let the page use threads, a content security policy, ranges, compression and revalidation. Any
static host does as well; without those headers the page runs on one thread. Hidden files are not served, and only
requests that call this machine by a name of its own are answered. --api answers /v1/chat/completions and the rest from
this process's native engine.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..engines.native_needs import PACKAGE
from ..errors import InpageError, InvalidRequest, Unsupported
from . import paths, vendor
from .csp import policy_of
from .http_request import LOOPBACK
from .session import trust_argument
from .static import Folder, StaticServer

# What has no meaning with --api, and the other way round.
_OF_SITES: dict[str, object] = {"site": None, "no_isolation": False, "csp": None}
_OF_API: dict[str, object] = {"model": None, "workers": 1, "threads": None, "trust": False, "origin": None}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", metavar="FOLDER", help="what `inpage build` made (default: build/site)")
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, and a name to answer to (default: %(default)s)"
    )
    parser.add_argument("--no-isolation", action="store_true", help="without the isolation headers, as plain hosts")
    parser.add_argument("--csp", metavar="POLICY", help="another content security policy; '' sends none")
    parser.add_argument("--verbose", action="store_true", help="log each request")
    api = parser.add_argument_group("OpenAI's interface", "needs pip install 'inpage[api]'")
    api.add_argument("--api", action="store_true", help="serve models as OpenAI's API, below /v1, instead of a site")
    api.add_argument(
        "--model", metavar="DIR", action="append", help="a compiled model's folder or id; may come again: the first is "
        "the default and stays loaded, others are loaded when they are asked for"
    )  # fmt: skip
    api.add_argument(
        "--workers", type=_count, default=1, metavar="N", help="processes, each with a router, a queue and KV pages of "
        "its own; one batches requests best (default: %(default)s)"
    )  # fmt: skip
    api.add_argument(
        "--threads", type=_count, metavar="N", help="compute threads of each (default: a share of all cores)"
    )
    trust_argument(api)
    api.add_argument(
        "--origin", metavar="URL", action="append", help="a site whose pages may ask, such as http://localhost:5173"
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return port


def _count(text: str) -> int:
    count = int(text)
    if not 0 < count <= 64:
        raise argparse.ArgumentTypeError(f"{text} must be 1 to 64")
    return count


def run(args: argparse.Namespace) -> int:
    other = _OF_SITES if args.api else _OF_API
    for name, default in other.items():
        if getattr(args, name) != default:
            shown = "FOLDER" if name == "site" else f"--{name.replace('_', '-')}"
            args.fail(f"{shown} is not for --api" if args.api else f"{shown} is for --api")
    return _api(args) if args.api else _site(args)


def _api(args: argparse.Namespace) -> int:
    models = [str(paths.artifact(each)) for each in args.model or [None]]
    try:
        from .api.server import Serving, bound, serve
    except ModuleNotFoundError as error:
        raise Unsupported(f"--api needs {error.name}: pip install 'inpage[api]'") from error
    try:
        listener, url = bound(args.host, args.port)
    except OSError as error:
        raise _occupied(args, error) from error
    _fetch_grammars()
    serving = Serving(models, args.host, args.workers, args.threads, args.trust, args.origin or (), args.verbose)
    with listener:
        serve(serving, listener, url)
    return 0


def _fetch_grammars() -> None:
    """Once. A server without them answers all that needs none."""
    try:
        vendor.ensure_one(PACKAGE)
    except InpageError as error:
        print(f"inpage: no answer can be held to a schema or a grammar: {error}", file=sys.stderr)


def _occupied(args: argparse.Namespace, error: OSError) -> InvalidRequest:
    why = f"cannot listen on {args.host}, port {args.port}: {error.strerror or error}"
    return InvalidRequest(f"{why}; --port 0 takes a free port", field="port")


def _site(args: argparse.Namespace) -> int:
    site = Path(args.site) if args.site else paths.models().parent / "site"
    if not (site / "index.html").is_file():
        raise InvalidRequest(f"no site at {site}; make one: inpage build", field="site")
    if args.csp is not None and not (args.csp.isascii() and args.csp.isprintable()):
        raise InvalidRequest("--csp must be one line of ASCII", field="csp")
    policy = policy_of if args.csp is None else lambda _: args.csp
    try:
        server = StaticServer(
            Folder(site), args.host, args.port, isolated=not args.no_isolation, log=args.verbose, policy=policy
        )
    except OSError as error:
        raise _occupied(args, error) from error
    if args.host not in LOOPBACK:
        print(
            f"inpage: {args.host} is open to other machines, and browsers give threads only to https or localhost",
            file=sys.stderr,
        )
    print(server.url, flush=True)
    with server:
        server.serve_forever()
    return 0
