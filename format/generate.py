"""The contract of three languages, written from one source.

`abi.toml` (the binary interface), `limits.toml` (how large anything may be), `plan.toml` and `manifest.toml` (the
structure of an artifact's two documents) become what C, JavaScript and Python read: run this when one has changed.
``--check`` writes nothing and fails where a file is not what it would be.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
C_HEADER = "compile/inpage_compile/runtime/abi.h"
JS_ABI, JS_LIMITS, JS_STRUCTURE = (
    "web/engine/format/abi.js",
    "web/engine/format/limits.js",
    "web/engine/format/schemas.js",
)
PY_ABI, PY_LIMITS, PY_STRUCTURE = "py/inpage/format/abi.py", "py/inpage/format/limits.py", "py/inpage/format/schemas.py"
WIDTH = 120
MADE = "made by format/generate.py from format/{}; change that"

Json = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is out of date")
    check = parser.parse_args(arguments).check
    old = [name for name, text in files() if not _is(ROOT / name, text, write=not check)]
    if check and old:
        print(f"out of date: {', '.join(old)}: run python format/generate.py", file=sys.stderr)
    return 1 if check and old else 0


def files() -> Iterator[tuple[str, str]]:
    """Every file that is made, with its text."""
    abi, limits = _toml("abi"), _toml("limits")
    yield C_HEADER, c_header(abi)
    yield JS_ABI, js_abi(abi)
    yield PY_ABI, _formatted(py_abi(abi))
    yield JS_LIMITS, js_limits(limits)
    yield PY_LIMITS, _formatted(py_limits(limits))
    constants = {name: c["value"] for source in (abi, limits) for name, c in source["constants"].items()}
    constants |= {name: entry["names"] for name, entry in abi["lists"].items()}
    constants |= {f"files.{kind}": size for kind, size in limits["files"].items()}
    schemas = {name.upper(): resolve(_toml(name), constants) for name in ("manifest", "plan")}
    yield JS_STRUCTURE, js_schemas(schemas)
    yield PY_STRUCTURE, _formatted(py_schemas(schemas))


def _toml(name: str) -> Json:
    return tomllib.loads((HERE / f"{name}.toml").read_text("utf-8"))


def _is(path: Path, text: str, *, write: bool) -> bool:
    same = path.is_file() and path.read_text("utf-8") == text
    if not same and write:
        path.write_text(text, "utf-8")
    return same


def _formatted(text: str) -> str:
    """Python as `make lint` wants it."""
    ruff = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml"), "-"]
    return subprocess.run(ruff, input=text, capture_output=True, text=True, check=True).stdout


# Structs.


def words(field: Json, constants: Mapping[str, Json]) -> int:
    count = field.get("count", 1)
    return int(constants[count]["value"]) if isinstance(count, str) else int(count)


def offsets(fields: Sequence[Json], constants: Mapping[str, Json]) -> tuple[dict[str, int], int]:
    """Where each field starts, in words, and how many words there are."""
    at, out = 0, {}
    for field in fields:
        out[field["name"]] = at
        at += words(field, constants)
    return out, at


# C.


def c_comment(text: str) -> str:
    lines = text.strip().split("\n")
    if len(lines) == 1 and len(lines[0]) > WIDTH - 6:
        lines = textwrap.wrap(lines[0], WIDTH - 3)
    return "/* " + "\n * ".join(lines).replace("\n * \n", "\n *\n") + " */"


def c_header(abi: Json) -> str:
    constants = abi["constants"]
    out = [c_comment(abi["about"].strip() + "\n\n" + MADE.format("abi.toml").capitalize() + ".")]
    out += ["#ifndef INPAGE_ABI_H", "#define INPAGE_ABI_H", "#include <stdint.h>", ""]
    for name, c in constants.items():
        about = f" /* {c['about']} */" if "about" in c else ""
        value = f"({c['value']})" if c["value"] < 0 else c["value"]
        out.append(f"#define INPAGE_{name} {value}{about}")
    out += [
        "",
        "/* Kernels as TVM compiles them, behind trampolines: buffers in the launch's order, then its scalars. */",
        "typedef void (*inpage_kernel)(void *const *buffers, const int32_t *scalars, int32_t thread, int32_t threads);",
        "extern const inpage_kernel inpage_kernels[];",
        "extern const int32_t inpage_kernel_shares[]; /* that the work for one row is worth cutting into */",
        "extern const int32_t inpage_kernel_count;",
        "",
        c_comment(abi["program"]["about"]),
    ]
    for name, entry in abi["lists"].items():
        items = [f"INPAGE_{entry['prefix']}_{item.upper()} = {i}" for i, item in enumerate(entry["names"])]
        body = textwrap.fill(", ".join([*items, f"INPAGE_{name} = {len(items)}"]), WIDTH - 2)
        out += ["", c_comment(entry["about"]), "enum {", textwrap.indent(body, "  "), "};"]
    for name, struct in abi["structs"].items():
        out += ["", c_comment(struct["about"]), "typedef struct {"]
        for field in struct["fields"]:
            kind = field["type"] if field["type"] == "float" else f"{field['type']}_t"
            count = field.get("count")
            array = "" if count is None else f"[{'INPAGE_' if isinstance(count, str) else ''}{count}]"
            line = f"  {kind} {field['name']}{array};"
            if "about" in field:
                line += f" /* {field['about']} */"
            out += [line] if len(line) <= WIDTH else [f"  /* {field['about']} */", line.split(" /*")[0]]
        out.append(f"}} inpage_{name};")
    for f in abi["functions"]:
        if "about" in f:
            out += ["", c_comment(f["about"])]
        returns = f.get("returns", "int32_t")
        returns += "" if returns.endswith("*") else " "
        out += [f"{returns}{f['name']}({', '.join(f.get('arguments', ['void']))});"]
    return "\n".join([*out, "#endif", ""])


# JavaScript.


def js_abi(abi: Json) -> str:
    constants = abi["constants"]
    made = MADE.format("abi.toml")
    out = [
        "/**",
        " * @file The binary interface of kernels.wasm (abi.h in JavaScript): constants, structs, functions.",
        " * The executor compares ABI_VERSION with what the loaded module says before it relies on any of them.",
        f" * {made.capitalize()}.",
        " */",
        "",
    ]
    for name, c in constants.items():
        out += [*_js_about(c), f"export const {name} = {c['value']};"]
    for name, entry in abi["lists"].items():
        out += ["", f"/** {entry['about']} */", f"export const {name} = Object.freeze({json.dumps(entry['names'])});"]
    for name, struct in abi["structs"].items():
        at, size = offsets(struct["fields"], constants)
        out += ["", f"/** inpage_{name}: offsets in 32-bit words. Floats are marked (f). */"]
        short = struct.get("short", name).upper()
        out.append(f"export const {short} = Object.freeze({{")
        for field in struct["fields"]:
            marks = ["(f)"] * (field["type"] == "float")
            if words(field, constants) > 1:
                marks.append(f"{field['count']} words")
            out.append(f"  {field['name']}: {at[field['name']]},{' // ' + ' '.join(marks) if marks else ''}")
        out += ["});", f"export const {short}_WORDS = {size};"]
    out += ["", "/**", " * What kernels.wasm exports.", " * @typedef {object} KernelExports"]
    out += [" * @property {WebAssembly.Global} __heap_base", " * @property {WebAssembly.Global} __stack_pointer"]
    for f in abi["functions"]:
        names = [re.sub(r"\[.*", "", a).replace("*", " ").split()[-1] for a in f.get("arguments", [])]
        arguments = ", ".join(f"{_camel(n)}: number" for n in names)
        returns = "void" if f.get("returns") == "void" else "number"
        out.append(f" * @property {{({arguments}) => {returns}}} {f['name']}")
    out += [
        " */",
        "",
        "/** Functions that must be there, so that a wrong module is refused by name and not by a crash. */",
    ]
    out += ["export const EXPORTED_FUNCTIONS = Object.freeze(["]
    out += [f'  "{f["name"]}",' for f in abi["functions"]]
    return "\n".join([*out, "]);", ""])


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


def _js_about(c: Json) -> list[str]:
    return [f"/** {c['about'][0].upper()}{c['about'][1:]}. */"] if "about" in c else []


def js_limits(limits: Json) -> str:
    out = [
        "/**",
        " * @file How much of everything is read, and how large it may be, before it is refused: what is beyond is an",
        f" * attack or damage, and memory must stay flat. {MADE.format('limits.toml').capitalize()}.",
        " */",
        "",
        "/** Bytes of each kind of file. */",
        "export const FILE_BYTES = Object.freeze({",
        *[f"  {kind}: {size}," for kind, size in limits["files"].items()],
        "});",
    ]
    for name, c in limits["constants"].items():
        out += [*_js_about(c), f"export const {name} = {c['value']};"]
    return "\n".join([*out, ""])


def js_schemas(schemas: Mapping[str, Json]) -> str:
    out = [
        "/**",
        " * @file The structure of an artifact's documents, for structure.js.",
        f" * {MADE.format('plan.toml and manifest.toml').capitalize()}.",
        " */",
    ]
    for name, objects in schemas.items():
        out += ["", "/** @type {import('./structure.js').Schema} */".replace("'", '"'), f"export const {name} = {{"]
        for key, fields in objects.items():
            out.append(f"  {json.dumps(key)}: {{")
            out += [f"    {json.dumps(field)}: {json.dumps(rule)}," for field, rule in fields.items()]
            out.append("  },")
        out.append("};")
    return "\n".join([*out, ""])


# Python.

_LETTERS = {"int32": "i", "uint32": "I", "float": "f"}
_SMALL = 16  # an array of more words is not packed, but appended


def py_abi(abi: Json) -> str:
    constants = abi["constants"]
    made = MADE.format("abi.toml")
    out = [
        '"""The binary interface of a compiled model (abi.h in Python): constants, structs, functions.',
        "",
        f"{made.capitalize()}.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import struct",
        "from array import array",
        "from collections.abc import Mapping, Sequence",
        "from typing import Final",
        "",
    ]
    out += [_py_constant(name, c) for name, c in constants.items()]
    for name, entry in abi["lists"].items():
        out += ["", *[f"# {line}" for line in textwrap.wrap(entry["about"], WIDTH - 2)]]
        out.append(f"{name}: Final = {_tuple(entry['names'])}")
    for name, s in abi["structs"].items():
        at, size = offsets(s["fields"], constants)
        out += ["", f"# inpage_{name}: where each field starts, in 32-bit words."]
        short = s.get("short", name).upper()
        out += [f"{short}: Final[Mapping[str, int]] = {{", *[f'    "{k}": {v},' for k, v in at.items()], "}"]
        out.append(f"{short}_WORDS: Final = {size}")
        results = [f for f in s["fields"] if f.get("result")]
        if results:
            letters = "".join(_LETTERS[f["type"]] for f in results)
            out += [f"# What the runtime writes: {', '.join(f['name'] for f in results)}."]
            out += [f'{short}_RESULTS: Final = struct.Struct("<{letters}")']
    out += [
        "",
        "# The functions that CPython calls, with the kinds of their arguments.",
    ]
    out.append("FUNCTIONS: Final[Mapping[str, tuple[str, ...]]] = {")
    for f in abi["functions"]:
        if f.get("only") != "page":
            kinds = ["pointer" if "*" in a else "int" for a in f.get("arguments", [])]
            out.append(f'    "{f["name"]}": {_tuple(kinds)},')
    out.append("}")
    pointers = [f["name"] for f in abi["functions"] if "*" in f.get("returns", "")]
    out.append(f"POINTERS: Final = {_tuple(pointers)}  # these return one")
    out += ["", "", *py_pack(abi)]
    return "\n".join([*out, ""])


def _py_constant(name: str, c: Json) -> str:
    return f"{name}: Final = {c['value']}{'  # ' + c['about'] if 'about' in c else ''}"


def py_pack(abi: Json) -> list[str]:
    """A function that packs inpage_sequence by the names of its fields, so that a new field needs no hand."""
    constants = abi["constants"]
    fields = [f for f in abi["structs"]["sequence"]["fields"] if not f.get("result")]
    parts: list[list[Json]] = [[]]
    for field in fields:
        if words(field, constants) > _SMALL:
            parts += [[field], []]
        else:
            parts[-1].append(field)
    parameters, structs, body = [], [], []
    for field in fields:
        many = words(field, constants) > 1
        kind = "float" if field["type"] == "float" else "int"
        parameters.append(f"{field['name']}: {f'Sequence[{kind}] = ()' if many else f'{kind} = 0'},")
    for i, part in enumerate(parts):
        if len(part) == 1 and words(part[0], constants) > _SMALL:
            body.append(f"words.extend(_filled({part[0]['name']}, {words(part[0], constants)}))")
        elif part:
            letters = "".join(_LETTERS[f["type"]] * words(f, constants) for f in part)
            structs.append(f'_PART_{i} = struct.Struct("<{letters}")')
            values = [f"*_filled({f['name']}, {n})" if (n := words(f, constants)) > 1 else f["name"] for f in part]
            call = textwrap.wrap(", ".join(values), WIDTH - 16)
            body += ["words.frombytes(", f"    _PART_{i}.pack(", *[f"        {line}" for line in call], "    )", ")"]
    return [
        *structs,
        "",
        "",
        "def _filled(values: Sequence[int], size: int) -> Sequence[int]:",
        "    return [*values, *[0] * (size - len(values))]",
        "",
        "",
        "def pack_sequence(",
        "    *,",
        *[f"    {p}" for p in parameters],
        ") -> array[int]:",
        '    """The words of one inpage_sequence. Arrays are filled with 0 and must not be longer than theirs."""',
        '    words = array("i")',
        *[f"    {line}" for line in body],
        "    words.extend([0] * (SEQUENCE_WORDS - len(words)))",
        "    return words",
    ]


def _tuple(items: Sequence[str]) -> str:
    quoted = ", ".join(f'"{item}"' for item in items)
    return f"({quoted},)" if len(items) == 1 else f"({quoted})"


def py_limits(limits: Json) -> str:
    out = [
        '"""How much of everything is read, and how large it may be, before it is refused: what is beyond is an attack',
        "or damage, and memory must stay flat.",
        "",
        f"{MADE.format('limits.toml').capitalize()}.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "from typing import Final",
        "",
        "# Bytes of each kind of file.",
        "FILE_BYTES: Final[Mapping[str, int]] = {",
        *[f'    "{kind}": {size},' for kind, size in limits["files"].items()],
        "}",
    ]
    for name, c in limits["constants"].items():
        out.append(_py_constant(name, c))
    return "\n".join([*out, ""])


def py_schemas(schemas: Mapping[str, Json]) -> str:
    out = [
        '"""The structure of an artifact\'s documents, for `inpage.format.structure`.',
        "",
        f"{MADE.format('plan.toml and manifest.toml').capitalize()}.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "from typing import Final",
        "",
        "from .structure import Schema",
    ]
    for name, objects in schemas.items():
        out += ["", f"{name}: Final[Schema] = {{"]
        for key, fields in objects.items():
            out.append(f'    "{key}": {{')
            out += [f'        "{field}": {_literal(rule)},' for field, rule in fields.items()]
            out.append("    },")
        out.append("}")
    return "\n".join([*out, ""])


def _literal(value: Any) -> str:
    """A JSON value as Python text with double quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{k}": {_literal(v)}' for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_literal(v) for v in value) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


# Schemas.


def resolve(objects: Json, constants: Mapping[str, Any]) -> Json:
    """The rules with constants for their names. Objects of several kinds become one object a kind (``buffer.arena``)
    and a field that tells which."""
    out: Json = {}
    for name, fields in objects.items():
        common = {key: _rule(rule, constants) for key, rule in fields.items() if key != "of"}
        for field, kinds in fields.get("of", {}).items():
            for kind, more in kinds.items():
                out[f"{name}.{kind}"] = common | {key: _rule(rule, constants) for key, rule in more.items()}
            common[field] = {"is": "choice", "of": list(kinds), "kind": True}
        out[name] = common
    return out


def _rule(rule: Json, constants: Mapping[str, Any]) -> Json:
    def number(value: Any) -> Any:
        return constants[value] if isinstance(value, str) else value

    out: Json
    if "int" in rule:
        out = {"is": "int", "low": number(rule["int"][0]), "high": number(rule["int"][1])}
        if "or" in rule:
            out["or"] = constants[rule["or"]]
        if "why" in rule:
            out["why"] = rule["why"]
    elif "list" in rule:
        low, high = map(number, rule["size"])
        out = {"is": "list", "of": _rule(rule["list"], constants), "low": low, "high": high}
    elif "map" in rule:
        out = {"is": "map", "of": _rule(rule["map"], constants), "keys": rule["keys"]}
    elif "exactly" in rule:
        out = {"is": "exactly", "of": constants[rule["exactly"]]}
    elif "extent" in rule:
        most, depth = constants["EXTENT"], constants["EXTENT_DEPTH"]
        out = {"is": "extent", "high": most, "depth": depth, "or": constants[rule["extent"]]}
    elif "choice" in rule:
        out = {"is": "choice", "of": rule["choice"]}
    else:
        (kind,) = {"number", "flag", "text", "object"} & set(rule)
        out = {"is": kind} if kind in ("number", "flag") else {"is": kind, "of": rule[kind]}
    for flag in ("optional", "null"):
        if rule.get(flag):
            out[flag] = True
    return out


if __name__ == "__main__":
    sys.exit(main())
