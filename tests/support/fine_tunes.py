"""Files as people's fine-tunes are: without a licence, with several ends, without a chat template, with several
templates, with control tokens that are declared as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .tiny import TEMPLATE, Tiny

CHAT = "<|im_start|>user\nwhat can you do<|im_end|>\n<|im_start|>assistant\n"  # as `TEMPLATE` writes it
STEPS = 32


@dataclass(frozen=True)
class FineTune:
    """``keys``: in place of the tiny file's. ``text``: a prompt, with the control tokens that a template writes."""

    tiny: Tiny
    keys: dict[str, Any] = field(default_factory=dict)
    text: str = CHAT

    def write(self, path: Path) -> Path:
        return self.tiny.write(path, self.keys)


FINE_TUNES: dict[str, FineTune] = {
    "no-licence": FineTune(Tiny(seed=31), {"general.license": None, "general.name": None}),
    "many-ends": FineTune(
        Tiny(seed=32), {"tokenizer.ggml.eot_token_id": 299, "tokenizer.ggml.eom_token_id": 1}
    ),
    "base": FineTune(Tiny(seed=33, tied=False), {"tokenizer.chat_template": None}, "the page and the token are in"),
    "named-templates": FineTune(
        Tiny(seed=34),
        {
            "tokenizer.chat_templates": ["tool_use", "rag"],
            "tokenizer.chat_template.tool_use": "{{ tools }}" + TEMPLATE,
            "tokenizer.chat_template.rag": "{{ documents }}",
        },
    ),
    "declared-as-text": FineTune(
        Tiny(seed=35), {"tokenizer.ggml.token_type": [1] * 320, "tokenizer.ggml.eos_token_id": None,
                        "tokenizer.ggml.bos_token_id": None}
    ),
}  # fmt: skip
