"""``python -m fuzz --minutes 10``: every reader in turn, from a seed that is told; ``--number`` runs one document.
Those in JavaScript (their names begin with "js-") run beside them, in Node."""

from __future__ import annotations

import argparse
import collections
import random
import subprocess
import sys
import time
from pathlib import Path

from .harness import Fault, Runner
from .readers import READERS

_TURN = 200  # documents of a reader before the next one's
_NODE = Path(__file__).with_name("node") / "main.mjs"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--reader", action="append", help="only these")
    parser.add_argument("--number", type=int, help="this document alone")
    args = parser.parse_args()
    names = {reader.name for reader in READERS}
    named = args.reader or ["js-", *names]
    chosen = [reader for reader in READERS if reader.name in named]
    foreign = [name for name in named if name.startswith("js-")]
    if unknown := set(named) - names - set(foreign):
        parser.error(f"unknown readers {', '.join(unknown)}; there are {', '.join(names)} and those of {_NODE.name}")
    runners = [Runner(reader, args.seed) for reader in chosen]
    in_node = ["--minutes", str(args.minutes), "--seed", str(args.seed)]
    in_node += [f"--reader={name}" for name in foreign if name != "js-"]
    in_node += [] if args.number is None else ["--number", str(args.number)]
    node = subprocess.Popen(["node", str(_NODE), *in_node]) if foreign else None
    if not chosen:
        return node.wait() if node else 0
    if args.number is not None:
        for runner in runners:
            print(ascii(runner.document(args.number))[:20000])
            runner.one(args.number)
        return 0
    end, told = time.monotonic() + args.minutes * 60, time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    faults: dict[str, int] = {}
    print(f"fuzz: {len(runners)} readers, seed {args.seed}", flush=True)
    while time.monotonic() < end:
        for runner in runners:
            began = time.monotonic()
            for _ in range(_TURN):
                number = counts[runner.reader.name]
                counts[runner.reader.name] += 1
                try:
                    runner.one(number)
                except Fault as fault:
                    _tell(runner, number, fault, faults)
                if time.monotonic() - began > 5 or time.monotonic() > end:
                    break
            if time.monotonic() - told > 10:
                told = time.monotonic()
                print(f"fuzz: {counts.total()} documents, {len(faults)} faults", flush=True)
    print(
        f"fuzz: {counts.total()} documents ({', '.join(f'{n} {c}' for n, c in counts.items())}), {len(faults)} faults"
    )
    return 1 if (node and node.wait()) or faults else 0


def _tell(runner: Runner, number: int, fault: Fault, faults: dict[str, int]) -> None:
    """The first of each kind: where it came from, without what it was given."""
    lines = [line for line in str(fault).splitlines() if line.startswith('  File "')]
    kind = f"{runner.reader.name} {str(fault)[:22]} {lines[-1:]}"
    faults[kind] = faults.get(kind, 0) + 1
    if faults[kind] == 1:
        told = f"\nfuzz: {runner.reader.name}: {fault}\n  {runner.reproducer(number)}"
        print(told.encode("ascii", "backslashreplace").decode(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
