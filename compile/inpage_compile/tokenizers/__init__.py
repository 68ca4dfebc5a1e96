"""Tokenizers at compile time: what a source has to a Hugging Face tokenizer.json. Imports `gguf`."""
