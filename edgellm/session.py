"""A conversation with a model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgellm import _core

if TYPE_CHECKING:
    from edgellm.model import Model

KV_TYPES = {"f16": 0, "f32": 1, "q8_0": 2}  # numbers of el_kv_type
KV_NAMES = {number: name for name, number in KV_TYPES.items()}
Overflow = Literal["error", "shift"]


class Session:
    """A conversation with a model: its KV cache and the position in it. Made by `Model.session`.

    One call at a time: a second thread that uses the same session waits. Different sessions of one
    model may be used from different threads. Its memory is given back by `close`, at the end of a ``with``
    block, or when nobody refers to it any more.

    Layers with a sliding window keep the last positions only, so that `truncate` cannot go back further than
    they reach (docs/decisions/0015-sliding-windows-in-rings.md).

    Attributes
    ----------
    overflow : {"error", "shift"}
        What happens when the context is full.
    keep : int
        Tokens at the beginning that a shift leaves alone.
    dropped : int
        Tokens that shifts have dropped so far.
    """

    __slots__ = ("__weakref__", "_core", "_ids", "_lock", "_model", "dropped", "keep", "overflow")

    def __init__(
        self, model: Model, core: _core.Session, overflow: Overflow = "error", keep: int = 0
    ) -> None:
        if overflow not in ("error", "shift"):
            raise ValueError(f"session: overflow must be 'error' or 'shift', got {overflow!r}")
        if not 0 <= keep < core.context:
            raise ValueError(f"session: keep must be in 0..{core.context - 1}, got {keep}")
        self._model = model
        self._core = core
        self.overflow: Overflow = overflow
        self.keep = keep
        self.dropped = 0
        self._ids: list[int] = []  # what a session that may shift holds
        self._lock = threading.RLock()

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
            If `ids` is empty, an id is out of range, or the session or its model is closed.
        KeyboardInterrupt
            On Ctrl-C, between micro-batches. The session is then unchanged, or, where sliding windows had
            to give up what it held before, holds the tokens evaluated so far: `position` says how many.
        """
        if logits not in ("last", "all"):
            raise ValueError(f"eval: logits must be 'last' or 'all', got {logits!r}")
        with self._appending(ids):
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
        with self._appending(ids):
            return self._core.score(ids)

    def truncate(self, length: int) -> None:
        """Forget everything from position `length` on.

        Raises
        ------
        ValueError
            If that is beyond `position`, or further back than sliding windows reach. The tokens of the last
            call of up to a micro-batch (128) can always be taken back, and 0 always empties the session.
        """
        with self._lock:
            self._core.truncate(length)
            del self._ids[length:]

    def fork(self, context: int | None = None) -> Session:
        """A new session that holds what this one holds; both go on by themselves.

        Parameters
        ----------
        context : int, optional
            Positions of the new one; as many as this one has if not given.

        Returns
        -------
        session : Session
            Of the same cache type and overflow policy. Its logits have the bits that evaluating the same
            tokens again would give.

        Raises
        ------
        ContextError
            If the tokens held do not fit in `context`.
        ValueError
            If `context` is out of range, or the session or its model is closed.
        MemoryError
            As `Model.session`.

        Examples
        --------
        >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m, m.session(context=64) as s:
        ...     _ = s.eval(m.tokenizer.encode("The sky is"))
        ...     with s.fork() as t:
        ...         _ = t.eval([1])
        ...         s.position, t.position
        (3, 4)
        """
        with self._lock:
            size = self.context if context is None else context
            core = self._model._open(size, self._core.kv, "fork")
            other = Session(self._model, core, self.overflow, min(self.keep, size - 1))
            core.copy_from(self._core)
            other._ids = self._ids.copy()
            other.dropped = self.dropped
            return other

    @property
    def position(self) -> int:
        """Tokens held."""
        return self._core.position

    @property
    def context(self) -> int:
        """Tokens that fit."""
        return self._core.context

    @property
    def kv(self) -> str:
        """Type of the cache: "f16", "f32" or "q8_0"."""
        return KV_NAMES[self._core.kv]

    @property
    def nbytes(self) -> int:
        """Memory held, as `Model.plan` says; 0 once closed."""
        return self._core.nbytes

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._core.closed

    def close(self) -> None:
        """Give the memory back, after a call that another thread may be in; ValueError from then on."""
        self._core.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def to_bytes(self) -> bytes:
        """State of the session, for `Model.session_from_bytes` of the same model. No overflow policy."""
        return self._core.to_bytes()

    def _appending(self, ids: Sequence[int]) -> AbstractContextManager[None]:
        """Around the evaluation of `ids`: room is made before it, and what was appended is noted after it."""
        return contextlib.nullcontext() if self.overflow == "error" or len(ids) == 0 else self._shifting(ids)

    @contextlib.contextmanager
    def _shifting(self, ids: Sequence[int]) -> Iterator[None]:
        with self._lock:
            self._make_room(len(ids))
            start = self._core.position
            try:
                yield
            finally:
                self._ids.extend(int(i) for i in ids[: self._core.position - start])

    def _make_room(self, n: int) -> None:
        """Drop the oldest tokens after `keep`, half of what fits at a time, until `n` more fit."""
        position, context = self._core.position, self._core.context
        if position + n <= context:
            return
        if self.keep + n > context:
            raise _core.ContextError(
                f"eval: {n} tokens do not fit: the context is {context}, of which {self.keep} are kept"
            )
        if len(self._ids) != position:
            raise _core.ContextError("eval: the context is full, and what it holds was not evaluated here")
        half = max(1, (context - self.keep) // 2)
        drop = min(-(-(position + n - context) // half) * half, position - self.keep)
        rest = self._ids[self.keep + drop :]
        try:
            self._core.truncate(self.keep)
        except ValueError:  # sliding windows do not reach back so far
            self._core.truncate(0)
            rest = self._ids[: self.keep] + rest
        del self._ids[self._core.position :]
        try:
            if rest:
                _core.batch_eval(self._core.model, (self._core,), (rest,), (0,))
        finally:
            self._ids.extend(rest[: self._core.position - len(self._ids)])
        self.dropped += drop

    def _note(self, ids: Sequence[int]) -> None:
        """The session has come to hold these tokens by another way than evaluating them."""
        if self.overflow == "shift":
            self._ids = [int(i) for i in ids]


def append_together(
    model: _core.Model, sessions: Sequence[Session], ids: Sequence[Sequence[int]], rows: Sequence[int]
) -> list[NDArray[np.float32] | None]:
    """Append tokens to several sessions of one model in one go, as their overflow policies say.

    Parameters
    ----------
    sessions : (members,) sequence of Session
        No session twice.
    ids : (members,) sequence of (n_i,) sequences of int
    rows : (members,) sequence of int
        Logits wanted for the last so many tokens of each, at most n_i.

    Returns
    -------
    logits : list of (rows_i, vocab) ndarray of float32, or None
        None for a member without tokens.
    """
    cores = tuple(session._core for session in sessions)
    with contextlib.ExitStack() as stack:
        # in one order, so that two calls cannot wait for each other
        for session, own in sorted(zip(sessions, ids, strict=False), key=lambda pair: id(pair[0])):
            stack.enter_context(session._appending(own))
        return _core.batch_eval(model, cores, tuple(ids), tuple(rows))
