"""The same documents for Python and JavaScript: what Python refuses of a manifest or a plan, JavaScript refuses too.
The other way, only what is listed here: JavaScript runs plans, and its engines take less than a plan may have."""

from __future__ import annotations

import atexit
import base64
import json
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from inpage.errors import ArtifactInvalid
from inpage.format.manifest import parse_manifest, revision_of
from inpage.format.plan import parse_plan
from inpage.format.plan_views import check_for_webgpu
from inpage.format.schema import Tensor
from support.corpus import corpus

from .harness import Fault, Reader
from .mutate import Mutator

_MANIFEST, _PLAN = corpus("manifest")["good"], corpus("plan")
_TENSORS = [Tensor(**{**t, "shape": tuple(t["shape"])}) for t in _PLAN["tensors"]]
_PLANS = list(_PLAN["good"].values())
_VARIANT = "wasm-simd"
_AGREE = Path(__file__).with_name("node") / "agree.mjs"

# Where JavaScript alone refuses, and why.
STRICTER = {
    r"^variant$": "the variant that is asked for is not there, which is for Python to choose",
    r"^plan$": "it is not UTF-8: Python reads UTF-16 and UTF-32 as well",
    r"^plan\.kernels\[\d+\]\.workgroup$": "the WebGPU engine needs workgroups",
    r"^plan\.arenas$": "the WASM engine has one arena",
    r"^plan\.buffers$": "the WASM engine has one KV buffer",
    r"^plan\.buffers\[\d+\]$": "what lies beyond the 4 GiB that WebAssembly addresses",
}


@dataclass(frozen=True)
class Told:
    accepted: bool
    code: str | None = None
    field: str | None = None
    message: str = ""


@cache
def _javascript() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        ["node", str(_AGREE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    atexit.register(process.kill)
    return process


def ask(kind: str, text: bytes, name: str) -> Told:
    """What JavaScript says of it."""
    process = _javascript()
    assert process.stdin and process.stdout
    line = json.dumps({"kind": kind, "text": base64.b64encode(text).decode(), "name": name})
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return Told(**json.loads(process.stdout.readline()))


def _python(kind: str, text: bytes, name: str) -> ArtifactInvalid | None:
    try:
        if kind == "manifest":
            parse_manifest(text)
        else:
            plan = parse_plan(text, _TENSORS)
            if name == "webgpu":
                check_for_webgpu(plan)
    except ArtifactInvalid as error:
        return error
    return None


def _make(m: Mutator) -> tuple[str, bytes, str]:
    if m.rng.random() < 0.5:
        kind, name, document = "manifest", _VARIANT, m.value(_MANIFEST, [_MANIFEST])
        if isinstance(document, dict):
            # As bytes say it: what the text reads as is what is hashed.
            read = json.loads(json.dumps(document))
            read["revision"] = revision_of(read)
            document = read
    else:
        kind, name, document = "plan", m.rng.choice(("wasm", "webgpu")), m.value(m.rng.choice(_PLANS), _PLANS)
    text = json.dumps(document, ensure_ascii=m.rng.random() < 0.7)
    if kind == "plan" and m.rng.random() < 0.2:
        text = m.text(text)
    # A manifest comes to both as text, decoded by the browser; a plan as bytes.
    return kind, text.encode("utf-8", "replace" if kind == "manifest" else "surrogatepass"), name


def _agree(given: tuple[str, bytes, str]) -> None:
    refused, told = _python(*given), ask(*given)
    if not told.accepted and told.code not in ("artifact_invalid", "unsupported"):
        raise Fault(f"untyped in JavaScript: {told}")
    # The hash of a manifest's content, which no other field depends on, is for Python alone.
    if refused is not None and refused.field != "revision" and told.accepted:
        raise Fault(f"JavaScript accepts what Python refuses: {refused}")
    if refused is None and not told.accepted and not stricter(told):
        raise Fault(f"Python accepts what JavaScript refuses: {told}")


def stricter(told: Told) -> str | None:
    """Why JavaScript may refuse it all the same."""
    return next((why for place, why in STRICTER.items() if re.search(place, told.field or "")), None)


READERS = [Reader("agreement", _make, _agree)]
