"""The engines that are measured beside inpage, on the same weights, each in the forms that it runs best.

Nothing of them is part of the project or its set-up: a run fetches what it needs into its cache folder (`install`)."""

from __future__ import annotations

from collections.abc import Sequence

from inpage.errors import Unsupported

from ..driver import Driver, PeerFactory, Setup


def _answers(setup: Setup, name: str) -> None:
    if setup.subject.manifest.embedding is not None:
        raise Unsupported(f"{name} is not asked for vectors here")


async def _llama_cpp(setup: Setup) -> Sequence[Driver]:
    from .llama_cpp import drivers

    _answers(setup, "llama.cpp")
    return await drivers(setup)


async def _wllama(setup: Setup) -> Sequence[Driver]:
    from .in_page import wllama

    _answers(setup, "wllama")
    return await wllama(setup)


async def _onnxruntime_web(setup: Setup) -> Sequence[Driver]:
    from .in_page import onnxruntime_web

    _answers(setup, "onnxruntime-web")
    return await onnxruntime_web(setup)


async def _transformers_js(setup: Setup) -> Sequence[Driver]:
    from .in_page import transformers_js

    return await transformers_js(setup)


PEERS: dict[str, PeerFactory] = {
    "llama.cpp": _llama_cpp,
    "wllama": _wllama,
    "onnxruntime-web": _onnxruntime_web,
    "transformers.js": _transformers_js,
}
