"""Kernels for WebGPU, within its default limits: 256 threads, 16 KiB of workgroup memory, 8 storage buffers."""
