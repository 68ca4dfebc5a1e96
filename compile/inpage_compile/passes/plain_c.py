"""PrimFunc → a plain C function that one of several threads calls: ``void k(pointers…, scalars…, thread, threads)``.

Takes the place of TVM's MakePackedAPI. Buffer parameters become pointers (in the PrimFunc's order), scalars
become int32, the outermost parallel loop becomes this thread's contiguous share of it (as a loop, or as its two ends),
and there is no argument checking: the plan was checked.
"""

from __future__ import annotations

from tvm import ir, tirx

from ..kernels.cpu.build import SHARE


def plain_c(func: tirx.PrimFunc, symbol: str) -> tirx.PrimFunc:
    """The rewritten function, exported as ``symbol``. Raises ValueError unless one parallel loop is outermost."""
    thread, threads = tirx.Var("thread", "int32"), tirx.Var("threads", "int32")
    seen = 0

    def share(stmt: tirx.Stmt) -> tirx.Stmt:
        nonlocal seen
        if isinstance(stmt, tirx.SeqStmt):
            return tirx.SeqStmt([share(s) for s in stmt.seq])
        if isinstance(stmt, tirx.For) and stmt.kind == tirx.ForKind.PARALLEL:
            seen += 1
            low = tirx.truncdiv(stmt.extent * thread, threads)
            high = tirx.truncdiv(stmt.extent * (thread + 1), threads)
            if SHARE in stmt.annotations:
                end, *rest = stmt.body.seq
                return tirx.SeqStmt([tirx.Bind(stmt.loop_var, low), tirx.Bind(end.var, high), *rest])
            return tirx.For(stmt.loop_var, low, high - low, tirx.ForKind.SERIAL, stmt.body)
        return stmt

    pointers, scalars, declared, named = [], [], [], []
    for param in func.params:
        if isinstance(param.ty, tirx.BufferType):
            pointer = tirx.Var(f"{param.name}_data", ir.PointerType(ir.PrimType(str(param.ty.dtype)), "global"))
            pointers.append(pointer)
            declared.append(tirx.DeclBuffer(param, data=pointer))
        else:
            narrow = tirx.Var(param.name, "int32")
            scalars.append(narrow)
            named.append(tirx.Bind(param, tirx.Cast(str(param.ty.dtype), narrow)))
    body = tirx.SeqStmt([*named, *declared, share(func.body)])
    if seen != 1:
        raise ValueError(f"{symbol}: {seen} outermost parallel loops, expected one")
    params = [*pointers, *scalars, thread, threads]
    return tirx.PrimFunc(params, body, func.ret_type, attrs=func.attrs).with_attr("global_symbol", symbol)
