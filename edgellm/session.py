"""A conversation with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgellm import _core


class Session:
    """A conversation with a model: its KV cache and the position in it. Made by `Model.session`.

    One call at a time: a second thread that uses the same session waits. Different sessions of one
    model may be used from different threads.
    """

    __slots__ = ("_core",)

    def __init__(self, model: _core.Model, context: int, kv: int) -> None:
        self._core = _core.Session(model, context, kv)

    def eval(self, ids: Sequence[int], logits: Literal["last", "all"] = "last") -> NDArray[np.float32]:
        """Append tokens and compute logits.

        Parameters
        ----------
        ids : (n,) sequence of int
            Token ids, each in 0..vocab-1; n is at least 1.
        logits : {"last", "all"}
            Whose logits to return.

        Returns
        -------
        logits : (vocab,) or (n, vocab) ndarray of float32
            A new array. Bit-identical on every ISA, thread count and chunking (docs/numerics.md).

        Raises
        ------
        ContextError
            If the tokens do not fit; the session is then unchanged.
        ValueError
            If `ids` is empty, an id is out of range, or the model is closed.
        KeyboardInterrupt
            On Ctrl-C, between micro-batches; the session is then unchanged.
        """
        if logits not in ("last", "all"):
            raise ValueError(f"eval: logits must be 'last' or 'all', got {logits!r}")
        return self._core.eval(ids, logits == "all")

    def score(self, ids: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float32]]:
        """Append tokens and tell how likely each successor was.

        Parameters
        ----------
        ids : (n,) sequence of int
            Token ids; n is at least 1.

        Returns
        -------
        logprob : (n - 1,) ndarray of float64
            Natural logarithm of the probability of ids[i + 1] after ids[: i + 1].
        top : (n - 1,) ndarray of int32
            The most likely successor.
        top_probability : (n - 1,) ndarray of float32
            Its probability.

        Raises
        ------
        ContextError, ValueError, KeyboardInterrupt
            As `eval`.
        """
        return self._core.score(ids)

    def truncate(self, length: int) -> None:
        """Forget everything from position `length` on. ValueError if that is beyond `position`."""
        self._core.truncate(length)

    @property
    def position(self) -> int:
        """Tokens held."""
        return self._core.position

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return self._core.context

    def to_bytes(self) -> bytes:
        """State of the session, for `Model.session_from_bytes` of the same model."""
        return self._core.to_bytes()
