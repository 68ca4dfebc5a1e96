"""How much memory a model may take on a device that has little, where a caller says nothing of it: the system ends a
tab that takes too much, without a word, so the context is made to fit before anything is loaded."""

from __future__ import annotations

import dataclasses

from ..format.plan import parse_plan
from ..format.plan_types import Plan
from ..format.schema import Manifest
from ..host.artifact_store import Store
from ..host.capability import Device
from ..kv import Blocks
from ..settings import Settings, WasmSettings
from .selection import Choice

_PLENTY = 8 << 30  # browsers that round say so from here on
_SHARE = 4  # of the device's memory, for one tab
_SLACK = 32 << 20  # of a WebAssembly memory, beside weights, arena and KV pages


def ceiling(device: Device) -> int | None:
    """Bytes that a tab may hold; None where the device has plenty, or does not tell."""
    if device.place != "page" or device.memory is None or device.memory >= _PLENTY:
        return None
    return device.memory // _SHARE


def beyond(device: Device, manifest: Manifest) -> dict[str, str]:
    """Variants whose own weights, apart from the model's, are more than a tab may hold, and why they are left out: the
    system would end the page in which one took over."""
    most, memory, out = ceiling(device), device.memory or 0, {}
    for variant in manifest.variants:
        own = manifest.weights_of(variant)
        if most is not None and own is not manifest.weights and own.bytes > most:
            size = f"its weights of {own.bytes / 1e6:.0f} MB are too much for {memory / (1 << 30):g} GiB of memory"
            out[variant.name] = f"{size}: pin it to run it all the same"
    return out


def kv_bytes(plan: Plan, tokens: int | None = None) -> int:
    """Of one conversation of so many tokens, or of a whole context."""
    most = plan.maxima
    pages = Blocks(plan.page_tokens, plan.kv_groups).need(most.context if tokens is None else tokens, most.rows)
    return pages * plan.page_bytes


async def fitted(
    settings: Settings, device: Device, store: Store, manifest: Manifest, choice: Choice
) -> tuple[Settings, str]:
    """The settings with the ceiling's bounds, and what that costs, for people; as they are where a caller's own bound
    the memory. A conversation has room for ``models.least_context`` tokens whatever the ceiling."""
    most, kv, wasm, memory = ceiling(device), settings.kv, settings.wasm, device.memory or 0
    own = kv.memory_bytes is not None or settings.models.target_memory is not None
    if most is None or own or wasm.memory_maximum != WasmSettings().memory_maximum:
        return settings, ""
    texts = [await store.text(c.variant.files["plan"], "plan") for c in choice.ranked if "plan" in c.variant.files]
    plans = [parse_plan(text, manifest.tensors) for text in texts]
    if not plans:
        return settings, ""
    fixed = manifest.weights.bytes + max(plan.arena_bytes for plan in plans)
    context = max(plan.maxima.context for plan in plans)
    if not any(plan.page_bytes for plan in plans):  # an encoder keeps nothing
        return settings, ""
    least = max(kv_bytes(plan, min(settings.models.least_context, context)) for plan in plans)
    room = max(most - fixed, least)
    kept = dataclasses.replace(
        kv, memory_bytes=room, prefix_bytes=min(kv.prefix_bytes, room // 2), swap_bytes=min(kv.swap_bytes, room // 2)
    )
    bounded = dataclasses.replace(wasm, memory_maximum=min(wasm.memory_maximum, fixed + room + _SLACK))
    tokens = min(
        Blocks(plan.page_tokens, plan.kv_groups).room(room // plan.page_bytes, plan.maxima.rows, context)
        for plan in plans
    )
    why = ""
    if tokens < context:
        why = (
            f"This device has {memory / (1 << 30):g} GiB of memory: the context is {tokens} tokens instead of {context}"
            f", so that the model takes about {(fixed + room) / 1e6:.0f} MB; kv.memory_bytes sets another bound"
        )
    return dataclasses.replace(settings, kv=kept, wasm=bounded), why
