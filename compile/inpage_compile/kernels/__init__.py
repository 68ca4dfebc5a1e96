"""Tensor programs (TIR) for the operations of a language model, built with TVM's TVMScript IR builder.

``cpu/`` holds the vector kernels that the WASM and native targets share: lanes are 128 bits wide, what differs between
instruction sets is in `cpu.isa`. A kernel is one TIR PrimFunc whose outermost statement is one parallel loop; how that
loop is split over threads is decided later (`passes.plain_c`).
"""
