"""One vector per text, from the hidden states of a decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgellm import _core

if TYPE_CHECKING:
    from edgellm.model import Model

POOLING = ("mean", "last")
_CHUNK = 512  # hidden states that are held at a time


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
    if not len(texts):
        return vectors
    session = model.session(max(map(len, texts)))
    for i, ids in enumerate(texts):
        session.truncate(0)
        vector = _pooled(session._core, ids, pooling)
        if normalize:
            # exact sums, so that the vector is the same on every machine
            length = math.sqrt(math.fsum((vector * vector).tolist()))
            vector = vector / length if length > 0.0 else vector
        vectors[i] = vector
    return vectors


def _pooled(session: _core.Session, ids: Sequence[int], pooling: str) -> NDArray[np.float64]:
    total = np.zeros(0)
    for at in range(0, len(ids), _CHUNK):
        hidden = session.hidden(ids[at : at + _CHUNK]).astype(np.float64)
        if pooling == "last":
            total = hidden[-1]
        else:  # row after row
            for row in hidden:
                total = total + row if total.size else row
    return total / len(ids) if pooling == "mean" else total
