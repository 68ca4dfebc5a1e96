"""Linking: TVM's object files + the C runtime → kernels.wasm or a shared library, with ziglang's clang and LLD alone.

The runtime's own objects are cached by the hash of their sources and flags, so that a second model links in
milliseconds. The machine's compiler, C library and headers are never used.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from inpage.errors import InpageError, Unsupported

RUNTIME = Path(__file__).resolve().parents[1] / "runtime"
ZIG = (sys.executable, "-m", "ziglang")

# Contraction off: a multiply and an add round twice everywhere, so wasm and native sample the same tokens.
_FLAGS = ("-std=c11", "-O3", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-sanitize=undefined",
          "-fno-stack-protector", "-fno-math-errno", "-g0")  # fmt: skip
# The runtime itself is plain SIMD in both builds; only TVM's kernels use relaxed instructions.
_WASM_FEATURES = ("atomics", "bulk-memory", "mutable-globals", "nontrapping-fptoint", "sign-ext", "simd128")
# Encodings that some of LLVM's presets mark as used; every engine with SIMD and threads has them.
_HARMLESS_FEATURES = ("bulk-memory-opt", "call-indirect-overlong", "multivalue", "reference-types")
_WASM_TARGET = (
    "-target",
    "wasm32-freestanding",
    "-mcpu=generic+" + "+".join(f.replace("-", "_") for f in _WASM_FEATURES),
)
_WASM_ONLY = {"threads_wasm.c", "math.c"}
_NATIVE_ONLY = {"threads_native.c"}

EXPORTS = (
    "inpage_abi_version", "inpage_load", "inpage_set_threads", "inpage_set_decoders", "inpage_thread",
    "inpage_spin", "inpage_set_spins",
    "inpage_step", "inpage_step_launch", "inpage_step_kernel", "inpage_choose_kernel", "inpage_rehearse",
    "inpage_sample", "inpage_run", "inpage_score", "inpage_doorbell", "inpage_counters", "inpage_sha256_init",
    "inpage_sha256_update", "inpage_sha256_final",
)  # fmt: skip


class LinkError(InpageError):
    """The C compiler or the linker refused: a bug of this build. The message ends with what the tool printed."""

    code = "link_failed"


def link_wasm(objects: Sequence[Path], trampolines_c: Path, out: Path, relaxed: bool) -> Path:
    """Link to a module on an imported shared memory that exports the ABI, ``__heap_base`` and ``__stack_pointer``.

    ``relaxed`` False promises a module without relaxed SIMD: an object compiled with that feature is refused.
    """
    runtime = _runtime_objects(_WASM_TARGET, _NATIVE_ONLY)
    features = [*_WASM_FEATURES, *_HARMLESS_FEATURES, *(["relaxed-simd"] if relaxed else [])]
    with tempfile.TemporaryDirectory() as scratch:
        trampolines = Path(scratch) / "trampolines.o"
        _compile(trampolines_c, trampolines, _WASM_TARGET)
        _run(
            "wasm-ld",
            "--no-entry",
            "--shared-memory",
            "--import-memory",
            "--max-memory=4294967296",
            "--strip-all",
            "--features=" + ",".join(features),
            *(f"--export={name}" for name in (*EXPORTS, "__heap_base", "__stack_pointer")),
            *map(str, objects),
            str(trampolines),
            *map(str, runtime),
            "-o",
            str(out),
        )
    return out


def link_native(objects: Sequence[Path], trampolines_c: Path, out: Path) -> Path:
    """Link to a shared library for this machine's CPU and operating system. Raises `Unsupported` where unknown."""
    target = ("-target", native_triple(), "-mcpu=baseline", "-fPIC", "-pthread")
    runtime = _runtime_objects(target, _WASM_ONLY)
    with tempfile.TemporaryDirectory() as scratch:
        trampolines = Path(scratch) / "trampolines.o"
        _compile(trampolines_c, trampolines, target)
        inputs = [*map(str, objects), str(trampolines), *map(str, runtime)]
        _run("cc", *target, "-shared", "-s", *inputs, "-lm", "-o", str(out))
    return out


def native_triple() -> str:
    """This machine in zig's words; on Linux with the oldest glibc that a library may meet."""
    machine = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
    system = {"linux": "linux-gnu.2.28", "darwin": "macos-none"}
    arch = machine.get(platform.machine().lower())
    if arch is None or sys.platform not in system:
        raise Unsupported(f"no native build for {platform.machine()} on {sys.platform}")
    return f"{arch}-{system[sys.platform]}"


def _runtime_objects(target: Sequence[str], leave_out: set[str]) -> list[Path]:
    """Every runtime source but ``leave_out``, compiled or from the cache."""
    sources = sorted(RUNTIME.glob("*.[ch]"))
    digest = hashlib.sha256(repr((version("ziglang"), target, _FLAGS)).encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    folder = _cache() / digest.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for source in sources:
        if source.suffix != ".c" or source.name in leave_out:
            continue
        compiled = folder / f"{source.stem}.o"
        if not compiled.is_file():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                fresh = Path(scratch) / compiled.name
                _compile(source, fresh, target)
                fresh.replace(compiled)  # atomic: a compile beside this one makes the same bytes
        objects.append(compiled)
    return objects


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "inpage" / "runtime"


def _compile(source: Path, out: Path, target: Sequence[str]) -> None:
    _run("cc", *target, *_FLAGS, f"-I{RUNTIME}", "-c", str(source), "-o", str(out))


def _run(*arguments: str) -> None:
    try:
        done = subprocess.run([*ZIG, *arguments], capture_output=True, text=True, errors="replace", check=False)
    except OSError as e:
        raise LinkError(f"ziglang cannot be run: {e}") from e
    if done.returncode != 0:
        output = (done.stdout + done.stderr).strip()
        hint = " (is the `compile` extra installed?)" if "No module named" in output else ""
        raise LinkError(f"zig {arguments[0]} failed with exit status {done.returncode}{hint}:\n{output[-4000:]}")
