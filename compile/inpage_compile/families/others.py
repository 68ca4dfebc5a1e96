"""Architectures that people bring and that no graph here follows: what they are called, and what runs instead."""

from __future__ import annotations

_EXPERTS = "a mixture of experts"
# GGUF's ``general.architecture`` → what it is, what to take.
OTHERS: dict[str, tuple[str, str]] = {
    "gemma": ("Gemma 1", "Gemma 2 and 3"),
    "gemma3n": ("Gemma 3n", "Gemma 3"),
    "gemma4": ("Gemma 4", "Gemma 3"),
    "qwen3next": ("Qwen3-Next", "Qwen3"),
    "qwen35": ("Qwen3.5", "Qwen3"),
    "qwen2moe": (f"Qwen2 MoE, {_EXPERTS},", "Qwen2.5 and Qwen3"),
    "qwen3moe": (f"Qwen3 MoE, {_EXPERTS},", "Qwen3"),
    "qwen35moe": (f"Qwen3.5 MoE, {_EXPERTS},", "Qwen3"),
    "phimoe": (f"Phi-3.5 MoE, {_EXPERTS},", "Phi-3.5 and Phi-4 mini"),
    "granitemoe": (f"Granite MoE, {_EXPERTS},", "Granite dense"),
    "granitehybrid": ("Granite 4 with state-space layers", "Granite 3, and Granite 4 dense"),
    "mistral4": (f"Mistral 4, {_EXPERTS},", "Mistral and Ministral"),
    "llama4": (f"Llama 4, {_EXPERTS},", "Llama 3"),
    "deepseek2": (f"DeepSeek, {_EXPERTS},", "its distillations to Qwen2 and Llama"),
    "gpt-oss": (f"gpt-oss, {_EXPERTS},", "Qwen3 and Gemma 3"),
    "lfm2moe": (f"LFM2 MoE, {_EXPERTS},", "LFM2 dense"),
    "mamba": ("Mamba, a state-space model,", "SmolLM3 and Gemma 3"),
    "phi2": ("Phi-2", "Phi-3.5 and Phi-4 mini"),
}
