"""Whose place in memory may be taken, and whether a model fits beside those that stay: the registry's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import OutOfMemory
from ..settings import ModelSettings
from .entry import Entry
from .levels import Grant, Level, best_fit, needs, smallest


class Places:
    """``entries``: the registry's models by name, as they change; so may ``settings``."""

    def __init__(self, settings: ModelSettings, entries: Mapping[str, Entry]) -> None:
        self.settings, self._entries = settings, entries

    def placed(self) -> list[Entry]:
        return [e for e in self._entries.values() if e.placed]

    def pinned(self) -> list[Entry]:
        return [e for e in self._entries.values() if e.pinned]

    def idle(self) -> list[Entry]:
        """Those that could be unloaded now."""
        return [e for e in self._entries.values() if e.router is not None and not (e.uses or e.pinned or e.leaving)]

    def fixed(self) -> list[Entry]:
        """Those whose place cannot be taken now."""
        idle = self.idle()
        return [e for e in self.placed() if e not in idle]

    def possible(self, levels: Sequence[Level], others: Sequence[Entry], entry: Entry) -> tuple[bool, Grant | None]:
        """Whether it can be loaded beside these, and what it may hold then."""
        settings = self.settings
        others = [e for e in others if e is not entry and e.placed]
        if len(others) >= settings.max_loaded:
            return False, None
        if settings.target_memory is None:
            return True, None
        room = settings.target_memory - sum(e.bytes for e in others)
        share = settings.target_memory // settings.max_loaded
        grant = best_fit(levels, room, share=share, least=settings.least_context)
        return grant is not None, grant

    def within(self) -> bool:
        """Whether what is set aside is within the budget."""
        budget = self.settings.target_memory
        return budget is None or sum(e.bytes for e in self.placed()) <= budget

    def fits(self, grant: Grant | None) -> bool:
        """As things are now."""
        settings, placed = self.settings, self.placed()
        if len(placed) >= settings.max_loaded:
            return False
        budget = settings.target_memory
        return budget is None or grant is None or sum(e.bytes for e in placed) + grant.total <= budget

    def shrunk(self, settings: ModelSettings, levels: Mapping[str, Sequence[Level]]) -> dict[Entry, Grant | None]:
        """What changes where other settings come, by the models' ``levels``: who is unloaded (None), and who moves to
        another grant. Models that are idle go first, the least recently used before others; of those that answer, or
        are pinned, each moves to the best that fits beside the others. What was loaded without a budget may hold any
        number of pages, so it is loaded anew in any case. Raises `OutOfMemory` where it cannot be done."""
        budget = settings.target_memory
        if budget is None:
            return {}
        staying = sorted((e for e in self.placed() if e.leaving is None), key=lambda e: (e.bounded, e.used))
        idle = [e for e in staying if e in self.idle()]
        busy = [e for e in staying if e not in idle]
        held = {e: e.bytes if e.bounded else budget + 1 for e in staying}
        out: dict[Entry, Grant | None] = {}
        for entry in idle:
            if sum(held.values()) > budget:
                out[entry] = None
                del held[entry]
        for entry in busy:
            if sum(held.values()) <= budget:
                break
            room = budget - sum(bytes_ for other, bytes_ in held.items() if other is not entry)
            each = levels[entry.name]
            share = budget // settings.max_loaded
            grant = best_fit(each, room, share=share, least=settings.least_context)
            out[entry] = grant = grant or smallest(each, settings.least_context)
            held[entry] = grant.total
        if sum(held.values()) > budget:
            last = busy[-1]
            others = sum(held.values()) - held[last]
            raise self._beyond(settings, last, levels[last.name], others, "models that answer or are pinned")
        return out

    def lesser(self, levels: Sequence[Level], grant: Grant | None) -> str:
        """Why not the best precision runs, for people; empty where it does."""
        if grant is None or not levels or grant.level.artifact == levels[0].artifact:
            return ""
        need = needs(levels, self.settings.least_context)
        best, bytes_ = next(iter(need.items()))
        others = sum(e.bytes for e in self.placed() if e.grant is not grant)
        kept = f", {others / 1e6:.1f} MB of it taken by other models" if others else ""
        return (
            f"{grant.level.name} in place of {best}: that needs {bytes_ / 1e6:.1f} MB, and target_memory is "
            f"{(self.settings.target_memory or 0) / 1e6:.1f} MB{kept}"
        )

    def too_large(self, entry: Entry, levels: Sequence[Level]) -> OutOfMemory:
        settings = self.settings
        if not levels or len([e for e in self.pinned() if e.placed]) >= settings.max_loaded:
            return OutOfMemory(
                f"{entry.name} cannot be loaded: max_loaded is {settings.max_loaded}, and that many models are pinned; "
                "unpin one or raise max_loaded", field="models.max_loaded",
            )  # fmt: skip
        pinned = sum(e.bytes for e in self.pinned() if e is not entry)
        return self._beyond(settings, entry, levels, pinned, "pinned models")

    @staticmethod
    def _beyond(
        settings: ModelSettings, entry: Entry, levels: Sequence[Level], taken: int, by: str
    ) -> OutOfMemory:  # fmt: skip
        need = needs(levels, settings.least_context)
        each = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in need.items())
        told = f"at the smallest of its {len(need)} levels ({each}; " if len(need) > 1 else "at its only level ("
        kept = f", {taken / 1e6:.1f} MB of it taken by {by}" if taken else ""
        return OutOfMemory(
            f"{entry.name} needs {min(need.values()) / 1e6:.1f} MB {told}room for {settings.least_context} tokens), "
            f"and target_memory is {(settings.target_memory or 0) / 1e6:.1f} MB{kept}", field="models.target_memory",
        )  # fmt: skip
