"""Random numbers that depend on their key alone: what one message meets does not hang on what others do.

A sequential stream gives the n-th draw to whoever comes n-th, so that one more message of one strategy
changes the luck of all later ones. Here the number is a hash of (seed, entity, purpose, index).
"""

from __future__ import annotations

import hashlib

import numpy as np

from edgellm import _sim

#: More losses than this are drawn by NumPy's generator instead of summing probabilities.
_MANY = 100.0


def key(seed: int, *names: object) -> int:
    """Return 64 bits that stand for a seed, an entity and a purpose."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def mixed(word: int, *indices: int) -> int:
    """Return 64 bits that stand for a key and indices below it.

    Source: the finalizer of SplitMix64 (Steele, Lea and Flood 2014), applied after each index.

    Examples
    --------
    >>> mixed(1, 2, 3) == mixed(1, 2, 3) != mixed(1, 3, 2)
    True
    """
    return _sim.mixed(word, *indices)


def unharmed_below(units: int, loss: float) -> int:
    """Return a word below which a message of so many units loses none; see `lost`.

    Examples
    --------
    >>> 0 <= (1 << 62) - unharmed_below(2, 0.5) <= 4096
    True
    """
    if units * loss > _MANY * (1.0 - loss):
        return 0
    return max(0, int((1.0 - loss) ** units * 2.0**64) - 4096)  # where rounding decides nothing


def lost(units: int, loss: float, word: int) -> int:
    """Return how many transmissions are lost until `units` have arrived, each lost with probability `loss`.

    The negative binomial distribution at the share that `word` is of 2^64, so that of two messages with the
    same key the longer one never loses less.

    Parameters
    ----------
    units : int
        At least 1.
    loss : float
        In [0, 1).
    word : int
        64 random bits.

    Examples
    --------
    >>> lost(1, 0.5, 0), lost(1, 0.5, 3 << 62), lost(4, 0.5, 3 << 62)
    (0, 2, 6)
    """
    if units * loss > _MANY * (1.0 - loss):
        return int(np.random.Generator(np.random.PCG64(word)).negative_binomial(units, 1.0 - loss))
    share = word / 2.0**64
    probability = total = (1.0 - loss) ** units
    count = 0
    while total <= share and probability > 1e-18:
        count += 1
        probability *= loss * (units + count - 1) / count
        total += probability
    return count
