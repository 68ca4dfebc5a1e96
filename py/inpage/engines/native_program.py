"""Loads a plan's program into a native library; checks that the model fits into this machine's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ..errors import ArtifactInvalid, OutOfMemory
from ..format.plan_types import Plan
from ..format.plan_views import encode_io, encode_program
from .mapping import available_bytes
from .native_library import address


def load_program(lib: ctypes.CDLL, plan: Plan, place: Callable[[int, Any], int]) -> None:
    """``place``: the address of a buffer, by its number and what the plan says of it."""
    addresses = [place(i, buffer) for i, buffer in enumerate(plan.buffers)]
    table = (ctypes.c_void_p * len(addresses))(*addresses)
    program = encode_program(plan)
    io = encode_io(plan)
    if lib.inpage_load(table, len(addresses), address(program), len(program), address(io)) != 0:
        raise ArtifactInvalid("kernels.so refuses the plan's program: they do not belong together", field="plan")


def kind_of(plan: Plan) -> dict[str, Any]:
    """What an engine's facts say of a plan without a KV cache."""
    return {} if plan.paged else {"paged": False, "logprobs": False, "embeds": True, "width": plan.width}


def check_room(weights: int, plan: Plan) -> None:
    """Raise `OutOfMemory` where weights, arena and KV pages for one sequence's first tokens are more than there is."""
    need, free = weights + plan.arena_bytes + plan.page_bytes, available_bytes()
    if need > free:
        raise OutOfMemory(
            f"needs {need} bytes ({weights} of weights, {plan.arena_bytes} of arena, {plan.page_bytes} of KV for "
            f"{plan.page_tokens} tokens); {free} bytes of this machine's memory are available",
            field="weights",
        )
