"""One vector per text, from the hidden states of a decoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgellm import _core

if TYPE_CHECKING:
    from edgellm.model import Model

POOLING = ("mean", "last")
_CHUNK = 512  # tokens of texts that are evaluated together, whose hidden states are held
_TOGETHER = 16  # texts without a cap on memory; each has a cache of at least 64 positions


def embed(model: Model, texts: Sequence[Sequence[int]], pooling: str, normalize: bool) -> NDArray[np.float32]:
    """See `edgellm.Model.embed`; the texts are token ids."""
    if pooling not in POOLING:
        raise ValueError(f"embed: pooling must be 'mean' or 'last', got {pooling!r}")
    limit = model.config.context
    for i, ids in enumerate(texts):
        if not ids:
            raise ValueError(f"embed: texts[{i}] has no tokens")
        if len(ids) > limit:
            raise _core.ContextError(
                f"embed: texts[{i}] has {len(ids)} tokens, the model was trained for {limit}"
            )
    vectors = np.empty((len(texts), model.config.width), np.float32)
    for group in _groups(texts, 1 if model.max_bytes is not None else _TOGETHER):
        own = [texts[i] for i in group]
        for i, vector in zip(group, _pooled(model, own, pooling), strict=True):
            if normalize:
                # exact sums, so that the vector is the same on every machine
                length = math.sqrt(math.fsum((vector * vector).tolist()))
                vector = vector / length if length > 0.0 else vector
            vectors[i] = vector
    return vectors


def _groups(texts: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """Indices of texts that are evaluated together."""
    group: list[int] = []
    tokens = 0
    for i, ids in enumerate(texts):
        if group and (len(group) == most or tokens + len(ids) > _CHUNK):
            yield group
            group, tokens = [], 0
        group.append(i)
        tokens += len(ids)
    if group:
        yield group


def _pooled(model: Model, texts: Sequence[Sequence[int]], pooling: str) -> list[NDArray[np.float64]]:
    with ExitStack() as stack:
        sessions = [stack.enter_context(model.session(len(ids)))._core for ids in texts]
        totals = [np.zeros(model.config.width)] * len(texts)
        for at in range(0, max(map(len, texts)), _CHUNK):
            parts = tuple(ids[at : at + _CHUNK] for ids in texts)
            for i, hidden in enumerate(_core.batch_hidden(model._core, tuple(sessions), parts)):
                if hidden is None:
                    continue
                if pooling == "last":
                    totals[i] = hidden[-1].astype(np.float64)
                else:  # one row after the other, whatever the chunks
                    totals[i] = np.add.accumulate(np.vstack([totals[i], hidden]))[-1]
    return [t / len(ids) if pooling == "mean" else t for t, ids in zip(totals, texts, strict=True)]
