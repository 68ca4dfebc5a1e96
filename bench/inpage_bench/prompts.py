"""Prompts of an exact number of tokens, any number of different ones, the same on every machine: sentences of a town's
chronicle put together from a seed, tokenized and cut."""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Iterator, Sequence

from inpage.text.tokenizer import Tokenizer

_WHO = (
    "the miller", "a young surveyor", "the widow Arendt", "the ferryman", "an apprentice glazier", "the schoolmaster",
    "two brothers from the hill farm", "the keeper of the lighthouse", "a travelling printer", "the baker's daughter",
    "the new magistrate", "an old clockmaker", "the choir of the upper town", "a botanist from the coast",
)  # fmt: skip
_DID = (
    "sold {n} sacks of barley to", "repaired the eastern bridge for", "borrowed a ladder and {n} lanterns from",
    "wrote a long letter about the harvest to", "measured the river's height and reported it to",
    "planted {n} pear trees in the garden of", "lost a wager on the weather to", "carried news of the flood to",
    "drew a map of the northern road for", "exchanged {n} silver coins with", "taught the alphabet to the children of",
    "asked for advice on the new roof from", "built a small telescope together with",
)  # fmt: skip
_WHERE = (
    "near the old harbour", "behind the market hall", "on the road to the salt works", "under the great chestnut tree",
    "in the reading room", "at the edge of the forest", "by the third milestone", "in front of the town hall",
    "along the canal", "at the weekly fair",
)  # fmt: skip
_THEN = (
    "Nobody had expected this, and it was talked about for weeks.", "The weather was clear, with a light wind.",
    "It rained until the evening, so the work was finished a day later.", "A short notice appeared in the newspaper.",
    "The account books show that everything was paid in full.", "In the end both sides were content.",
    "Snow fell that night, the first of the year.", "The reasons for it are still debated.",
)  # fmt: skip
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def draws(seed: str) -> Iterator[int]:
    """Uniform 32-bit numbers: SHA-256 in counter mode, so that no version of a library changes them."""
    count = 0
    while True:
        block = hashlib.sha256(f"{seed}/{count}".encode()).digest()
        yield from (int.from_bytes(block[i : i + 4], "big") for i in range(0, 32, 4))
        count += 1


def sentences(seed: str) -> Iterator[str]:
    """An endless text."""
    numbers = draws(seed)

    def pick(words: Sequence[str]) -> str:
        return words[next(numbers) % len(words)]

    while True:
        date = f"On the {next(numbers) % 28 + 1} of {pick(_MONTHS)} {1700 + next(numbers) % 200}"
        did = pick(_DID).format(n=next(numbers) % 90 + 3)
        yield f"{date}, {pick(_WHO)} {did} {pick(_WHO)} {pick(_WHERE)}. {pick(_THEN)} "


def text(seed: str, words: int) -> str:
    """Exactly so many."""
    found: list[str] = []
    for sentence in sentences(seed):
        found += sentence.split()
        if len(found) >= words:
            break
    return " ".join(found[:words])


def prompt(tokenizer: Tokenizer, seed: str, tokens: int) -> list[int]:
    """Exactly ``tokens`` ids; another ``seed``, another text from the first sentence on."""
    text, source = "", sentences(seed)
    size = 64
    while True:
        while len(text) < size:
            text += next(source)
        ids = tokenizer.encode(text)
        if len(ids) >= tokens:
            return list(ids[:tokens])
        size *= 2


def zipf(requests: int, over: int, seed: str = "zipf") -> list[int]:
    """Which of ``over`` prompts each of ``requests`` asks: prompt k with a probability that goes as 1 / (k + 1)."""
    ends = list(itertools.accumulate(1 / (rank + 1) for rank in range(over)))
    numbers = itertools.islice(draws(seed), requests)
    return [bisect.bisect(ends, number / 2**32 * ends[-1], hi=over - 1) for number in numbers]
