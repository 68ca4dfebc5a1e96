"""Texts that tokenizers may take differently: every plane and category of Unicode, blanks of all kinds, digits, runs,
contractions, control tokens spelled out, code, emoji. What is made depends on Python's version of Unicode, so what was
made is stored with the ids that a witness gave for it."""

from __future__ import annotations

import random
import unicodedata

_TEXT = (
    "the Hello WORLD iPhone XMLHttpRequest don't I'LL we've you're it'd O'Neil 'S \u017f \u212a \xc9t\xe9 "
    "\xc9T\xc9t\xe9 stra\xdfe \u0130stanbul \u0132SSEL \u043f\u0440\u0438\u0432\u0435\u0442 "
    "\u041f\u0420\u0418\u0412\u0415\u0422 \u0393\u03b5\u03b9\u03ac \u4f60\u597d\u4e16\u754c \u4eca\u5929\u5929\u6c14 "
    "\u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca \uc548\ub155\ud558\uc138\uc694 "
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0928\u092e\u0938\u094d\u0924\u0947 \u0bae\u0bbe\u0bb2\u0bc8 "
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0661\u0662\u0663 \u0967\u0968\u0969 "
    "\uff11\uff12\uff13 \u2163 \xbd 12 123 1234 12345 1234567 3.14 2024-01-02 0x1F <s> </s> <unk> <|im_end|> <|tag|> "
    "<0x0A> IMGIMGABCDZ <sentinel:12> \u2581 \u2581\u2581the \u0120 \u010a \ufdfd e\u0301 n\u0303o "
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7\U0001f1e9 \u2764\ufe0f \U0001f44d\U0001f3fd "
    "\u0300\u0301 \u2026 \u3002 \uff0c \u3001 \u0964 \u06d4 \u060c \u2014 \u201cx\u201d \u2018y\u2019 \xabz\xbb "
    "/// :: -> ==== $$$ ``` ~~~ ^^^ |||"
)
_WORDS = _TEXT.split()
_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_MARKS += "\u2026\u3002\uff0c\u3001\u0964\xa1\xbf\xa7\xb6\u2020\u20ac\xa3\xb0\xb1\u2192\u2200\u221e"
_BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000\u200b\ufeff\u180e\u2060"
_SHORT = ("'s", "'S", "'ll", "'LL", "'re", "'ve", "'m", "'t", "'D", "\u2019s")
_LINES = ("\r\n", "\n", "\r", "\n\n", " \n", "\n ")
_CODE = (
    "def f(x):\n    return x\n",
    '<div class="a">',
    '{"k": [1, 2.5e-3]}',
    "https://a.b/c?d=%20",
    "a_b __init__",
    "x+=1;//c",
)
_RUNS = (
    " ",
    "a",
    "=",
    "\n",
    "\t",
    "ab",
    "aba",
    "haha",
    "\u2581",
    "\xe9",
    "\u3042",
    "1",
    "\U0001f44d",
    "\u0301",
    " a",
    " \n",
)
_FIRST = ("", " ", "  ", "   ", "\n", "\n\n", "\t\n", " \n ", "a", " a", "a ", "'", "\x00", "\x01\x1e\x7f\x80")
_STARTS = (
    0x0, 0x80, 0x100, 0x300, 0x370, 0x400, 0x590, 0x600, 0x900, 0xE00, 0x1100, 0x1E00, 0x2000, 0x2100, 0x2460, 0x3000,
    0x3040, 0x4E00, 0xAC00, 0xE000, 0xF900, 0xFF00, 0x10400, 0x1D400, 0x1F300, 0x1F900, 0x20000, 0x30000, 0xE0000,
)  # fmt: skip


def odd_texts(count: int, seed: int = 7, runs: tuple[int, ...] = (2, 3, 5, 8, 17)) -> list[str]:
    """``count`` texts, the same on each call. ``runs``: lengths of runs."""
    rng = random.Random(seed)
    assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
    categories: dict[str, list[str]] = {}
    for c in assigned:
        categories.setdefault(unicodedata.category(c), []).append(c)
    kinds = sorted(categories)
    makers = (
        lambda: rng.choice(_WORDS),
        lambda: " " + rng.choice(_WORDS),
        lambda: rng.choice(_WORDS) + rng.choice(_MARKS),
        lambda: "".join(rng.choices(_BLANKS, k=rng.randint(1, 4))),
        lambda: " " * rng.randint(1, 9),
        lambda: "".join(rng.choices(_MARKS, k=rng.randint(1, 5))),
        lambda: "".join(rng.choices("0123456789", k=rng.randint(1, 11))),
        lambda: "".join(rng.choices(assigned, k=rng.randint(1, 3))),
        lambda: "".join(rng.choices(categories[rng.choice(kinds)], k=rng.randint(1, 4))),
        lambda: _block(rng, rng.choice(_STARTS)),
        lambda: rng.choice("aAzZ\xe9\xc9\u0131\u01c5\u4e2d\ud55c\u30421\u0663") * rng.randint(1, 12),
        lambda: "".join(rng.choices("abcdeABCDE' ", k=rng.randint(2, 12))),
        lambda: rng.choice(_LINES) * rng.randint(1, 3),
        lambda: rng.choice(_SHORT),
        lambda: rng.randbytes(rng.randint(1, 6)).decode("latin-1"),
        lambda: rng.choice(_CODE),
    )
    texts = [*_FIRST, *(run * times for run in _RUNS for times in runs)]
    while len(texts) < count:
        texts.append("".join(rng.choice(makers)() for _ in range(rng.randint(1, 7))))
    return texts[:count]


def _block(rng: random.Random, start: int) -> str:
    found = (chr(start + rng.randrange(256)) for _ in range(rng.randint(1, 5)))
    return "".join(c for c in found if unicodedata.category(c) not in ("Cn", "Cs"))
