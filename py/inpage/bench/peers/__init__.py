"""The engines that are measured beside inpage, on the same weights, each in the forms that it runs best.

Nothing of them is part of the project or its set-up: a run fetches what it needs into its cache folder (`install`)."""

from __future__ import annotations

from collections.abc import Sequence

from ..driver import Driver, PeerFactory, Setup


async def _llama_cpp(setup: Setup) -> Sequence[Driver]:
    from .llama_cpp import drivers

    return await drivers(setup)


PEERS: dict[str, PeerFactory] = {"llama.cpp": _llama_cpp}
