"""How many tokens of prompts a step reads: as many as the engine takes, as long as a step stays short."""

from __future__ import annotations

from ..kv.swap_tiers import Rate

LEAST = 128  # rows, where the engine takes so many
_STEP_S = 0.1  # what a longer step may take: callers wait for its end, cancels and deadlines too
_TOLD = 64  # tokens: of fewer, most of the time is something else
_PAUSE_S = 1.0  # without a step: what was read before says nothing of what comes now


class PrefillChunk:
    """`LEAST` rows until it is known how fast this engine reads; then twice as many as long as they would take a tenth
    of a second at most.

    Only a step that answers (a token, logits) is waited for by every engine: on WebGPU the others are queued. So time
    counts from one answer to the next, the decode steps in between included, which errs towards shorter steps. How much
    context came before is not looked at."""

    def __init__(self) -> None:
        self._rate = Rate()
        self._tokens, self._began, self._ended = 0, 0.0, 0.0

    def rows(self, most: int) -> int:
        """Of a step of an engine that takes at most ``most``."""
        rows = min(LEAST, most)
        seconds = self._rate.value
        while seconds is not None and 2 * rows <= most and 2 * rows * seconds <= _STEP_S:
            rows *= 2
        return rows

    def note(self, tokens: int, began: float, ended: float, *, answered: bool) -> None:
        """A step read so many tokens, between these times in seconds."""
        if not self._tokens or began - self._ended > _PAUSE_S:
            self._tokens, self._began = 0, began
        self._tokens, self._ended = self._tokens + tokens, ended
        if answered:
            if self._tokens >= _TOLD:
                self._rate.add(self._tokens, ended - self._began)
            self._tokens = 0
