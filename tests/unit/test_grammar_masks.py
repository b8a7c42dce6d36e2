"""Masks of compiled grammars beside a reader that writes everything out (tests/helpers/gbnf_reference.py)."""

import random

import numpy as np
import pytest
from helpers.gbnf_reference import NEVER, Reader, gbnf, random_grammar

from edgellm import GrammarError, Tokenizer
from edgellm.grammar import Matcher, from_gbnf

TEXTS = ["a", "b", "c", "d", "é", "€", "ab", "ba", "aa", "aaaa", "abcabc", "éa", "€€", "a" * 40, "bb", "cab"]
TOKENS = [t.encode() for t in TEXTS]
TOKENS += [bytes([b]) for b in "é€è₫".encode()] + [b"a\xc3", b"\xa9b", b"\xe2\x82", b"\xac\xe2", b"\xff"]
TYPES = [4] * len(TOKENS) + [3, 3, 5]
TOKENS += [b"<end>", b"<control>", b"<unused>"]
END = TOKENS.index(b"<end>")
TOKENIZER = Tokenizer(TOKENS, TYPES, [], "gpt-2", eos=END)
SINGLE = frozenset(t[0] for t, kind in zip(TOKENS, TYPES, strict=True) if len(t) == 1 and kind == 4)


def allowed(matcher: Matcher, left: int | None = None) -> set[int]:
    logits = np.zeros(len(TOKENS), np.float32)
    try:
        matcher.mask(logits, left)
    except GrammarError:
        return set()
    return set(np.flatnonzero(logits == 0).tolist())


def expected(reader: Reader, ways: frozenset, left: int | None = None) -> set[int]:
    ids = {END} if reader.complete(ways) else set()
    for i, token in enumerate(TOKENS):
        if TYPES[i] == 4:
            cost = reader.shortest(reader.read(ways, token))
            if cost < NEVER and (left is None or cost <= left - 1):
                ids.add(i)
    return ids


def compile_random(seed: int):
    """A random grammar and its matcher, or None where it is refused for a reason that the reader confirms."""
    rules = random_grammar(random.Random(seed))
    reader = Reader(rules, SINGLE)
    try:
        return reader, from_gbnf(TOKENIZER, gbnf(rules)).matcher()
    except GrammarError as refused:
        why = str(refused)
    if "no token" in why:
        assert reader.shortest(reader.start()) >= NEVER
    elif "never end" in why:
        assert NEVER in Reader(rules, frozenset(range(256))).lengths.values()
    else:
        assert "left recursion" in why
    return None


@pytest.mark.parametrize("block", range(10))
def test_mask_equals_the_reference_on_random_grammars(block):
    walked = 0
    for seed in range(block * 40, block * 40 + 40):
        pair = compile_random(seed)
        if pair is None:
            continue
        reader, matcher = pair
        rng = random.Random(seed)
        ways = reader.start()
        for _ in range(12):
            ids = expected(reader, ways)
            assert allowed(matcher) == ids, seed
            assert matcher.complete == reader.complete(ways)
            assert matcher.shortest == reader.shortest(ways)
            left = matcher.shortest + rng.choice([0, 0, 1, 2, 5])
            assert allowed(matcher, left) == expected(reader, ways, left), (seed, left)
            walked += 1
            choices = sorted(ids - {END})
            if not choices or len(ways) > 40:
                break
            token = rng.choice(choices)
            matcher.accept(token)
            ways = reader.read(ways, TOKENS[token])
    assert walked > 100


def test_tokens_left_always_completes():
    for seed in range(150):
        pair = compile_random(seed)
        if pair is None:
            continue
        matcher = pair[1]
        rng = random.Random(seed)
        left = matcher.shortest + rng.choice([0, 1, 3, 8])
        while ids := sorted(allowed(matcher, left) - {END}):
            matcher.accept(rng.choice(ids))
            left -= 1
        assert matcher.complete, seed
        assert left >= 0, seed
