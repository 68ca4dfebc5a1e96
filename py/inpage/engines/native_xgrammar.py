"""XGrammar for the native engine: the WebAssembly module that pages run, in wasmtime, so that masks are the same bits.

npm has it as one script, with the module inside. The script's other half is Emscripten's: it tells JavaScript of the
C++ classes (embind) and stands in for an operating system. What `Library` needs of both is here; how the module calls
it is read from the script, which vendor.json pins.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import wasmtime

from ..errors import ArtifactInvalid

_UNDEFINED = 2  # embind's handle of JavaScript's value; those of ours come behind its own
_FIRST_HANDLE = 10
_PAGE = 65536
_MOST_PAGES = (2 << 30) // _PAGE  # as in the page
_STACK = 1 << 20  # as V8's
# Calls a method with each text between two places: a call from Python takes longer than what it does, and a vocabulary
# has a hundred thousand.
_EACH = """
(module
  (import "" "memory" (memory 0))
  (import "" "table" (table 0 funcref))
  (type $method (func (param i32 i32 i32)))
  (func (export "each")
    (param $invoker i32) (param $target i32) (param $this i32) (param $at i32) (param $end i32)
    (loop $next
      (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (call_indirect (type $method) (local.get $target) (local.get $this) (local.get $at) (local.get $invoker))
        (local.set $at
          (i32.and (i32.const -4) (i32.add (i32.const 7) (i32.add (local.get $at) (i32.load (local.get $at))))))
        (br $next))))))
"""
# Imports without an effect here: types that no call here has, and reference counts of JavaScript's values.
_IGNORED = re.compile(r"__embind_(register|finalize)_\w+|__emval_(incref|decref|run_destructors)|_fd_close")


class LibraryFailed(Exception):
    """XGrammar aborted, as it does on whatever it does not like. The `Library` is of no use any more."""


@dataclass(frozen=True, slots=True)
class Program:
    """``each``: see `_EACH`; ``imports``: what each import of the module is, by the module's name for it;
    ``constructors``, ``malloc``, ``free``: names of its exports."""

    engine: wasmtime.Engine
    module: wasmtime.Module
    each: wasmtime.Module
    imports: dict[str, str]
    constructors: str
    malloc: str
    free: str


@dataclass(frozen=True, slots=True)
class Handle:
    """A C++ object: ``this`` for its methods, ``own`` (another, where it is behind a shared pointer) to delete it."""

    this: int
    own: int
    kind: int


@cache
def program(path: Path, sha256: str) -> Program:
    """Compiled for this machine, once in a process. Raises `ArtifactInvalid` where it is another file."""
    try:
        script = path.read_bytes()
    except OSError as error:
        raise ArtifactInvalid(f"{path.name} cannot be read: {error.strerror}", field="vendor/xgrammar") from error
    if hashlib.sha256(script).hexdigest() != sha256:
        raise ArtifactInvalid(f"{path} is not the file that vendor.json pins: remove it", field="vendor/xgrammar")
    text = script.decode()
    config = wasmtime.Config()
    config.max_wasm_stack = _STACK
    engine = wasmtime.Engine(config)
    module = wasmtime.Module(engine, base64.b64decode(_found(r'"data:application/octet-stream;base64,([^"]+)"', text)))
    imports = dict(re.findall(r"(\w+):(\w+)", _found(r"wasmImports=\{([^}]+)\}", text)))
    names = (_found(pattern, text) for pattern in (
        r'addOnInit\(wasmExports\["(\w+)"\]\)', r'_malloc=wasmExports\["(\w+)"\]', r'_free=wasmExports\["(\w+)"\]'
    ))  # fmt: skip
    return Program(engine, module, wasmtime.Module(engine, _EACH), imports, *names)


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ArtifactInvalid("the grammar library is of a version that cannot be run here", field="vendor/xgrammar")
    return found[1]


class Library:
    """A copy of XGrammar of one's own: for one thread at a time, and until it fails."""

    def __init__(self, loaded: Program) -> None:
        self.complaints: list[str] = []
        self._store = store = wasmtime.Store(loaded.engine)
        self._types: dict[int, str] = {}  # by embind's number: the class, or what points to one
        self._destructors: dict[int, int] = {}
        self._pointees: dict[int, int] = {}  # of a shared pointer: what gives its object
        self._bound: dict[str, tuple[int, int, int]] = {}  # by name: invoker, what it invokes, type of the result
        self._values: list[int] = []  # what optional arguments hold
        imports = []
        for wanted in loaded.module.imports:
            assert isinstance(wanted.type, wasmtime.FuncType)
            name = loaded.imports[wanted.name or ""]
            imports.append(wasmtime.Func(store, wanted.type, self._import(name, bool(wanted.type.results))))
        exports = wasmtime.Instance(store, loaded.module, imports).exports(store)
        self._memory = next(each for each in exports.values() if isinstance(each, wasmtime.Memory))
        self._table = next(each for each in exports.values() if isinstance(each, wasmtime.Table))
        self._functions: dict[int, Callable[..., Any]] = {}
        self._malloc, self._free = (_function(exports[name]) for name in (loaded.malloc, loaded.free))
        each = wasmtime.Instance(store, loaded.each, [self._memory, self._table]).exports(store)["each"]
        self._each = _function(each)
        self._guarded(_function(exports[loaded.constructors]))

    def tokenizer(self, texts: Sequence[str], kind: str, stops: Sequence[int]) -> Handle:
        """``kind``: as XGrammar calls it, "byte_level" or "byte_fallback"; ``texts``: of tokens by id."""
        words, ends = self._construct("VectorString"), self._construct("VectorInt")
        data = b"".join(_wire(text) for text in texts)
        at = self._guarded(self._malloc, len(data))
        self._memory.write(self._store, bytearray(data), at)
        push, target, _ = self._bound["VectorString.push_back"]
        self._guarded(self._each, push, target, words.this, at, at + len(data))
        self._guarded(self._free, at)
        for stop in stops:
            self._call("VectorInt.push_back", ends.this, stop)
        with self._text(kind.upper()) as name, self._optional(len(texts), ends.this) as (size, stop_ids):
            made = self._construct("TokenizerInfo", words.this, name, size, stop_ids, 0)
        self.delete(words)
        self.delete(ends)
        return made

    def compiler(self, tokenizer: Handle) -> Handle:
        return self._construct("GrammarCompiler", tokenizer.this, 1, 0)  # one thread, no cache

    def compile_grammar(self, compiler: Handle, ebnf: str) -> Handle:
        with self._text(ebnf) as text, self._text("root") as root:
            parsed = self._made("Grammar.FromEBNF", text, root)
        compiled = self._made("GrammarCompiler.CompileGrammar", compiler.this, parsed.this)
        self.delete(parsed)
        return compiled

    def compile_tag(self, compiler: Handle, tag: str) -> Handle:
        with self._text(tag) as text:
            return self._made("GrammarCompiler.CompileStructuralTag", compiler.this, text)

    def matcher(self, compiled: Handle) -> Handle:
        return self._construct("GrammarMatcher", compiled.this, _UNDEFINED, 0, -1)

    def accept(self, matcher: Handle, token: int) -> bool:
        return bool(self._call("GrammarMatcher.AcceptToken", matcher.this, token, 0))

    def roll_back(self, matcher: Handle, tokens: int) -> None:
        self._call("GrammarMatcher.Rollback", matcher.this, tokens)

    def mask(self, matcher: Handle, vocab: int) -> bytes:
        """Which tokens may follow: a bit each, in words of 32."""
        found = self._made("GrammarMatcher.GetNextTokenBitmask", matcher.this, vocab)
        begin, end = struct.unpack("<II", self._memory.read(self._store, found.this, found.this + 8))
        words = bytes(self._memory.read(self._store, begin, end))
        self.delete(found)
        return words

    def delete(self, handle: Handle) -> None:
        self._guarded(self._function(self._destructors[handle.kind]), handle.own)

    def close(self) -> None:
        """Free its memory, though what it failed with still refers to it."""
        self._store.close()

    # -- calls into the module -----------------------------------------------------------------------------------

    def _guarded(self, function: Callable[..., Any], *arguments: int) -> Any:
        try:
            return function(self._store, *arguments)
        except (LibraryFailed, wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise LibraryFailed(str(error)) from error

    def _function(self, index: int) -> Callable[..., Any]:
        found = self._functions.get(index)
        if found is None:
            self._functions[index] = found = _function(self._table.get(self._store, index))
        return found

    def _call(self, name: str, *arguments: int) -> Any:
        invoker, target, _ = self._bound[name]
        return self._guarded(self._function(invoker), target, *arguments)

    def _made(self, name: str, *arguments: int) -> Handle:
        own, kind = self._call(name, *arguments), self._bound[name][2]
        get = self._pointees.get(kind)
        return Handle(own if get is None else self._guarded(self._function(get), own), own, kind)

    def _construct(self, name: str, *arguments: int) -> Handle:
        return self._made(f"{name}/{len(arguments)}", *arguments)

    @contextmanager
    def _text(self, text: str) -> Iterator[int]:
        data = _wire(text)
        at = self._guarded(self._malloc, len(data))
        self._memory.write(self._store, bytearray(data), at)
        yield at
        self._guarded(self._free, at)

    @contextmanager
    def _optional(self, *values: int) -> Iterator[list[int]]:
        """Handles of numbers and objects, for arguments that may be missing."""
        self._values = list(values)
        yield [_FIRST_HANDLE + 2 * i for i in range(len(values))]
        self._values = []

    # -- calls from the module -----------------------------------------------------------------------------------

    def _import(self, name: str, answers: bool) -> Callable[..., Any]:
        """wasmtime holds it as long as there is the store, so it must not hold this library, which has the store."""
        method, ignored, library = f"_import_{name.lstrip('_')}", _IGNORED.fullmatch(name), weakref.ref(self)

        def called(*arguments: Any) -> Any:
            if ignored and not hasattr(Library, method):
                return 0 if answers else None
            if not hasattr(Library, method):
                raise LibraryFailed(f"{name} is not there")
            return getattr(library(), method)(*arguments)

        return called

    def _import_embind_register_class(self, kind: int, pointer: int, constant: int, *more: int) -> None:
        *_, name, _, destructor = more
        for each in (kind, pointer, constant):
            self._types[each] = self._latin(name)
            self._destructors[each] = destructor

    def _import_embind_register_smart_ptr(self, kind: int, pointee: int, *more: int) -> None:
        _, _, _, get, *_, destructor = more
        self._types[kind] = self._types[pointee]
        self._destructors[kind], self._pointees[kind] = destructor, get

    def _import_embind_register_class_constructor(
        self, kind: int, count: int, types: int, _: int, invoker: int, target: int
    ) -> None:
        self._bound[f"{self._types[kind]}/{count - 1}"] = invoker, target, self._word(types)

    def _import_embind_register_class_function(
        self, kind: int, name: int, _: int, types: int, _signature: int, invoker: int, target: int, *_more: int
    ) -> None:
        self._bound[f"{self._types[kind]}.{self._latin(name)}"] = invoker, target, self._word(types)

    _import_embind_register_class_class_function = _import_embind_register_class_function

    def _import_embind_register_function(self, name: int, _: int, types: int, _signature: int, invoker: int,
                                           target: int, *_more: int) -> None:  # fmt: skip
        self._bound[self._latin(name)] = invoker, target, self._word(types)

    def _import_emval_as(self, handle: int, _kind: int, _destructors: int) -> float:
        return float(self._values[(handle - _FIRST_HANDLE) // 2])

    def _import_cxa_throw(self, *_: int) -> None:
        raise LibraryFailed("an exception")

    def _import_abort(self) -> None:
        raise LibraryFailed("aborted")

    def _import_emscripten_memcpy_js(self, to: int, start: int, size: int) -> None:
        self._memory.write(self._store, self._memory.read(self._store, start, start + size), to)

    def _import_emscripten_resize_heap(self, size: int) -> int:
        size &= 0xFFFFFFFF
        pages = self._memory.size(self._store)
        wanted = min(_MOST_PAGES, max(-(-size // _PAGE), pages + pages // 5))
        if wanted * _PAGE < size:
            return 0
        try:
            self._memory.grow(self._store, wanted - pages)
        except wasmtime.WasmtimeError:
            return 0
        return 1

    def _import_fd_write(self, _file: int, parts: int, count: int, written: int) -> int:
        table = struct.unpack(f"<{2 * count}I", self._memory.read(self._store, parts, parts + 8 * count))
        said = b"".join(
            self._memory.read(self._store, at, at + n) for at, n in zip(table[::2], table[1::2], strict=True)
        )
        self.complaints.append(said.decode("utf-8", "replace"))
        self._memory.write(self._store, bytearray(struct.pack("<I", len(said))), written)
        return 0

    def _import_strftime_l(self, text: int, *_: int) -> int:
        self._memory.write(self._store, bytearray(1), text)
        return 0

    def _import_environ_sizes_get(self, count: int, size: int) -> int:
        for at in (count, size):
            self._memory.write(self._store, bytearray(4), at)
        return 0

    def _import_environ_get(self, *_: int) -> int:
        return 0

    def _import_emscripten_date_now(self) -> float:
        return time.time() * 1e3

    def _import_emscripten_get_now(self) -> float:
        return time.perf_counter() * 1e3

    def _import_emscripten_get_now_is_monotonic(self) -> int:
        return 1

    def _word(self, at: int) -> int:
        return int.from_bytes(self._memory.read(self._store, at, at + 4), "little")

    def _latin(self, at: int) -> str:
        data = self._memory.read(self._store, at, at + 256)
        return data[: data.index(0)].decode("latin-1")


def _wire(text: str) -> bytes:
    """As embind takes a text."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data + bytes(-len(data) % 4)


def _function(found: Any) -> wasmtime.Func:
    if not isinstance(found, wasmtime.Func):
        raise LibraryFailed("not a function")
    return found
