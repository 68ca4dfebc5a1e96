"""Model families as graphs in `tvm.relax.frontend.nn`, one file a family."""
