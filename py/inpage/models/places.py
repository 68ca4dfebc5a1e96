"""Whose place in memory may be taken, and whether a model fits beside those that stay: the registry's arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import OutOfMemory
from ..settings import ModelSettings
from .entry import Entry
from .levels import Grant, Level, best_fit, holding, needs, smallest


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
        are pinned, each moves to the best that fits beside the others and has room for what it answers. What was loaded
        without a budget may hold any number of pages, so it is loaded anew in any case, and the most recently used has
        the choice. Raises `OutOfMemory` where it cannot be done. Only while none loads or leaves."""
        budget = settings.target_memory
        if budget is None:
            return {}
        idle = sorted(self.idle(), key=lambda e: (e.bounded, e.used))
        busy = sorted(self.fixed(), key=lambda e: (e.bounded, e.used if e.bounded else -e.used))
        held = {e: e.bytes if e.bounded else budget + 1 for e in [*idle, *busy]}
        out: dict[Entry, Grant | None] = {}
        for entry in idle:
            if sum(held.values()) > budget:
                out[entry] = None
                del held[entry]
        if sum(held.values()) <= budget:
            return out
        tokens = {e: max(settings.least_context, e.longest) for e in busy}
        able = {e: self._able(e, levels[e.name]) for e in busy}
        least = {e: smallest(able[e], tokens[e]) for e in busy}
        for i, entry in enumerate(busy):
            if sum(held.values()) <= budget:
                break
            rest, later = budget - sum(held[e] for e in busy[:i]), busy[i + 1 :]
            rooms = [  # beside the others as they are, which is not known of those without a bound, or at their least
                rest - sum(held[e] if e.bounded else least[e].total for e in later),
                rest - sum(least[e].total for e in later),
            ]
            share = budget // settings.max_loaded
            grants = [best_fit(able[entry], room, share=share, least=tokens[entry]) for room in rooms]
            out[entry] = grant = grants[0] or grants[1] or least[entry]
            held[entry] = grant.total
        if sum(held.values()) > budget:
            last = busy[-1]
            others = sum(held.values()) - held[last]
            by = "models that answer or are pinned"
            raise self._beyond(settings, last, able[last], others, by, tokens[last])
        return out

    @staticmethod
    def _able(entry: Entry, levels: Sequence[Level]) -> list[Level]:
        """Levels in which it can go on with what it answers. Raises `OutOfMemory` where there is none."""
        able = holding(levels, entry.longest)
        if not able:
            raise OutOfMemory(
                f"{entry.name} answers a conversation that needs room for {entry.longest} tokens, and none of its "
                f"levels has more than {max(level.context for level in levels)}", field="models.target_memory",
            )  # fmt: skip
        return able

    def lesser(self, entry: Entry, levels: Sequence[Level], grant: Grant | None) -> str:
        """Why not the best precision runs, for people; empty where it does."""
        if grant is None or not levels or grant.level.artifact == levels[0].artifact:
            return ""
        need = needs(levels, self.settings.least_context)
        best, bytes_ = next(iter(need.items()))
        others = sum(e.bytes for e in self.placed() if e is not entry)
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
        return self._beyond(settings, entry, levels, pinned, "pinned models", settings.least_context)

    @staticmethod
    def _beyond(
        settings: ModelSettings, entry: Entry, levels: Sequence[Level], taken: int, by: str, least: int
    ) -> OutOfMemory:  # fmt: skip
        need = needs(levels, least)
        each = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in need.items())
        told = f"at the smallest of its {len(need)} levels ({each}; " if len(need) > 1 else "at its only level ("
        kept = f", {taken / 1e6:.1f} MB of it taken by {by}" if taken else ""
        return OutOfMemory(
            f"{entry.name} needs {min(need.values()) / 1e6:.1f} MB {told}room for {least} tokens), "
            f"and target_memory is {(settings.target_memory or 0) / 1e6:.1f} MB{kept}", field="models.target_memory",
        )  # fmt: skip
