"""Vocabularies for the tokenizer's tests: a small one made here, and the real one of SmolLM2.

`peer` builds the tokenizer of the `tokenizers` package from the same parts, as the oracle.
"""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import Regex, Tokenizer, decoders, models
from tokenizers import pre_tokenizers as pre

import edgellm._core as core

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MODERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,%d}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _cut(regex: str) -> Any:
    return pre.Split(Regex(regex), "isolated")


def _steps(*steps: Any) -> Any:
    return pre.Sequence([*steps, pre.ByteLevel(add_prefix_space=False, use_regex=False)])


CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%s"
    r"|\p{N}{1,%d}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TAIL = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


PEERS = {  # the pre-tokenizer that each GGUF name stands for
    "smollm": pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
    "gpt-2": pre.ByteLevel(add_prefix_space=False),
    "llama-bpe": _steps(_cut(MODERN % 3)),
    "qwen2": _steps(_cut(MODERN % 1)),
    "qwen35": _steps(
        _cut((MODERN % 1).replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"^\s\p{L}", r"^\s\p{L}\p{M}"))
    ),
    "seed-coder": _steps(_cut((MODERN % 1).replace(r"[^\s\p{L}\p{N}]+[\r\n]*", r"[^\s\p{L}\p{N}\r\n]+"))),
    "ufakzeka": _steps(_cut((MODERN % 1).split("|", 7)[-1])),
    "tekken": _steps(_cut(CASED % ("", "", 1))),
    "gpt-4o": _steps(_cut(CASED % (TAIL, TAIL, 3))),
    "default": _steps(
        _cut(r"[\p{P}\$\+<=>\^~\|]+"),
        _cut(GPT2.removesuffix(r"|\s+")),
        _cut(r"\p{N}+"),
        _cut("[0-9][0-9][0-9]"),
    ),
}
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im", "<tool>"]  # the last is user-defined


@cache
def byte_alphabet() -> list[str]:
    """GPT-2's character for each byte, by its own rule: printable ones stay, the others follow U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@dataclass(frozen=True)
class Vocab:
    """Parts of a byte-level BPE vocabulary, as a GGUF file lists them."""

    tokens: list[str]
    types: list[int]
    merges: list[str]

    def ours(self, name: str = "smollm", **options: Any) -> core.Tokenizer:
        """Our tokenizer with the pre-tokenizer of that GGUF name."""
        return core.Tokenizer(self.tokens, self.types, self.merges, name, **options)

    def peer(self, name: str = "smollm") -> Tokenizer:
        """The package's tokenizer with the same merges."""
        ids = {token: i for i, token in enumerate(self.tokens)}
        merges = [tuple(merge.split(" ")) for merge in self.merges]
        peer = Tokenizer(models.BPE(ids, merges, ignore_merges=name in {"llama-bpe", "tekken"}))
        peer.pre_tokenizer = PEERS[name]
        peer.decoder = decoders.ByteLevel()
        return peer


@cache
def small() -> Vocab:
    """A vocabulary of all bytes and 1,500 merges, drawn at random from what tokens may be joined."""
    rng = random.Random(3)
    alphabet = byte_alphabet()
    tokens = SPECIALS + alphabet
    merges: list[str] = []
    seeds = [alphabet[b] for b in b" aeiourstnl\n'0123" + "é中文😀".encode()]
    grown = list(seeds)
    while len(merges) < 1500:
        left, right = rng.choice(grown), rng.choice(seeds if rng.random() < 0.5 else grown)
        if len(left + right) <= 9 and left + right not in grown:
            merges.append(f"{left} {right}")
            grown.append(left + right)
            tokens.append(left + right)
    types = [3, 3, 3, 3, 4] + [1] * (len(tokens) - len(SPECIALS))
    return Vocab(tokens, types, merges)


@cache
def fields(path: Path) -> dict[str, Any]:
    """The metadata of a GGUF file, read by the `gguf` package."""
    return dict(GGUFReader(path).fields)


@cache
def of_file(path: Path) -> Vocab:
    """The vocabulary of a GGUF file."""
    keys = ("tokens", "token_type", "merges")
    return Vocab(*(fields(path)[f"tokenizer.ggml.{key}"].contents() for key in keys))


@cache
def real(path: Path) -> core.Tokenizer:
    """Our tokenizer of the SmolLM2 file."""
    return of_file(path).ours(bos=1, eos=2)


def texts(count: int, seed: int) -> list[str]:
    """Texts of many kinds: words, digits, Chinese, emoji, control characters, random bytes and characters."""
    rng = random.Random(seed)
    words = [
        "the ",
        "Hello",
        " world",
        "'s",
        "'re",
        "'LL",
        " 123",
        "４５",
        "Ⅷ",
        "₁²",
        "中文",
        "天地玄黄",
        " 你好",
        "한국어",
    ]
    words += [
        "😀",
        "👨‍👩‍👧",
        "🏳️‍🌈",
        "\n",
        "\r\n",
        "\t",
        "  ",
        "\u00a0",
        "\u3000",
        "\u2028",
        "\x85",
        "\x1c",
        "\x00",
        "\x04",
    ]
    words += [
        "é",
        "e\u0301",
        "\u200b",
        "ﬁ",
        "'ſ",
        "İ",
        "กข",
        "ا",
        "=",
        "<|im_end|>",
        "<|",
        "_",
        "`$",
        "aaaaaaa",
        "def f(x):\n    ",
    ]

    def points() -> str:
        drawn = (rng.randrange(0x110000) for _ in range(rng.randint(1, 12)))
        return "".join(chr(p) for p in drawn if not 0xD800 <= p < 0xE000)

    def noise(encoding: str) -> str:
        return rng.randbytes(rng.randint(0, 40)).decode(encoding, "replace")

    kinds = [
        lambda: "".join(rng.choices(words, k=rng.randint(0, 12))),
        lambda: noise("utf-8"),
        lambda: noise("latin-1"),
        points,
    ]
    return [kinds[i % 4]() for i in range(count)]
