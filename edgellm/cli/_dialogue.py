"""A conversation that keeps its session: each turn evaluates only what the session does not hold yet."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import edgellm
    from edgellm.generation import Generation, Token


class Dialogue:
    """Answers of a model in one session.

    Parameters
    ----------
    model : Model
    options : dict
        Keyword arguments of `edgellm.Model.generate`.

    Attributes
    ----------
    held : list of int
        The tokens that were evaluated, in order.
    kept : int
        How many of them the last turn found there and did not evaluate again.
    """

    def __init__(self, model: edgellm.Model, options: Mapping[str, Any]) -> None:
        rest = dict(options)
        self._model = model
        self._place = {name: rest.pop(name) for name in ("context", "kv", "overflow") if name in rest}
        self._max_tokens = rest.pop("max_tokens")
        self._options = rest
        self._session: edgellm.Session | None = None
        self.held: list[int] = []
        self.kept = 0

    @property
    def position(self) -> int:
        """Tokens in the session now; fewer than `held` where a full context was shifted."""
        return 0 if self._session is None else self._session.position

    def answer(self, messages: Sequence[Mapping[str, Any]]) -> Generator[Token, None, edgellm.Completion]:
        """Answer the last of the messages, token by token; what is wrong with them raises at once.

        Raises
        ------
        ContextError
            If they do not fit in the context.
        ValueError
            As `edgellm.Model.chat`.
        """
        from edgellm.chat import encode_chat
        from edgellm.generation import Generation, Request

        model = self._model
        if model.chat_template is None:
            raise ValueError("chat: the model file has no chat template; use run")
        ids = encode_chat(model.tokenizer, model.chat_template, messages)
        request = Request.of(model, self._max_tokens, self._options)
        session = self._prefix(ids)
        return self._steps(Generation(model, ids, request, session))

    def _prefix(self, ids: list[int]) -> edgellm.Session:
        """The session, cut back to what it shares with `ids`, the last of which is left to evaluate."""
        pairs = zip(self.held, ids[:-1], strict=False)
        shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(self.held), len(ids) - 1))
        try:
            if self._session is None or self._session.dropped:
                raise ValueError
            self._session.truncate(shared)
        except ValueError:  # nothing to cut, or a sliding window has passed the place
            shared = 0
            if self._session is not None:  # its memory goes before more is asked for
                self._session.close()
                self._session = None
            self._session = self._model.session(**self._place)
        self.held = ids[:shared]
        self.kept = shared
        return self._session

    def _steps(self, generation: Generation) -> Generator[Token, None, edgellm.Completion]:
        from edgellm.generation.drivers import Run

        run = Run(self._model, generation, None)
        try:
            while not generation.done:
                yield from run.step()
        finally:  # the session stays, for the next turn
            generation.cancel()
            self.held = list(generation.held)
        return generation.result()
