"""The table that grows in the terminal while a run goes on: engines down, scenarios across. On a terminal it renews
itself; elsewhere a line is written for each cell that is finished, and the table once at the end."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TextIO

from .outcome import headline
from .results import Results

_LEAST = 13  # characters of a column


class Board:
    """Writes to ``out``, stderr by default."""

    def __init__(self, results: Results, scenarios: list[str], *, out: TextIO | None = None) -> None:
        self._results = results
        self._scenarios = scenarios
        self._out = sys.stderr if out is None else out
        self._tty = self._out.isatty()
        self._lines = 0
        self._began = time.monotonic()
        self._told: set[tuple[int, str, str]] = set()
        self._status = ""

    def tell(self, engine: str, what: str) -> None:
        """What is being done."""
        self._status = f"{engine}: {what}"
        if self._tty:
            self._draw()

    def cell(self, engine: int, scenario: str) -> None:
        """A cell has news."""
        if self._tty:
            self._draw()
            return
        found = [c for c in self._results.cells if c.engine == engine and c.scenario == scenario]
        if found and (told := (engine, scenario, headline(found[-1]))) not in self._told:
            self._told.add(told)
            self._print(f"{self._clock()} {self._results.engines[engine].name}: {scenario}  {headline(found[-1])}")

    def note(self, text: str) -> None:
        """A line that stays."""
        self._wipe()
        self._print(f"{self._clock()} {text}")
        if self._tty:
            self._draw()

    def end(self) -> None:
        """The table as it is now, for good."""
        self._wipe()
        self._lines = 0
        for line in self.table():
            self._print(line)

    def table(self, width: int | None = None) -> list[str]:
        """As many columns side by side as fit."""
        results = self._results
        width = width or shutil.get_terminal_size((120, 24)).columns
        names = [engine.name for engine in results.engines]
        stub = max([len(name) for name in names] + [6])
        cells = {(cell.engine, cell.scenario): headline(cell) for cell in results.cells}
        blocks: list[list[tuple[str, int, list[str]]]] = [[]]
        used = stub
        heats = ["heat"] if any(cell.scenario == "heat" for cell in results.cells) else []
        for scenario in [*heats, *self._scenarios]:
            column = [cells.get((i, scenario), "") for i in range(len(names))]
            wide = max([len(scenario), _LEAST] + [len(text) for text in column]) + 2
            if blocks[-1] and used + wide > width:
                blocks.append([])
                used = stub
            blocks[-1].append((scenario, wide, column))
            used += wide
        lines = []
        for block in blocks:
            lines.append(" " * stub + "".join(f"{scenario:>{wide}}" for scenario, wide, _ in block))
            for i, name in enumerate(names):
                error = results.engines[i].error
                row = f"  {error}" if error else "".join(f"{column[i]:>{wide}}" for _, wide, column in block)
                lines.append(f"{name:<{stub}}{row}"[:width].rstrip())
            lines.append("")
        return lines[:-1]

    def _draw(self) -> None:
        self._wipe()
        columns, rows = shutil.get_terminal_size((120, 24))
        lines = [*self.table(columns), f"{self._clock()} {self._status}"[: columns - 1]]
        lines = lines[-(rows - 1) :]
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()
        self._lines = len(lines)

    def _wipe(self) -> None:
        if self._lines:
            self._out.write(f"\x1b[{self._lines}F\x1b[J")
            self._lines = 0

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"[{seconds // 60:2}:{seconds % 60:02}]"
