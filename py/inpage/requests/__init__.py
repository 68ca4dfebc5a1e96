"""What a caller asks, checked: parameters, prompt, grammar, tools; and `Request`, the sequence that the scheduler runs.

Imports `text`, `engines` (the protocol) and below."""
