"""The order of the house: an import goes down to a lower floor or stays on its own, and no modules import each other in
a circle. Imports for types alone count too, but not in circles on one floor. `make lint` runs it.

A floor is a package, a folder of one, or a module beside them; rooms on one floor, with | between them, do not import
each other. What the command line loads by name is not seen here.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("py", "compile", "bench")

# From the ground up.
FLOORS = (
    "inpage.errors",
    "inpage.format",
    "inpage.settings",
    "inpage.host",
    "inpage.text",
    "inpage.json_schema",
    "inpage.engines",
    "inpage.requests",
    "inpage.observe",
    "inpage.responses",
    "inpage.kv",
    "inpage.backends",
    "inpage.scheduling",
    "inpage.router",
    "inpage.models",
    "inpage.openai",
    "inpage.worker",
    "inpage",
    "inpage.tokenizer",
    "inpage_compile.gguf",
    "inpage_compile.onnx",
    "inpage_compile.checkpoints",
    "inpage_compile.quantize",
    "inpage_compile.kernels",
    "inpage_compile.kernels.shared",
    "inpage_compile.kernels.cpu | inpage_compile.kernels.webgpu",
    "inpage_compile.ops",
    "inpage_compile.families",
    "inpage_compile.tokenizers",
    "inpage_compile.sources",
    "inpage_compile.lowering",
    "inpage_compile.passes",
    "inpage_compile.targets",
    "inpage_compile.artifact",
    "inpage_compile.measure",
    "inpage_compile.pruning",
    "inpage_compile",
    "inpage.cli",
    "inpage_bench",
    "inpage.bench",
)

# The same for JavaScript, whose types in comments are not looked at.
SCRIPTS = (
    "web/engine/format",
    "web/engine/host",
    "web/engine/storage",
    "web/engine/core",
    "web/engine/grammar",
    "web/engine/wasm | web/engine/webgpu",
    "web/engine/sequential",
    "web/engine/onnx | web/engine/mlc",
    "web/engine",
    "web/router",
    "web/client",
    "web/app | web/bench",
)
_IMPORT = re.compile(r"""^(?:import|export) [^"'`]*?["'](\.[^"']+)["']|\bimport\(["'](\.[^"']+)["']\)""", re.M)


def modules() -> dict[str, Path]:
    found = {}
    for source in SOURCES:
        for path in sorted((ROOT / source).rglob("*.py")):
            parts = path.relative_to(ROOT / source).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, bool]]:
    """The modules of the house that a module imports, anywhere in it, and whether for types alone."""
    tree = ast.parse(path.read_text("utf-8"))
    blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    types = {id(inner) for block in blocks for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in types) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
            above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            for alias in node.names:
                name = f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
                if name in known:
                    yield name, id(node) in types


ROOMS = {room: height for height, floor in enumerate(FLOORS) for room in floor.split(" | ")}


def room(module: str) -> str:
    """The longest name in `ROOMS` that the module is or lies in; none for a folder of `inpage` that is not there."""
    parts = module.split(".")
    for n in range(len(parts), 0, -1):
        name = ".".join(parts[:n])
        if name in ROOMS and (name != "inpage" or n == len(parts)):
            return name
    return ""


def scripts() -> list[str]:
    """What is wrong between the folders of JavaScript."""
    heights = {room: height for height, floor in enumerate(SCRIPTS) for room in floor.split(" | ")}
    wrong = []

    def within(path: str) -> str:
        return max((room for room in heights if path.startswith(room + "/")), key=len, default="")

    for room in heights:
        for file in sorted((ROOT / room).rglob("*.js")):
            path = file.relative_to(ROOT).as_posix()
            if within(path) != room or "/vendor/" in path:
                continue
            code = re.sub(r"/\*.*?\*/", "", file.read_text("utf-8"), flags=re.S)
            for found in _IMPORT.finditer(code):
                other = posixpath.normpath(posixpath.join(posixpath.dirname(path), found[1] or found[2]))
                there = within(other)
                if there and there != room and heights[there] >= heights[room]:
                    wrong.append(f"{path} imports {other}, which is on a higher floor or in another room")
    return wrong


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One way round, or nothing."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            found = walk(other, [*way, module])
            if found:
                return found
        done.add(module)
        return []

    return next((found for module in graph if (found := walk(module, []))), [])


def main() -> int:
    known = modules()
    graph: dict[str, set[str]] = {module: set() for module in known}
    wrong = scripts()
    for module, path in known.items():
        if not room(module):
            wrong.append(f"{module} is on no floor: FLOORS in tools/floors.py has the order")
            continue
        here = room(module)
        for other, for_types in sorted(set(imports(module, path, known))):
            there = room(other)
            if there and (ROOMS[there] > ROOMS[here] or (ROOMS[there] == ROOMS[here] and there != here)):
                wrong.append(f"{module} imports {other}, which is on a higher floor or in another room")
            if other != module and not (for_types and there == here):
                graph[module].add(other)
    round_trip = circle(graph)
    if round_trip:
        wrong.append(f"a circle: {' → '.join(round_trip)}")
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
