"""What kernels of every target share: expressions, packed matrices, heads and pages. Imports neither `cpu` nor
`webgpu`."""
