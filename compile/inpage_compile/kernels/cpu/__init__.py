"""128-bit vector kernels for CPUs: WebAssembly SIMD (relaxed or plain) and the host's own instruction set."""
