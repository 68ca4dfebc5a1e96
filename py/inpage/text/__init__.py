"""Text to token ids and back: tokenizer, chat template, stop strings.

Imports `format` and `host`; knows nothing of requests or engines."""
