"""Several worker processes of one server, each with a router of its own: what they say of themselves together.

The system hands a connection to any of them, so that each alone would tell a scraper its own counters, now these, now
those. Each listens on a socket in a folder that they share and says there what it knows; the one that is asked asks
the others and tells all of it, by worker.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from ...format import bounded
from ...observe.health import Health

_WORSE = ("healthy", "degraded", "unhealthy")
_SECONDS = 2.0  # to wait for another worker
_BYTES = 4 << 20  # of what one says


class _Tells(Protocol):
    def metrics(self) -> str: ...
    def health(self) -> Health: ...


class Workers:
    """``count``: how many there should be."""

    def __init__(self, folder: Path, count: int, own: _Tells) -> None:
        self._folder, self._count, self._own = folder, count, own

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        path = self._folder / f"{os.getpid()}.sock"
        server = await asyncio.start_unix_server(self._tell, path)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)

    async def metrics(self) -> str:
        """Every worker's, under the label "worker"."""
        families: dict[str, list[str]] = {}
        for worker, said in await self._all():
            name = ""
            for line in said["metrics"].splitlines():
                if line.startswith("# "):
                    name = line.split(" ", 3)[2]
                    family = families.setdefault(name, [])
                    if line not in family:
                        family.append(line)
                elif line:
                    families.setdefault(name, []).append(_labelled(line, worker))
        return "".join(f"{line}\n" for family in families.values() for line in family)

    async def health(self) -> Health:
        """The worst of all, and degraded as long as one is missing."""
        each = dict(await self._all())
        reasons = [
            f"worker {worker}: {reason}" for worker, said in each.items() for reason in said["health"]["reasons"]
        ]
        rank = max(_WORSE.index(said["health"]["status"]) for said in each.values())
        if len(each) < self._count:
            rank = max(rank, 1)
            reasons.append(f"{len(each)} of {self._count} workers answer")
        return Health(_WORSE[rank], tuple(reasons), {"workers": {worker: t["health"] for worker, t in each.items()}})

    def _said(self) -> dict[str, Any]:
        return {"metrics": self._own.metrics(), "health": self._own.health().to_json()}

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(self._said()).encode())
            await writer.drain()
        except OSError:
            pass  # the worker that asked has ended
        finally:
            writer.close()

    async def _all(self) -> list[tuple[str, dict[str, Any]]]:
        """This one first; those that are gone or do not answer are left out."""
        mine = str(os.getpid())
        others = sorted(path for path in self._folder.glob("*.sock") if path.stem != mine)
        answers = await asyncio.gather(*(self._ask(path) for path in others))
        found = [(path.stem, one) for path, one in zip(others, answers, strict=True) if one is not None]
        return [(mine, self._said()), *found]

    async def _ask(self, path: Path) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(_SECONDS):
                reader, writer = await asyncio.open_unix_connection(path)
                try:
                    text = await reader.read(-1)
                finally:
                    writer.close()
            found: dict[str, Any] = bounded.read(text, _BYTES)
        except (OSError, ValueError):  # TimeoutError is an OSError
            return None
        return found


def _labelled(sample: str, worker: str) -> str:
    """A line of Prometheus text with one label more."""
    end = min(at for at in (sample.find("{"), sample.find(" ")) if at > 0)
    name, rest = sample[:end], sample[end:]
    return f'{name}{{worker="{worker}"' + (f",{rest[1:]}" if rest.startswith("{") else f"}}{rest}")
