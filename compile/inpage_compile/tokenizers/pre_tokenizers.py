"""How text is cut before byte-level BPE merges: what each ``tokenizer.ggml.pre`` stands for in llama.cpp.

A name stands for successive splits by regular expressions. A match and the text between matches each become a piece;
the next split sees one piece at a time, so that its ``$`` and ``(?!\\S)`` end there. The expressions must mean the
same in llama.cpp, in Oniguruma (PyPI ``tokenizers``) and in JavaScript (npm ``@huggingface/tokenizers``):

- ``\\s`` and ``\\d`` differ (U+0085, U+FEFF, digits outside ASCII): they are written out, or ``\\p{N}``.
- ``^`` and ``$`` are those of lines in Oniguruma, ``\\A`` and ``\\z`` unknown to JavaScript: none is used.
- llama.cpp knows no letter case outside ASCII: ``\\p{Lu}`` and ``\\p{Ll}`` are any letter there, and gpt-4o's and
  tekken's words change case at A-Z and a-z alone. The original tokenizers cut "ÉTÉété" in two; as GGUF files it is
  llama.cpp that they are made for and compared with, so its cuts are taken.
- Characters assigned after Unicode 14 are in no category for Oniguruma.

Source of the expressions and flags: llama.cpp, src/llama-vocab.cpp and src/unicode.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass

# Unicode's White_Space, as a character class's content.
_SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """``splits``: regular expressions, in order. ``whole_words``: a piece that is a token is not merged. ``add_bos``:
    prompts begin with the BOS token unless the file says otherwise."""

    splits: tuple[str, ...]
    whole_words: bool = False
    add_bos: bool = False


def _expand(pattern: str) -> str:
    r"""``\s`` and, outside of classes, ``\S`` written out."""
    out, inside = "", False
    i = 0
    while i < len(pattern):
        two = pattern[i : i + 2]
        if two in (r"\s", r"\S"):
            out += _SPACE if inside else f"[{_SPACE}]" if two == r"\s" else f"[^{_SPACE}]"
            i += 2
        elif two[0] == "\\":
            out += two
            i += 2
        else:
            inside = two[0] == "[" or (inside and two[0] != "]")
            out += two[0]
            i += 1
    return out


_CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_PREFIX = r"[^\r\n\p{L}\p{N}]?"
_TAIL = r"\s+(?!\S)|\s+"
_THREE = r"\p{N}{1,3}"
_ONE = r"\p{N}"


def _tiktoken(
    words: str,
    numbers: str,
    symbols: str = r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    tail: str = _TAIL,
) -> str:
    return _expand(rf"{words}|{numbers}|{symbols}|\s*[\r\n]+|{tail}")


def _cased(letters: str, numbers: str, contraction: str = "") -> str:
    """Words that change case once: ``letters`` is a class's content."""
    upper, lower = f"(?:(?=[{letters}])[^a-z])", f"(?:(?=[{letters}])[^A-Z])"
    words = f"{_PREFIX}{upper}*{lower}+{contraction}|{_PREFIX}{upper}+{lower}*{contraction}"
    return _tiktoken(words, numbers, r" ?[^\s\p{L}\p{N}]+[\r\n/]*")


_WORDS = rf"{_CONTRACTION}|{_PREFIX}\p{{L}}+"
_SHORT = f"{_CONTRACTION}?"  # behind a word
GPT2 = _expand(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_LLAMA3 = _tiktoken(_WORDS, _THREE)
_QWEN2 = _tiktoken(_WORDS, _ONE)
_MARKED = rf"{_PREFIX}[\p{{L}}\p{{M}}]+{_SHORT}"  # words of letters in any case and their marks
_CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_LINES = r"[^\n]+|\n+"
# A run of digits in groups of three from its end. The text before stays with the first group.
_GROUPS = r"[^\p{N}]*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_PUNCTUATED = _expand(
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    rf"|\s*[\r\n]+|{_TAIL}"
)
_BLOOM = _expand(" ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+")
_JAIS2_TAIL = "|".join([*(rf"\s{{{n}}}(?!\S)" for n in (512, 256, 128, 64, 32, 16, 8, 4)), r"\s{1,2}(?!\S)|\s"])
_HAN = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f\U0002b820-\U0002ceaf"
    "\U0002ceb0-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f"
)
# The original's ranges begin at U+0800 and U+3000, but llama.cpp sees no white space in a range.
_DEEPSEEK_CJK = (
    "[\u4e00-\u9fa5\u0800-\u167f\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\u4e00"
    "\uac00-\ud7ff]+"
)
_DEEPSEEK_LETTERS = (
    "A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377"
    "\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556"
    "\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a"
    "\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4"
    "\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
    "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f"
    "\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b"
    "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    "\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_AFMOE_SCRIPTS = (
    "[\u4e00-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u309f\u30a0-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0e7f"
    "\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
_YOUTU_SCRIPTS = (
    "[\uac00-\ud7a3\u3131-\u318e]+|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f"
    f"\ufe30-\ufe4f]+|[\u3105-\u312f]+|{_CJK}"
)

_DIGITS_APART = PreTokenizer((_ONE, GPT2))
_PLAIN = PreTokenizer((GPT2,))
_LLAMA = PreTokenizer((_LLAMA3,))
_QWEN = PreTokenizer((_QWEN2,))
_DEEPSEEK3 = PreTokenizer((_THREE, _CJK, _PUNCTUATED))
_GPT4O = PreTokenizer((_cased(r"\p{L}", _THREE, _SHORT),))
_AYA = PreTokenizer((_GROUPS, _tiktoken(_MARKED, _THREE, r" ?[^\s\p{L}\p{N}]+[\r\n/]*")))

# Families of names that llama.cpp treats alike, and the names.
_FAMILIES: tuple[tuple[PreTokenizer, str], ...] = (
    # What a file without a name gets.
    (PreTokenizer((r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")), "default"),
    (_DIGITS_APART, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
    (
        _PLAIN,
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code"
        " roberta-bpe mpt olmo jais exaone4 trillion granite-docling",
    ),
    (
        PreTokenizer((_LLAMA3,), whole_words=True, add_bos=True),
        "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    ),
    (_LLAMA, "dbrx smaug-bpe glm4 chatglm-bpe"),
    (
        _QWEN,  # of bailingmoe the "\\s*[\\r\\n]" without a plus means the same
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 bailingmoe bailingmoe2"
        " llada-moe",
    ),
    (
        PreTokenizer(
            (_tiktoken(rf"{_CONTRACTION}|{_PREFIX}[\p{{L}}\p{{M}}]+", _ONE, r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"),)
        ),
        "qwen35",
    ),
    (PreTokenizer((_tiktoken(_WORDS, _THREE, tail=_JAIS2_TAIL),)), "jais-2"),
    (PreTokenizer((_THREE, _tiktoken(_WORDS, r"\p{N}+")), whole_words=True), "minicpm5"),
    (PreTokenizer((_tiktoken(_WORDS, _ONE, r" ?[^\s\p{L}\p{N}\r\n]+"),)), "seed-coder"),
    (
        PreTokenizer(
            (
                _tiktoken(
                    rf"{_CONTRACTION}|{_PREFIX}(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+",
                    _ONE,
                    r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
                ),
            )
        ),
        "exaone-moe",
    ),
    (PreTokenizer((_LINES, _QWEN2)), "laguna"),
    (_GPT4O, "gpt-4o llama4 kanana2 talkie minimax-m2"),
    (PreTokenizer((_cased(r"\p{L}", _ONE),), whole_words=True, add_bos=True), "tekken"),
    (PreTokenizer((_cased(r"\p{L}\p{M}", _THREE, _SHORT),), whole_words=True), "granite-embed-multi-97m"),
    (_AYA, "tiny_aya cohere2moe"),
    (
        PreTokenizer((_YOUTU_SCRIPTS, _tiktoken(_MARKED, _ONE, r" ?[^\s\p{L}\p{N}]+[\r\n/]*")), whole_words=True),
        "youtu",
    ),
    (
        PreTokenizer((_tiktoken(rf"[{_HAN}]+|{_PREFIX}(?:(?![{_HAN}])\p{{L}})+{_SHORT}", _THREE),)),
        "kimi-k2",
    ),
    (
        PreTokenizer(
            (
                "[\r\n]",
                _expand(rf"\s?[{_DEEPSEEK_LETTERS}]+"),
                _expand("\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3001\u3002]+"),
                _expand(r"\s+") + r"(?![\s\S])",
                _DEEPSEEK_CJK,
                r"\p{N}+",
            )
        ),
        "deepseek-llm",
    ),
    (
        PreTokenizer(("[\r\n]", _expand(r"\s?\p{L}+"), _expand(r"\s?\p{P}+"), _DEEPSEEK_CJK, _ONE)),
        "deepseek-coder",
    ),
    (_DEEPSEEK3, "deepseek-v3 hunyuan-dense joyai-llm"),
    (PreTokenizer((_GROUPS, _AFMOE_SCRIPTS, _PUNCTUATED)), "afmoe"),
    (PreTokenizer((r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]")), "falcon"),
    (PreTokenizer((_BLOOM,)), "poro-chat bloom gpt3-finnish"),
    (PreTokenizer((_BLOOM, _ONE)), "viking"),
    (PreTokenizer((r"\p{N}+", r"(?=(?:[0-9]{3})+(?![0-9]))")), "superbpe"),
    (
        PreTokenizer(
            (
                "<sentinel:[0-9]+>",
                "IMGIMG[A-I]{1,4}Z",
                "[\t\n]|    |  ",
                _ONE,
                r"[\p{P}!-/:-@\[-`{-~]",
                GPT2,
            ),
            add_bos=True,
        ),
        "chameleon",
    ),
)
PRE_TOKENIZERS: dict[str, PreTokenizer] = {name: pre for pre, names in _FAMILIES for name in names.split()}
