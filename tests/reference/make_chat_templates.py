"""Makes chat-templates.json.xz: what transformers' `apply_chat_template` writes, with templates of models and with
small ones of one kind each. Run it by hand, in an environment of its own:

    python -m venv /tmp/witness && /tmp/witness/bin/pip install transformers==4.57.1 jinja2==3.1.6
    /tmp/witness/bin/python tests/reference/make_chat_templates.py <llama.cpp>/models/templates
"""

from __future__ import annotations

import json
import lzma
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import transformers
from transformers.utils.chat_template_utils import render_jinja_template

OUT = Path(__file__).with_name("chat-templates.json.xz")
TOKENS = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
# Under licences that let them be here (Apache-2.0, MIT): the names are llama.cpp's, of whose folder they are.
MODELS = [
    "Apertus-8B-Instruct",
    "ByteDance-Seed-OSS",
    "GLM-4.6",
    "HuggingFaceTB-SmolLM3-3B",
    "MiMo-VL",
    "Mistral-Small-3.2-24B-Instruct-2506",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "Qwen-QwQ-32B",
    "Qwen-Qwen2.5-7B-Instruct",
    "Qwen-Qwen3-0.6B",
    "Qwen3-Coder",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai-DeepSeek-V3.1",
    "ibm-granite-granite-3.3-2B-Instruct",
    "ibm-granite-granite-4.0",
    "llama-cpp-rwkv-world",
    "meetkai-functionary-medium-v3.1",
    "microsoft-Phi-3.5-mini-instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
    "openai-gpt-oss-120b",
    "openbmb-MiniCPM5-1B",
]

ARGUMENTS = {
    "zahl": 1.0,
    "grösse": "é<b>&'\u2028\x7f",
    "big": 12345678901234567890,
    "t": True,
    "n": None,
    "small": 1e-07,
    "l": [],
    "o": {},
    "id": 9007199254740993,
}
CALLED = [
    {"role": "system", "content": "Be kind"},
    {"role": "user", "content": "Hé😀llo!\r\n  'x' \"y\" \\ "},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "look", "arguments": ARGUMENTS}}],
    },
    {"role": "tool", "tool_call_id": "call00001", "name": "look", "content": "ok"},
    {"role": "user", "content": "Hm"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Grüße <tool> & 'é' 🚀",
        "parameters": {
            "type": "object",
            "properties": {
                "x": {"type": "number", "description": "how", "default": 1.0, "minimum": -0.0, "enum": [1.5, 2.0]},
                "e": {"type": "string"},
            },
            "required": ["x"],
        },
    },
}
TURNS = [{"role": "user", "content": "<think>a</think> 1"}, {"role": "assistant", "content": "<think>b</think>\n\nc "}]
CONVERSATIONS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "one": ([{"role": "user", "content": "Hello"}], []),
    "turns": ([{"role": "system", "content": " s\n"}, *TURNS, {"role": "user", "content": "日本\n"}], []),
    "called": (CALLED, [TOOL]),
}

# ruff: noqa: E501  # templates lie in one line
EACH_CALL = "{% for m in messages %}{% for c in m.tool_calls or [] %}"
END = "{% endfor %}{% endfor %}"
# What another environment writes differently, or not at all.
KINDS = {
    "print_arguments": EACH_CALL + "{% for k, v in c.function.arguments.items() %}{{ k }}={{ v }};{% endfor %}" + END,
    "print_dict": EACH_CALL + "{{ c.function.arguments }}{{ c.function }}" + END,
    "print_joined": EACH_CALL + "{{ 'a' ~ c.function.arguments ~ [none, true, 1.0] }}" + END,
    "print_numbers": "{{ 3.0 }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 70 }} {{ 1e16 }} {{ 1e-7 }} {{ -0.0 }} {{ 10 / 5 }}",
    "tojson": EACH_CALL + "{{ c.function.arguments | tojson }}" + END,
    "tojson_ascii": "{{ messages | tojson(ensure_ascii=True) }}{{ tools | tojson(ensure_ascii=true, indent=1) }}",
    "tojson_not_ascii": "{{ messages | tojson(ensure_ascii=False) }}",
    "tojson_indent": "{{ tools | tojson(indent=4) }}{{ tools | tojson(indent='--') }}{{ [] | tojson(indent=0) }}",
    "tojson_separators": "{{ messages | tojson(separators=(',', ':')) }}{{ {'a': 1} | tojson(false, none, (';', '=')) }}",
    "tojson_sorted": "{{ messages | tojson(sort_keys=True, indent=2) }}",
    "tojson_kinds": "{{ [1.0, 1e30, 1e-7, 2 ** 63, none, true, 'a/<&>\\'', {1: 2}] | tojson }}",
    "tojson_undefined": "{{ nothing | tojson }}",
    "generation": "{% for m in messages %}{% generation %}{% set x = 1 %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
    "{%- generation -%} a {%- endgeneration -%} {{ x }}",
    "tools_none": "{{ tools is none }}{{ tools is defined }}{{ documents is none }}{{ documents is defined }}"
    "{% if tools is not none %}T{{ tools | length }}{% endif %}{{ custom_tools is defined }}",
    "cycle": "{% for m in messages %}{{ loop.cycle('odd', 'even') }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.last }}"
    "{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.changed(m.role) }}{% endfor %}",
    "percent": "{{ 'x%s' % 'y' }}{{ '%05.2f|%-4d|%r' % (1.5, 3, 'é') }}{{ '%(a)s' % {'a': none} }}{{ '%s' | format(true) }}",
    "format": "{{ '{}-{:>4}{a!r}'.format(1, 2, a=[1.0]) }}{{ '{0.role}'.format(messages[0]) }}",
    "loopcontrols": "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "newlines": "a\r\nb\r\n{% if true %}\r\n  c\r\n{% endif %}\r\n\td{# e #}\r\n",
    "spaces": "  {% if true %}\n x {{- 'y' -}} z\n  {%- endif +%}\n  {%+ if true %} w{% endif %}\n",
    "comments": "{#- c -#}\n {%- set a = 1 -%}\n x {{- a -}} y\n",
    "slices": "{{ 'Hé😀llo'[::-1] }}{{ 'Hé😀llo' | length }}{{ messages[1:] | length }}{{ messages[-1]['role'] }}{{ 'x'[5:] }}",
    "methods": "{{ 'a,b'.split(',') }}{{ ' a '.strip() }}{{ 'Ab'.swapcase() }}{{ 'abc'.find('c') }}{{ 'ß'.upper() }}"
    "{{ 'a=b=c'.partition('=') }}{{ {'a': 1}.items() | list }}{{ {'b': 1, 'a': 2}.keys() | list }}{{ 'x'.isdigit() }}",
    "filters": "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ messages | map(attribute='role') | join(',') }}"
    "{{ 'a b' | title }}{{ [3, 1, 2] | sort }}{{ [1, 1] | unique | list }}{{ none | default('z', true) }}{{ '<a>' | e }}"
    "{{ [1, 2, 3] | batch(2) | list }}{{ 'a\nb' | indent(2, true) }}{{ {'b': 1, 'a': 2} | dictsort }}{{ 5.5 | round | int }}"
    "{{ messages | groupby('role') | map('first') | list }}{{ ['a', 'B'] | sort(reverse=true) }}{{ 'x' | string | upper }}",
    "tests": "{{ 1 is number }}{{ 1.0 is integer }}{{ true is boolean }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is iterable }}"
    "{{ 'a' in 'abc' }}{{ none is sequence }}{{ 3 is odd }}{{ x is undefined }}{{ 1 is sameas 1 }}{{ 'A' is upper }}",
    "scopes": "{% set n = namespace(a=1) %}{% set b = 1 %}{% for i in [1, 2] %}{% set n.a = n.a + i %}{% set b = i %}{% endfor %}"
    "{{ n.a }}{{ b }}{% with c = 2 %}{{ c }}{% endwith %}{{ c is defined }}{% set d, e = 1, 2 %}{{ d }}{{ e }}",
    "macros": "{% macro say(m, end='.') %}<{{ m.content }}{{ end }}{{ varargs }}{{ kwargs }}{{ caller is defined }}>{% endmacro %}"
    "{% for m in messages %}{{ say(m) }}{{ say(m, '!', 1, a=2) }}{% call say(m) %}{% endcall %}{% endfor %}",
    "blocks": "{% set x %}\n  hello {{ messages[0].role }}\n{% endset %}[{{ x }}]{% filter upper %}a{{ x }}{% endfilter %}",
    "recursive": "{% for k, v in tools[0].items() recursive %}{{ k }}{% if v is mapping %}({{ loop(v.items()) }}){% endif %}{% endfor %}",
    "undefined": "{{ nothing }}{{ messages[0].nothing }}{{ messages[0].get('nothing', 'x') }}{{ messages[0]['name'] is defined }}",
    "undefined_attribute": "{{ nothing.more }}",
    "undefined_called": "{% call(x) foo() %}{% endcall %}",
    "raises": "{{ raise_exception('System role not supported') }}",
    "today": "{{ strftime_now('%Y-%m-%d') }}|{{ strftime_now('%d %b %Y') }}",
    "unsafe": "{{ messages.__class__.__mro__ }}|{{ ''.__class__ }}|{{ messages.append(1) }}",
    "escapes": r"{{ 'a\nb\x41\u00e9\'' }}{{ '\\n' }}",
    "tokens": "{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}{{ unk_token is defined }}",
    "literals": "{{ true }}{{ True }}{{ none }}{{ None }}{{ false }}{{ [1, (2, 3), {'a': none}] }}{{ (1,) }}{{ 1_000 }}{{ 0x1f }}",
    "conditions": "{{ 'a' if false }}{{ 'a' if x else 'b' }}{{ not 1 and 2 }}{{ 1 < 2 <= 2 }}{{ none == false }}{{ 1 == 1.0 }}{{ [] or 'e' }}",
    "dict_bomb": "{% set n = namespace(d={'a': 1}) %}{% for i in range(3) %}{% set n.d = {'b': n.d, 'c': n.d} %}{% endfor %}{{ n.d }}",
}


def rendered(source: str, conversation: str) -> str:
    messages, tools = CONVERSATIONS[conversation]
    try:
        texts, _ = render_jinja_template(
            [messages], tools=tools or None, chat_template=source, add_generation_prompt=True, **TOKENS
        )
    except Exception as error:
        return f"ERR {type(error).__name__}: {error}"
    now = datetime.now()
    return (
        texts[0]
        .replace(f"{now:%Y-%m-%d}", "{date}")
        .replace(f"{now:%d %b %Y}", "{day}")
        .replace(f"{now:%B %d, %Y}", "{today}")
    )


def main(folder: Path) -> None:
    sources = {name: (folder / f"{name}.jinja").read_text("utf-8") for name in MODELS}
    cases = [(name, source, list(CONVERSATIONS)) for name, source in sources.items()]
    cases += [(name, source, ["one", "called"]) for name, source in KINDS.items()]
    made = {
        "transformers": transformers.__version__,
        "conversations": {name: {"messages": m, "tools": t} for name, (m, t) in CONVERSATIONS.items()},
        "templates": [
            {"name": name, "source": source, "expected": {each: rendered(source, each) for each in asked}}
            for name, source, asked in cases
        ],
    }
    OUT.write_bytes(lzma.compress(json.dumps(made, ensure_ascii=False).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(cases)} templates, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
