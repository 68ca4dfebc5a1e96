"""Targets: code generation and linking, for wasm and for the host CPU."""
