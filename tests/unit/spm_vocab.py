"""SentencePiece vocabularies for the tokenizer's tests, and two oracles.

`peer` is the tokenizer of the `tokenizers` package with the merges that its own converter would make of the
vocabulary; `slow_encode` is what the file format says, step by step, without any of our tables.
"""

import itertools
import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers

import edgellm._core as core

MARK = "▁"
CHARACTERS = MARK + "aeiourstnl'0123\n.é中文😀"
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)


@dataclass(frozen=True)
class SpmVocab:
    """Parts of a SentencePiece vocabulary, as a GGUF file lists them."""

    tokens: list[str]
    types: list[int]
    scores: list[float]
    space: bool = True
    ids: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", {token: i for i, token in enumerate(self.tokens)})

    def ours(self, **options: Any) -> core.Tokenizer:
        """Our tokenizer."""
        parts = {"model": "llama", "scores": self.scores, "add_space_prefix": int(self.space)}
        ids = {"unk": self.ids["<unk>"], "bos": self.ids["<s>"], "eos": self.ids["</s>"]}
        return core.Tokenizer(self.tokens, self.types, [], "", **{**parts, **ids, **options})

    def peer(self) -> Tokenizer:
        """The package's tokenizer: merges of every token into two tokens, the best score first."""
        plain = [t for t, kind in zip(self.tokens, self.types, strict=True) if kind in (NORMAL, UNUSED)]
        merges = []
        for token in sorted(plain, key=lambda t: -self.scores[self.ids[t]]):
            cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
            merges += [cut for cut in cuts if all(self.ids.get(p, 0) and p in plain for p in cut)]
        model = models.BPE(
            self.ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=BYTE in self.types
        )
        peer = Tokenizer(model)
        steps: list[Any] = [normalizers.Prepend(MARK)] if self.space else []
        peer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", MARK)])
        back: list[Any] = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
        peer.decoder = decoders.Sequence(back + ([decoders.Strip(" ", 1, 0)] if self.space else []))
        return peer

    def slow_encode(self, text: str) -> list[int]:
        """Merge the neighbours whose text is the token of the best score, leftmost first, until none is."""
        usable = {
            t: i
            for t, i in self.ids.items()
            if t and " " not in t and self.types[i] in (NORMAL, USER, UNUSED)
        }
        symbols = list((" " * (self.space and bool(text)) + text).replace(" ", MARK))
        while True:
            pairs = [(i, usable.get(a + b)) for i, (a, b) in enumerate(itertools.pairwise(symbols))]
            found = [(-self.scores[token], i) for i, token in pairs if token is not None]
            if not found:
                break
            _, at = min(found)
            symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
        ids: list[int] = []
        unknown = False
        for symbol in symbols:
            raw = [self.ids.get(f"<0x{byte:02X}>") for byte in symbol.encode()]
            if symbol in usable:
                ids.append(usable[symbol])
            elif None not in raw:
                ids += [i for i in raw if i is not None]
            elif not unknown:
                ids.append(self.ids["<unk>"])
            unknown = symbol not in usable and None in raw
        return ids


def _has_border(text: str) -> bool:
    """Whether a text can overlap itself: where two ways to merge it meet, the oracles may differ."""
    return any(text[:i] == text[-i:] for i in range(1, len(text)))


@cache
def small(bytes_too: bool = True, space: bool = True) -> SpmVocab:
    """All bytes, single characters and 1,200 longer tokens, each made of two others, with falling scores."""
    rng = random.Random(5)
    tokens = ["<unk>", "<s>", "</s>"]
    types = [UNKNOWN, CONTROL, CONTROL]
    if bytes_too:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        types += [BYTE] * 256
    pieces: list[str] = []
    seeds = list(CHARACTERS)
    while len(pieces) < 1200:
        joined = rng.choice(seeds + pieces) + rng.choice(seeds + pieces[:200])
        if len(joined) <= 8 and MARK not in joined[1:] and joined not in pieces and not _has_border(joined):
            pieces.append(joined)
    scores = [0.0] * len(tokens) + [-float(i) for i in range(len(pieces) + len(seeds))]
    tokens += pieces + seeds
    types += [NORMAL] * (len(pieces) + len(seeds))
    return SpmVocab(tokens, types, scores, space)


def anything(seed: int) -> SpmVocab:
    """Tokens of random letters whose parts need not be tokens, equal scores, marks inside, usable types."""
    rng = random.Random(seed)
    letters = rng.choice(["ab", "abc" + MARK, "ab中😀" + MARK])
    drawn = {"".join(rng.choices(letters, k=rng.randint(1, rng.choice([2, 4, 9])))) for _ in range(60)}
    tokens = ["<unk>", "<s>", "</s>", *sorted(drawn)]
    types = [UNKNOWN, CONTROL, CONTROL, *(rng.choice([NORMAL, NORMAL, UNUSED]) for _ in drawn)]
    if rng.random() < 0.5:
        tokens += [f"<0x{byte:02X}>" for byte in range(256)]
        types += [BYTE] * 256
    scores = [float(rng.choice([-1.5, -1.0, -0.0, 0.0, 2.0])) for _ in tokens]
    return SpmVocab(tokens, types, scores, rng.random() < 0.5)
