"""Chat templates with what transformers makes of them (tests/reference/make_chat_templates.py)."""

from __future__ import annotations

import json
import lzma
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from inpage.text.template_sandbox import BoundedTemplate

STORED = Path(__file__).resolve().parents[1] / "reference" / "chat-templates.json.xz"
MODELS = 21  # templates of models; the rest are small
TOKENS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}

RECURSIVE = [
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% call f(n) %}{{ caller() }}{% endcall %}{% endmacro %}{{ f(1) }}",
    "{% for i in [1] recursive %}{{ loop([i]) }}{% endfor %}",
]
# What is in it is 2^60 times there.
DOUBLED = "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = BOTH %}{% endfor %}"
LISTS, OBJECTS, TUPLES = (
    DOUBLED.replace("BOTH", both) for both in ("[n.x, n.x]", "{'a': n.x, 'b': n.x}", "(n.x, n.x)")
)
MUCH = [
    "{{ 'a' * 10 ** 9 }}",
    "{{ 10 ** (10 ** 8) }}",
    "{{ range(10 ** 9) }}",
    "{% for i in range(10 ** 9) %}{% endfor %}",
    "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}",
    LISTS + "{{ n.x }}",
    LISTS + "{{ '%s' % [n.x] }}",
    LISTS + "{{ '{}'.format(n.x) }}",
    LISTS + "{{ n.x | string | length }}",
    OBJECTS + "{{ n.x | tojson }}",
    TUPLES + "{{ n.x ~ '' }}",
    LISTS + "{% set m = n.x %}" + LISTS + "{{ m == n.x }}",
    LISTS + "{% set m = n.x %}" + LISTS + "{{ m in [n.x] }}",
    "{{ range(99999) | list | tojson(separators=('x' * 99999, ':')) }}",
    "{{ range(99999) | list | tojson(indent=99999) }}",
    *RECURSIVE,
    "{% set n = namespace(x=[]) %}{% for i in range(9000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x | tojson }}",
    "{% set n = namespace(x=[]) %}{% for i in range(99000) %}{% set n.x = [n.x] %}{% endfor %}",
    "{% set n = namespace(x={}) %}{% for i in range(99000) %}{% set n.x = {'a': [n.x, n.x]} %}{% endfor %}",
]
# What Python in the page would not survive.
DEEP = [
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{% if 1 %}" * 3000,
    "{{ 1" + " + 1" * 9000 + " }}",
    "{{ 'x'" + " | e" * 3000 + " }}",
]


@cache
def reference() -> Any:
    """``conversations`` by name {messages, tools}; ``templates``: name, source and, by conversation, what is
    ``expected``: a text, or "ERR", the error's class and message."""
    return json.loads(lzma.decompress(STORED.read_bytes()))


_made = cache(BoundedTemplate)


def rendered(source: str, conversation: dict[str, Any]) -> str:
    """The same of ours."""
    variables = {**conversation, "documents": None, "add_generation_prompt": True, **TOKENS}
    try:
        text = _made(source).render({**variables, "tools": conversation["tools"] or None}, {})
    except Exception as error:
        return f"ERR {type(error).__name__}: {error}"
    return undated(text)


def undated(text: str) -> str:
    now = datetime.now()
    return (
        text.replace(f"{now:%Y-%m-%d}", "{date}")
        .replace(f"{now:%d %b %Y}", "{day}")
        .replace(f"{now:%B %d, %Y}", "{today}")
    )
