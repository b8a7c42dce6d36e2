"""Several conversations with one model, a step at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from edgellm.session import Session, append_together

if TYPE_CHECKING:
    from edgellm.model import Model


class Batch:
    """Sessions of one model that are evaluated together.

    A step reads the model's weights once for all members, so that eight sequences cost little more than
    one where reading them is what takes the time. Each member's logits are bit for bit what its session
    gives alone: who else is in the batch, and who came or left, does not show.

    Sessions may join and leave between steps, may be in no step at all for a while, and can be used by
    themselves meanwhile. One call at a time: a second thread waits, for each session that both use.

    Parameters
    ----------
    model : Model
    sessions : iterable of Session
        The first members, in this order.

    Raises
    ------
    ValueError
        If a session belongs to another model, or comes twice.
    TypeError
        If one is no session.

    Examples
    --------
    >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
    ...     one, two = m.session(context=64), m.session(context=64)
    ...     batch = edgellm.Batch(m, [one, two])
    ...     logits = batch.eval([m.tokenizer.encode("The sky is"), m.tokenizer.encode("Grass")])
    ...     batch.remove(one)
    ...     one.position, len(batch), logits[0].shape == (m.config.vocab,)
    (3, 1, True)
    """

    __slots__ = ("_core", "_sessions")

    def __init__(self, model: Model, sessions: Iterable[Session] = ()) -> None:
        self._core = model._core
        self._sessions: tuple[Session, ...] = ()
        for session in sessions:
            self.add(session)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The members, in the order of the lists that `eval` takes and gives."""
        return self._sessions

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """Let a session join, as the last member.

        Raises
        ------
        ValueError
            If it is a member already, or belongs to another model.
        TypeError
            If it is no session.
        """
        if not isinstance(session, Session):
            raise TypeError(f"batch: a member is a Session, got {type(session).__name__}")
        if session._core.model is not self._core:
            raise ValueError("batch: the session belongs to another model")
        if session in self._sessions:
            raise ValueError("batch: the session is a member already")
        self._sessions = (*self._sessions, session)

    def remove(self, session: Session) -> None:
        """Let a member leave; it keeps its state. ValueError if it is none."""
        if session not in self._sessions:
            raise ValueError("batch: the session is no member")
        self._sessions = tuple(s for s in self._sessions if s is not session)

    def eval(
        self, ids: Sequence[Sequence[int]], logits: Literal["last", "all"] = "last"
    ) -> list[NDArray[np.float32] | None]:
        """Append tokens to every member and compute logits.

        Parameters
        ----------
        ids : (members,) sequence of (n_i,) sequences of int
            Token ids for each member, in the members' order, each in 0..vocab-1. Lengths may differ; a
            member with none pauses.
        logits : {"last", "all"}
            Whose logits to return.

        Returns
        -------
        logits : list of (vocab,) or (n_i, vocab) ndarray of float32, or None
            One entry per member, None for one that paused. The arrays share one block of memory that this
            call made; copy one to keep it without the others.

        Raises
        ------
        ContextError
            If the tokens of a member do not fit; every member is then unchanged (one whose overflow policy
            is "shift" may have shifted).
        ValueError
            If there is not one entry of `ids` per member, an id is out of range, or the model is closed.
        KeyboardInterrupt
            On Ctrl-C, between micro-batches; every member is then as after an interrupted `Session.eval`.
        """
        if logits not in ("last", "all"):
            raise ValueError(f"batch: logits must be 'last' or 'all', got {logits!r}")
        lists = tuple(ids)
        rows = tuple(len(own) if logits == "all" else min(len(own), 1) for own in lists)
        got = append_together(self._core, self._sessions, lists, rows)
        return got if logits == "all" else [None if own is None else own[0] for own in got]
