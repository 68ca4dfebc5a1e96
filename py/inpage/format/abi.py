"""The binary interface of a compiled model (abi.h in Python): constants, structs, functions.

Made by format/generate.py from format/abi.toml; change that.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

ABI_VERSION: Final = 4
MAX_STOP: Final = 8  # stop token ids a sequence
HISTORY: Final = 256  # most recent tokens that penalties look at
MAX_BIAS: Final = 1024  # biased token ids a sequence
MAX_THREADS: Final = 16  # the caller's included
MAX_FUNCTIONS: Final = 16  # of one program
MAX_LAUNCHES: Final = 8192  # of all functions together
MAX_BINDINGS: Final = 32768  # buffers of all launches together
MAX_SCALARS: Final = 16384  # scalars of all launches together
LAUNCH_SCALARS: Final = 16  # scalars of one launch
SHA256_STATE_BYTES: Final = 112  # owned by the caller
SERIAL: Final = 65536  # added to the kernel of a serial launch
SCALAR_CONSTANT: Final = 0  # kind of a launch's scalar: its value
SCALAR_VARIABLE: Final = 1  # kind of a launch's scalar: the index of a variable
OK: Final = 0
E_PROGRAM: Final = -1
E_BATCH: Final = -2
E_CANCELLED: Final = -3

# What a step may use of a plan's maxima, by index.
VARIABLES: Final = ("rows", "sequences", "logit_rows")

# Words of inpage_counters: counts since load, and at last how often a thread slept and how many sleep now.
COUNTERS: Final = ("steps", "launches", "rows", "sampled", "sleeps", "asleep")

# inpage_io: where each field starts, in 32-bit words.
IO: Final[Mapping[str, int]] = {
    "token_ids": 0,
    "positions": 1,
    "row_sequence": 2,
    "block_tables": 3,
    "logit_rows": 4,
    "logits": 5,
    "vocab": 6,
    "max_rows": 7,
    "max_sequences": 8,
    "max_logit_rows": 9,
    "blocks_per_sequence": 10,
}
IO_WORDS: Final = 11

# inpage_sequence: where each field starts, in 32-bit words.
SEQUENCE: Final[Mapping[str, int]] = {
    "temperature": 0,
    "top_k": 1,
    "top_p": 2,
    "min_p": 3,
    "repetition_penalty": 4,
    "presence_penalty": 5,
    "frequency_penalty": 6,
    "seed": 7,
    "token": 9,
    "position": 10,
    "remaining": 11,
    "finished": 12,
    "reserved": 13,
    "n_stop": 14,
    "stop": 15,
    "n_bias": 23,
    "bias": 24,
    "mask": 25,
    "n_history": 26,
    "history": 27,
    "chosen": 283,
    "logprob": 284,
    "margin": 285,
}
SEQUENCE_WORDS: Final = 286
# What the runtime writes: chosen, logprob, margin.
SEQUENCE_RESULTS: Final = struct.Struct("<iff")

# inpage_score_row: where each field starts, in 32-bit words.
SCORE: Final[Mapping[str, int]] = {
    "argmax": 0,
    "nll": 1,
    "margin": 2,
}
SCORE_WORDS: Final = 3
# What the runtime writes: argmax, nll, margin.
SCORE_RESULTS: Final = struct.Struct("<iff")

# The functions that CPython calls, with the kinds of their arguments.
FUNCTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "inpage_abi_version": (),
    "inpage_load": ("pointer", "int", "pointer", "int", "pointer"),
    "inpage_set_threads": ("int",),
    "inpage_set_decoders": ("int",),
    "inpage_spin": ("int",),
    "inpage_set_spins": ("int", "int"),
    "inpage_step": ("int", "int", "int"),
    "inpage_step_launch": ("int", "int", "int", "int"),
    "inpage_step_kernel": ("int", "int", "int", "int", "int"),
    "inpage_choose_kernel": ("int", "int"),
    "inpage_sample": ("pointer", "int", "pointer", "pointer"),
    "inpage_run": ("pointer", "int", "int", "pointer", "pointer", "pointer"),
    "inpage_score": ("pointer", "int", "pointer"),
    "inpage_doorbell": (),
    "inpage_counters": (),
}
POINTERS: Final = ("inpage_doorbell", "inpage_counters")  # these return one


_PART_0 = struct.Struct("<fifffffIIiiiiiiiiiiiiiiiiii")


def _filled(values: Sequence[int], size: int) -> Sequence[int]:
    return [*values, *[0] * (size - len(values))]


def pack_sequence(
    *,
    temperature: float = 0,
    top_k: int = 0,
    top_p: float = 0,
    min_p: float = 0,
    repetition_penalty: float = 0,
    presence_penalty: float = 0,
    frequency_penalty: float = 0,
    seed: Sequence[int] = (),
    token: int = 0,
    position: int = 0,
    remaining: int = 0,
    finished: int = 0,
    reserved: int = 0,
    n_stop: int = 0,
    stop: Sequence[int] = (),
    n_bias: int = 0,
    bias: int = 0,
    mask: int = 0,
    n_history: int = 0,
    history: Sequence[int] = (),
) -> array[int]:
    """The words of one inpage_sequence. Arrays are filled with 0 and must not be longer than theirs."""
    words = array("i")
    words.frombytes(
        _PART_0.pack(
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            *_filled(seed, 2),
            token,
            position,
            remaining,
            finished,
            reserved,
            n_stop,
            *_filled(stop, 8),
            n_bias,
            bias,
            mask,
            n_history,
        )
    )
    words.extend(_filled(history, 256))
    words.extend([0] * (SEQUENCE_WORDS - len(words)))
    return words
