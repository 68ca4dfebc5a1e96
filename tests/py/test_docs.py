"""Every block of code in the documentation is run or checked, every message that it explains exists, and every message
of a browser that a visitor can meet is explained."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from inpage.cli import parser, serving
from inpage.cli.csp import policy_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
# What configures a host: checked for the headers that it sends.
HOSTS = {"", "apache", "caddy", "http", "json", "nginx", "toml"}
SCRIPTS = {"html": "ts", "js": "ts", "ts": "ts", "tsx": "tsx"}
# A block is a module of this package, not a program.
PACKAGES = {"adding-a-family.md": "inpage_compile.families", "adding-an-engine.md": "inpage.engines.registry"}
# Clients of a server or of a page: their own tests run them (tests/browser/clients.spec.js); here they are compiled.
ELSEWHERE = {"endpoint.md"}
# Examples' own commands, besides those that are checked.
PLAIN = {"cd", "cp", "mkdir", "pip", "python", "python3"}


@dataclass(frozen=True)
class Block:
    file: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for file in DOCS:
        text = file.read_text("utf-8")
        assert text.count("\n```") % 2 == 0, f"{file} has a block without an end"
        for found in re.finditer(r"^```([\w+-]*)[^\n]*\n(.*?)^```$", text, re.M | re.S):
            yield Block(file, text[: found.start()].count("\n") + 1, found[1], found[2])


BLOCKS = list(_blocks())


def _of(*languages: str) -> list[Block]:
    found = [block for block in BLOCKS if block.language in languages]
    assert found
    return found


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    known = {"python", "sh", *SCRIPTS, *HOSTS}
    assert [str(block) for block in BLOCKS if block.language not in known] == []


@pytest.mark.parametrize("languages", [("ts", "tsx"), ("html", "js")], ids=["typed", "plain"])
def test_scripts_have_the_types_that_they_say(
    languages: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Strict, but that plain JavaScript names no types of parameters; a block is a module of its own. ``inpage`` is
    what the package's types are made from."""
    folder = tmp_path_factory.mktemp("docs")
    for i, block in enumerate(_of(*languages)):
        name = f"{block.file.parent.name}-{block.file.stem}-{i}.{SCRIPTS[block.language]}"
        inside = (
            re.findall(r"<script[^>]*>(.*?)</script>", block.code, re.S) if block.language == "html" else [block.code]
        )
        assert inside, f"{block} has no script"
        (folder / name).write_text("\n".join(inside), "utf-8")
    (folder / "inpage").mkdir()  # as `npx inpage copy` makes it
    (folder / "inpage/inpage.ts").write_text('export * from "inpage";\n', "utf-8")
    modules = str(ROOT / "node_modules")
    options = {
        "extends": str(ROOT / "tsconfig.json"),
        "compilerOptions": {
            "jsx": "react-jsx",
            "noUnusedLocals": False,
            "noImplicitAny": "ts" in languages,
            "types": [],
            "typeRoots": [f"{modules}/@types"],
            "rootDirs": [str(folder), str(ROOT / "web")],
            "paths": {
                "inpage": [str(ROOT / "web/npm/inpage.js")],
                "inpage/*": [str(ROOT / "web/npm/*.js")],
                "react": [f"{modules}/@types/react"],
                "react/*": [f"{modules}/@types/react/*"],
                "*": [f"{modules}/*"],
            },
        },
        "include": [str(folder)],
    }
    (folder / "tsconfig.json").write_text(json.dumps(options), "utf-8")
    done = subprocess.run(
        [ROOT / "node_modules/.bin/tsc", "-p", folder], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.model
@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_python_runs_as_it_stands(block: Block) -> None:
    compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if block.file.name in ELSEWHERE:
        return
    package = PACKAGES.get(block.file.name)
    program = ["-c", block.code]
    if package is not None:
        # Where the text says that it stands: with the names that its module has.
        space = f"vars(__import__({package!r}, fromlist=['x'])).copy()"
        program = ["-c", f"space = {space}\nspace['__package__'] = {package!r}\nexec({block.code!r}, space)"]
    done = subprocess.run([sys.executable, *program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert package is not None or len(done.stdout.split()) > 20


def test_shell_commands_exist() -> None:
    for block in _of("sh"):
        for line in block.code.replace("\\\n", " ").splitlines():
            for words in _commands(shlex.split(line, comments=True)):
                _check(block, words)


def _commands(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    for word in [*words, "&&"]:
        if word in ("&&", ";"):
            if command:
                yield command
            command = []
        else:
            command.append(word)


def _check(block: Block, words: list[str]) -> None:
    where = f"{block}: {' '.join(words)}"
    name, *rest = (word.strip("()") for word in words)
    if name == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        assert [word for word in rest if "=" not in word and word not in targets] == [], where
    elif name == "inpage":
        parser().parse_args(rest)
    elif name == "npx":
        assert rest[0] == "vite" or [word for word in rest if word != "--yes"][:2] in (
            ["inpage", "copy"],
            [f"../inpage-{_version()}.tgz", "copy"],
        ), where
    elif name == "npm" and rest[0] == "run":
        place = block.file.parent if (block.file.parent / "package.json").exists() else ROOT
        assert rest[1] in json.loads((place / "package.json").read_text("utf-8"))["scripts"], where
    elif name == "npm":
        archives = [word for word in rest if "inpage-" in word]
        assert rest[0] in ("ci", "install"), where
        assert all(word.endswith(f"/inpage-{_version()}.tgz") for word in archives), where
    else:
        assert name in PLAIN and (name in ("cd", "pip", "python") or shutil.which(name)), where


def _version() -> str:
    return str(json.loads((ROOT / "package.json").read_text("utf-8"))["version"])


def test_the_options_of_the_command_line_exist() -> None:
    """Those of the README's table, each in its command's row."""
    rows = re.findall(r"^\| `inpage (\w+)[^|]*\|.*$", (ROOT / "README.md").read_text("utf-8"), re.M)
    assert len(rows) == 11
    for row in re.finditer(r"^\| `inpage (\w+)[^\n]*", (ROOT / "README.md").read_text("utf-8"), re.M):
        top = parser()
        commands = next(action for action in top._actions if action.dest == "command").choices
        assert isinstance(commands, dict)
        known = {option for action in commands[row[1]]._actions for option in action.option_strings}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", row[0]))
        assert named <= known, f"inpage {row[1]}: {named - known}"


def test_hosts_send_what_our_own_server_sends() -> None:
    """Values of headers in the documentation are those of `inpage serve`."""
    sent = {
        **serving._ISOLATION,
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": policy_of("index.html"),
    }
    seen = set()
    for block in _of(*HOSTS):
        for name, value in sent.items():
            for line in block.code.splitlines():
                _, found, rest = line.partition(name)
                if found and block.file.name == "hosting.md":
                    assert value in rest, f"{block}: {line}"
                    seen.add((block.line, name))
    assert len({line for line, _ in seen}) >= 5
    assert {name for _, name in seen} == set(sent)


def _messages() -> list[str]:
    text = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    return re.findall(r"^\| `([^`]+)` \|", text, re.M)


def _flat(text: str) -> str:
    """Source in which a message that is written in several pieces is one."""
    text = re.sub(r"""["'`]\s*\+?\s*\n\s*[f]?["'`]""", "", text)
    return re.sub(r"\s+", " ", text)


def _pattern(message: str) -> re.Pattern[str]:
    pieces = [re.escape(piece) for piece in message.strip("…").split("…")]  # what begins with anything is slow to find
    return re.compile(r".{0,120}?".join(pieces))


def test_each_message_that_is_explained_exists() -> None:
    sources = [*(ROOT / "web").rglob("*.js"), *(ROOT / "py").rglob("*.py")]
    text = "\n".join(_flat(path.read_text("utf-8")) for path in sources if "vendor" not in path.parts)
    messages = _messages()
    assert len(messages) > 30
    assert [message for message in messages if not _pattern(message).search(text)] == []


def test_what_a_browser_can_refuse_is_explained() -> None:
    """Messages of code `network` and `unsupported` in what a page runs, but for those that tools alone meet."""
    tools = ("this engine does not tell", "this engine has no kernels to choose from", "no WebAssembly module")
    patterns = [_pattern(message) for message in _messages()]
    missing = []
    for path in (ROOT / "web").rglob("*.js"):
        if {"vendor", "bundled"} & set(path.parts):
            continue
        for found in re.finditer(
            r"""EngineError\("(?:network|unsupported)", ([`"])(.*?)\1[,)]""", _flat(path.read_text("utf-8"))
        ):
            message = re.sub(r"\$\{[^}]*\}", "…", found[2])
            if len(re.findall(r"[a-z]{2,}", message)) < 2 or message.startswith(tools):
                continue
            if not any(pattern.search(found[2]) for pattern in patterns):
                missing.append(f"{path.name}: {message}")
    assert missing == []
