"""Model families, one file a family: which tensors there are, and the graph in `tvm.relax.frontend.nn`.

Imports `ops` and below; sources and tokenizers read it, so what they need does not import TVM."""
