"""TIR kernels → WGSL, through TVM's code generator for WebGPU.

Each kernel is built by itself, as one device function without a host part: the launch plan says what a host would.
Bindings stand in the order of the function's buffers, the uniform block of scalars comes last.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import tvm
from tvm import ir, tirx
from tvm.target import Target

_DEVICE_KERNEL = 2  # TVM's calling convention of kernels that are launched
_BINDING = re.compile(r"@binding\((\d+)\) var<storage, (?:read|read_write)> ")
_POINTER = re.compile(r"\b(atomic\w+|workgroupUniformLoad)\((\w+)\[")
_LET = re.compile(r"^ *let (\w+) : [^=]+ = (.*);\n", re.MULTILINE)
_ACTS = re.compile(r"atomic|workgroupUniformLoad")  # whatever becomes of what they return
# Functions without arguments that stand for built-in values of a thread.
_SUBGROUP = re.compile(r"\b(subgroup_invocation_id|subgroup_size)\(\)")
_LAST_BUILTIN = "@builtin(local_invocation_id) threadIdx : vec3<u32>"
# What `kernels.webgpu.matrix_units` calls, and the kinds of matrices that come of it.
_UNITS = re.compile(r"^( *)matrix_(\w+?)_(\d+)x(\d+)x(\d+)\((.*)\);$", re.MULTILINE)
_MATRIX_ARGS = {"zero": 2, "left": 5, "right": 5, "multiply": 6, "store": 5}
_MATRICES = """enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
"""
_LOCAL = re.compile(r"\n *var (\w+) : array<([\w<>]+), (\d+)>;")


def device_kernel(func: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    """A PrimFunc as a device function: buffers become pointers, in their order, then the scalars."""
    pointers, scalars, declared = [], [], []
    for param in func.params:
        if isinstance(param.ty, tirx.BufferType):
            pointer = tirx.Var(f"{param.name}_data", ir.PointerType(ir.PrimType(str(param.ty.dtype)), "global"))
            pointers.append(pointer)
            declared.append(tirx.DeclBuffer(param, data=pointer))
        else:
            scalars.append(param)
    body = tirx.SeqStmt([*declared, func.body])
    made = tirx.PrimFunc([*pointers, *scalars], body, func.ret_type, attrs=func.attrs)
    return made.with_attr("global_symbol", symbol)


def wgsl(name: str, func: tirx.PrimFunc) -> str:
    """The shader module of one kernel, its entry point called ``name``."""
    target = Target("webgpu")
    mod = tirx.transform.BindTarget(target)(tvm.IRModule({name: device_kernel(func, name)}))
    t = tirx.transform
    passes = [t.FlattenBuffer(), t.NarrowDataType(32), t.VectorizeLoop(), t.UnrollLoop(), t.CommonSubexprElim(),
              t.LowerIntrin()]  # fmt: skip
    mod = ir.transform.Sequential(passes)(mod)
    device = mod[name].with_attr("calling_conv", _DEVICE_KERNEL).with_attr("tirx.is_global_func", True)
    module = tvm.get_global_func("target.build.webgpu")(tvm.IRModule({name: device}), target)
    access = str(func.attrs["inpage.access"])

    def bind(found: re.Match[str]) -> str:
        mode = "read" if access[int(found[1])] == "r" else "read_write"
        return f"@binding({found[1]}) var<storage, {mode}> "

    lines = [line for line in module.inspect_source().splitlines() if line.strip() and not line.startswith("//")]
    source = _references(_BINDING.sub(bind, "\n".join(lines) + "\n"))
    return _subgroups(_matrix_units(_live(_registers(source))))


def _references(source: str) -> str:
    """What WGSL's functions take a pointer to, which TIR has no word for; buffers of atomic words are declared so."""
    for function, name in set(_POINTER.findall(source)):
        if function.startswith("atomic"):
            source = source.replace(f"{name} : array<u32>;", f"{name} : array<atomic<u32>>;")
    return _POINTER.sub(r"\1(&\2[", source)


def _subgroups(source: str) -> str:
    """The declarations of what TIR's functions of subgroups need."""
    names = sorted(set(_SUBGROUP.findall(source)))
    if not names:
        return source
    declared = "".join(f",\n  @builtin({name}) {name} : u32" for name in names)
    return "enable subgroups;\n" + _SUBGROUP.sub(r"\1", source).replace(_LAST_BUILTIN, _LAST_BUILTIN + declared)


def _matrix_units(source: str) -> str:
    """Local arrays that stand for matrices become matrices, each a variable of its own, and calls WGSL's."""
    kinds: dict[str, str] = {}

    def done(found: re.Match[str]) -> str:
        indent, what, m, n, k, all_args = found.groups()
        args = all_args.split(", ")
        if len(args) != _MATRIX_ARGS[what]:
            raise ValueError(f"matrix_{what}({all_args}) has {len(args)} arguments")
        name, i = args[:2]
        one = f"{name}_{i.rstrip('i')}"
        if what == "multiply":
            left, right = (f"{args[at]}_{args[at + 1].rstrip('i')}" for at in (2, 4))
            return f"{indent}{one} = subgroupMatrixMultiplyAccumulate({left}, {right}, {one});"
        kind = {"left": f"left<f16, {k}, {m}>", "right": f"right<f16, {n}, {k}>"}.get(what, f"result<f32, {n}, {m}>")
        kinds[name] = kind = f"subgroup_matrix_{kind}"
        if what == "zero":
            return f"{indent}{one} = {kind}();"
        memory = f"&{args[2]}, u32({args[3]})"
        if what == "store":
            return f"{indent}subgroupMatrixStore<row_major>({memory}, {one}, u32({args[4]}));"
        order = "row_major" if what == "left" else "col_major"
        return f"{indent}{one} = subgroupMatrixLoad<{kind}, {order}>({memory}, u32({args[4]}));"

    source = _UNITS.sub(done, source)

    def declared(found: re.Match[str]) -> str:
        name, _, count = found.groups()
        if name not in kinds:
            return found[0]
        return "".join(f"\n  var {name}_{i} : {kinds[name]};" for i in range(int(count)))

    return (_MATRICES if kinds else "") + _LOCAL.sub(declared, source)


def _registers(source: str) -> str:
    """Local arrays that are only indexed by numbers become variables of their own: no compiler has to find out."""
    for name, kind, count in _LOCAL.findall(source):
        use = re.compile(rf"\b{name}\[(\d+)i\]")
        if len(use.findall(source)) != len(re.findall(rf"\b{name}\b", source)) - 1:
            continue
        declared = " ".join(f"var {name}_{i} : {kind};" for i in range(int(count)))
        source = use.sub(rf"{name}_\1", source.replace(f"var {name} : array<{kind}, {count}>;", declared))
    return source


def _live(source: str) -> str:
    """Without values that nothing is made of."""
    while True:
        count = Counter(re.findall(r"\w+", source))

        def keep(found: re.Match[str], count: Counter[str] = count) -> str:
            return "" if count[found[1]] == 1 and not _ACTS.search(found[2]) else found[0]

        live = _LET.sub(keep, source)
        if live == source:
            return source
        source = live


def shaders(kernels: Mapping[str, tirx.PrimFunc]) -> str:
    """kernels.wgsl: every kernel behind a line ``//: name``."""
    return "".join(f"//: {name}\n{wgsl(name, func)}" for name, func in kernels.items())
