"""A usual run of the readers in JavaScript, in Node: node/main.mjs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

NODE = Path(__file__).with_name("node")


def _run(*args: str) -> tuple[int, str]:
    done = subprocess.run(["node", str(NODE / "main.mjs"), "--seed", "0", *args], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_what_is_damaged_is_read_or_refused_in_javascript() -> None:
    code, told = _run("--documents", "60")
    assert code == 0, told[-8000:]
    counts = dict(re.findall(r"(js-[a-z-]+) (\d+)", told.splitlines()[-1]))
    assert len(counts) >= 24 and all(int(count) >= 8 for count in counts.values()), counts


def test_the_harness_tells_a_fault_in_javascript() -> None:
    code, told = _run("--faulty", "--documents", "8", "--seconds", "0.3")
    assert code == 1
    kinds = dict(re.findall(r"^fuzz: (js-[a-z-]+): (.{7})", told, re.MULTILINE))
    assert kinds == {
        "js-type-error": "untyped",
        "js-rejection": "untyped",
        "js-left-behind": "an unha",
        "js-code": "untyped",
        "js-quotes": "the mes",
        "js-field": "the fie",
        "js-endless": "no end ",
    }, told
