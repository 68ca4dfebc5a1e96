"""Load models and let uvicorn serve them: in this process, or in several, each with a router of its own."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import Multiprocess

from ...format import bounded
from ...host.capability import this_device
from ...models import Models
from ...openai import Api
from ..http_request import HEAD_BYTES, LOOPBACK, Hosts
from ..progress import Progress
from .app import Access, application
from .workers import Workers

_GRACE = 5  # seconds that answers may still take when the server is asked to end
_ENVIRONMENT = "INPAGE_API"  # how a worker process learns what to serve


@dataclass(frozen=True)
class Serving:
    """``models``: folders of compiled models, the default first, which stays loaded; the others come and go.
    ``threads``: of each worker; None for a fair share of the cores. ``folder``: where several workers meet."""

    models: Sequence[str]
    host: str
    workers: int = 1
    threads: int | None = None
    trust: bool = False
    origins: Sequence[str] = ()
    verbose: bool = False
    folder: str = ""

    @property
    def access(self) -> Access:
        return Access(Hosts({self.host}), tuple(self.origins))


def serve(serving: Serving, listener: socket.socket, url: str) -> None:
    """Until a signal ends it. Errors of loading are raised; ``url`` is printed once requests are answered."""
    if serving.workers == 1:
        asyncio.run(_here(serving, listener, url))
        return
    # Once here, so that what cannot be loaded is one error, and kernels are compiled by one process.
    threads = asyncio.run(_tried(serving))
    with tempfile.TemporaryDirectory(prefix="inpage-") as folder:
        complete = replace(serving, threads=threads, folder=folder)
        os.environ[_ENVIRONMENT] = json.dumps(asdict(complete))
        listener.listen()
        print(url, flush=True)
        app = f"{__name__}:worker"
        try:
            Multiprocess(_config(app, complete, factory=True, lifespan="on", workers=serving.workers), [listener]).run()
        finally:
            del os.environ[_ENVIRONMENT]


def worker() -> ASGIApp:
    """What each of several processes runs."""
    serving = Serving(**bounded.read(os.environ[_ENVIRONMENT]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ^C goes to all of the terminal's processes: the parent ends us
    held: list[tuple[Api, Workers]] = []

    @asynccontextmanager
    async def alive() -> AsyncIterator[None]:
        async with _opened(serving) as models:
            workers = Workers(Path(serving.folder), serving.workers, models)
            async with workers.listening():
                held.append((Api(models), workers))
                yield

    return application(lambda: held[0][0], serving.access, status=lambda: held[0][1], lifespan=alive)


async def _here(serving: Serving, listener: socket.socket, url: str) -> None:
    async with _opened(serving, Progress(quiet=False)) as models:
        api = Api(models)
        server = uvicorn.Server(_config(application(lambda: api, serving.access), serving, lifespan="off"))
        listener.listen()
        print(url, flush=True)
        await server.serve([listener])


async def _tried(serving: Serving) -> int:
    """Compute threads of each worker."""
    async with _opened(serving, Progress(quiet=False)):
        return serving.threads or max(1, (await this_device()).threads // serving.workers)


@asynccontextmanager
async def _opened(serving: Serving, progress: Progress | None = None) -> AsyncIterator[Models]:
    async with Models() as models:
        for i, folder in enumerate(serving.models):
            models.add(folder, pinned=i == 0, threads=serving.threads, trust=serving.trust)
        try:
            await models.preload(on_progress=progress)
        finally:
            if progress is not None:
                progress.end()
        yield models


def _config(app: ASGIApp | str, serving: Serving, **more: Any) -> uvicorn.Config:
    logs: dict[str, Any] = copy.deepcopy(LOGGING_CONFIG)
    for handler in logs["handlers"].values():
        handler["stream"] = "ext://sys.stderr"
    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        log_config=logs,
        log_level="info" if serving.verbose else "warning",
        access_log=serving.verbose,
        proxy_headers=False,
        server_header=False,
        headers=[("Server", "inpage"), ("X-Content-Type-Options", "nosniff")],
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_graceful_shutdown=_GRACE,
        **more,
    )


def bound(host: str, port: int) -> tuple[socket.socket, str]:
    """A socket that does not listen yet, and its URL. Raises `OSError`."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    address, chosen = listener.getsockname()[:2]
    if host not in LOOPBACK:
        print(f"inpage: {host} is open to other machines, and whoever reaches it may ask", file=sys.stderr)
    return listener, f"http://{f'[{address}]' if ':' in address else address}:{chosen}/v1"
