"""Makes tokenizers.json.xz, or checks real vocabularies, with llama.cpp as the witness.

    npm install --ignore-scripts node-llama-cpp@3.21.1 @node-llama-cpp/linux-x64@3.21.1    # in a folder NODE
    PYTHONPATH=tests python tests/reference/make_tokenizers.py make NODE
    PYTHONPATH=tests python tests/reference/make_tokenizers.py check NODE FILE.gguf… [--texts 3000]

``check`` builds the tokenizer of each file and compares ids of odd texts: every ggml-vocab-*.gguf of llama.cpp's
models/ will do (the package carries the repository as llama/gitRelease.bundle).
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, trainers

from inpage.text.tokenizer import load_tokenizer
from inpage_compile.tokenizers.pre_tokenizers import PRE_TOKENIZERS
from support.odd_texts import odd_texts
from support.tiny import byte_letters
from support.vocabularies import SPM, STORED, tokenizer_of, write_vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
TEXTS, MERGES = 400, 1200
# Bytes without a token, as some vocabularies lack: llama.cpp leaves them out.
MISSING = (0x04, 0x1E)


def llama(node: Path, files: list[Path], texts: list[str], ids: list[list[int]]) -> list[Any]:
    given = {"files": [str(path.resolve()) for path in files], "texts": texts, "ids": ids}
    script = Path(__file__).with_name("llama_tokenize.mjs")
    with tempfile.TemporaryDirectory() as folder:
        asked, out = Path(folder, "asked.json"), Path(folder, "out.json")
        asked.write_text(json.dumps(given))
        subprocess.run(["node", str(script), str(asked), str(out)], cwd=node, check=True, capture_output=True)
        found: list[Any] = json.loads(out.read_text("utf-8"))
    return found


def trained(texts: list[str], letters: list[str], reserved: tuple[str, ...]) -> list[list[str]]:
    """Merges of whatever stands together often, across words, blanks and digits: so that ids show each cut."""
    library = tokenizers.Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=len(letters) + MERGES, initial_alphabet=letters, limit_alphabet=len(letters), min_frequency=2,
        max_token_length=9, show_progress=False,
    )  # fmt: skip
    library.train_from_iterator(texts, trainer)
    merges: list[list[str]] = json.loads(library.to_str())["model"]["merges"]
    known, kept = set(letters), []
    for pair in merges:
        text = "".join(pair)
        # Whatever a control token's spelling could be merged from: llama.cpp would make the token itself of it.
        part = ("<" in text or ">" in text) and any(text in whole for whole in reserved)
        if known.issuperset(pair) and not part:
            known.add(text)
            kept.append(pair)
    return kept


def vocabularies() -> dict[str, Any]:
    more = odd_texts(6000, seed=11)
    letter = byte_letters()
    words = ["".join(letter[b] for b in text.encode()) for text in more]
    known = [text for b, text in enumerate(letter) if b not in MISSING]
    merges = trained(words, known, ("<|end|>", "<|im_end|>", "<|tag|>", "</s>"))
    tokens = ["<|end|>", "<|im_end|>", "<|tag|>", *known, *dict.fromkeys(a + b for a, b in merges)]
    kinds = [CONTROL, CONTROL, USER_DEFINED, *[NORMAL] * (len(tokens) - 3)]
    byte_level = {"tokens": tokens, "kinds": kinds, "merges": [" ".join(pair) for pair in merges]}
    spaced = [text.replace(" ", "\u2581") for text in more]
    often = [c for c in dict.fromkeys("".join(spaced)) if c == "\u2581" or sum(c in text for text in spaced) > 30]
    special = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))]
    made = list(dict.fromkeys(a + b for a, b in trained(spaced, often, (*special, "<|tag|>"))))
    tokens = [*special, "<|tag|>", "   ", *made, *often]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, USER_DEFINED, USER_DEFINED, *[NORMAL] * (len(made) + len(often))]
    scores = [*[0.0] * (len(special) + 2), *(-float(i) for i in range(len(made) + len(often)))]
    return {"byte_level": byte_level, "sentencepiece": {"tokens": tokens, "kinds": kinds, "scores": scores}}


def make(node: Path) -> None:
    texts, kinds = odd_texts(TEXTS), vocabularies()
    names = [*PRE_TOKENIZERS, *SPM]
    rng = random.Random(5)
    size = len(kinds["sentencepiece"]["tokens"])
    ids = [[rng.choice((rng.randrange(3, 262), rng.randrange(259, size))) for _ in range(12)] for _ in range(150)]
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for i, name in enumerate(names):
            path = Path(folder, f"{i}.gguf")
            spm = name in SPM
            vocabulary = kinds["sentencepiece" if spm else "byte_level"]
            files.append(
                write_vocabulary(path, "llama" if spm else "gpt2", vocabulary, SPM[name] if spm else {"pre": name})
            )
        bpe, spm_found = llama(node, files[: -len(SPM)], texts, []), llama(node, files[-len(SPM) :], texts, ids)
    found = dict(zip(names, [*bpe, *spm_found], strict=True))
    rows: list[list[list[int]]] = [[] for _ in texts]
    which: dict[str, Any] = {}
    for name, answers in found.items():
        which[name] = {}
        for way in ("plain", "parsed"):
            for row, some in zip(rows, answers[way], strict=True):
                if some not in row:
                    row.append(some)
            which[name][way] = [row.index(some) for row, some in zip(rows, answers[way], strict=True)]
    decoded = {name: [[some, text] for some, text in zip(ids, found[name]["decoded"], strict=True)] for name in SPM}
    whole = {"made_by": "llama.cpp (npm node-llama-cpp 3.21.1), make_tokenizers.py", "texts": texts,
             "vocabularies": kinds, "rows": rows, "which": which, "decoded": decoded}  # fmt: skip
    STORED.write_bytes(lzma.compress(json.dumps(whole).encode(), preset=9))
    print(f"{len(names)} tokenizers, {len(texts)} texts, {STORED.stat().st_size} bytes")


def check(node: Path, files: list[Path], count: int) -> int:
    texts, wrong = odd_texts(count, runs=(2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100)), 0
    for path in files:
        (found,) = llama(node, [path], texts, [])
        built = tokenizer_of(path)
        tokenizer = load_tokenizer(json.dumps(built.json), built.special)
        differ = []
        for text, plain, parsed in zip(texts, found["plain"], found["parsed"], strict=True):
            for way, got, want in (
                ("plain", tokenizer.encode(text), plain),
                ("parsed", tokenizer.encode_rendered(text, {}), parsed),
            ):
                if got != want:
                    differ.append((text, way, got, want))
        wrong += len(differ)
        size = len(json.dumps(built.json, ensure_ascii=False, separators=(",", ":")).encode())
        print(f"{path.name}: {len(texts)} texts, {len(differ)} differ; tokenizer.json has {size:,} bytes", flush=True)
        for text, way, got, want in differ[:3]:
            print(f"  {way} {text!a:.80}\n    ours      {got[:30]}\n    llama.cpp {want[:30]}")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("make", "check"))
    parser.add_argument("node", type=Path)
    parser.add_argument("files", type=Path, nargs="*")
    parser.add_argument("--texts", type=int, default=3000)
    args = parser.parse_args()
    if args.what == "check":
        raise SystemExit(check(args.node, args.files, args.texts))
    make(args.node)
