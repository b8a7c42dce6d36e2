"""What a `Model` can answer: the methods that take a conversation."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Unpack, cast

from edgellm.generation.drivers import drain, pieces, tokens
from edgellm.generation.request import Options, Place, Request
from edgellm.generation.results import ChatCompletion, Completion, Token

if TYPE_CHECKING:
    from edgellm.model import Model


class Conversing:
    """Part of `edgellm.Model`: answers to conversations."""

    def _chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        from edgellm.chat import encode_chat

        model = cast("Model", self)
        if model.chat_template is None:
            raise ValueError("chat: the model file has no chat template; use generate()")
        return encode_chat(model.tokenizer, model.chat_template, list(messages))

    def _answer(
        self, messages: Sequence[Mapping[str, Any]], max_tokens: int, options: Options
    ) -> Generator[Token, None, Completion]:
        request = Request.of(cast("Model", self), max_tokens, options)
        return tokens(cast("Model", self), self._chat_ids(messages), request, Place.of(options))

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        **options: Unpack[Options],
    ) -> ChatCompletion:
        """Answer a conversation, rendered by the model's own chat template.

        What messages contain is always encoded as plain text: a message cannot forge a turn.

        Parameters
        ----------
        messages : sequence of {"role": ..., "content": ...}
            Roles as the template knows them: "system", "user", "assistant".
        max_tokens, **options
            As `generate`.

        Returns
        -------
        completion : ChatCompletion
            A `Completion` with `.message`, ready to be appended to `messages`.

        Raises
        ------
        ValueError
            If a message is malformed, or the model has no chat template.
        ContextError
            If the conversation does not fit in the context.
        """
        done = drain(self._answer(messages, max_tokens, options))
        return ChatCompletion(*(getattr(done, field.name) for field in fields(done)))

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """As `chat`, piece by piece; see `stream`."""
        return pieces(self._answer(messages, max_tokens, options))
