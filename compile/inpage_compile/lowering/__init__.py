"""Relax function to launch plan: the kernel calls, and where their buffers lie. Imports `ops` and below."""
