"""Serve a built site on this machine.

With the headers that let the page use threads, a content security policy, ranges, compression and revalidation. Any
static host does as well; without those headers the page runs on one thread. Hidden files are not served, and only
requests that call this machine by a name of its own are answered.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import InvalidRequest
from . import paths
from .csp import policy_of
from .http_request import LOOPBACK
from .static import Folder, StaticServer


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", nargs="?", metavar="FOLDER", help="what `inpage build` made (default: build/site)")
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on, and a name to answer to (default: %(default)s)"
    )
    parser.add_argument("--no-isolation", action="store_true", help="without the isolation headers, as plain hosts")
    parser.add_argument("--csp", metavar="POLICY", help="another content security policy; '' sends none")
    parser.add_argument("--verbose", action="store_true", help="log each request")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port")
    return port


def run(args: argparse.Namespace) -> int:
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
        why = f"cannot listen on {args.host}, port {args.port}: {error.strerror or error}"
        raise InvalidRequest(f"{why}; --port 0 takes a free port", field="port") from error
    if args.host not in LOOPBACK:
        print(
            f"inpage: {args.host} is open to other machines, and browsers give threads only to https or localhost",
            file=sys.stderr,
        )
    print(server.url, flush=True)
    with server:
        server.serve_forever()
    return 0
