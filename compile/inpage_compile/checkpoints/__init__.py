"""Reading model folders of the Hugging Face kind: files within bounds, safetensors, config.json. Imports nothing of the
compiler but the type of metadata."""
