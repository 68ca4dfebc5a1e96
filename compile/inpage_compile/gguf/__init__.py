"""Reading GGUF files: the header's bounds and typed metadata. Imports nothing of the compiler."""
