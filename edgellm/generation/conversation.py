"""What a `Model` can answer: the methods that take a conversation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Unpack, cast

from edgellm.generation.drivers import drain, tokens
from edgellm.generation.request import Options, Place, Request
from edgellm.generation.results import ChatCompletion, Completion, Token

if TYPE_CHECKING:
    from edgellm.model import Model
    from edgellm.tools import CallReader

Tools = tuple[Sequence[Mapping[str, Any]] | None, str | Mapping[str, Any], bool]  # with choice, parallel
Asked = tuple[list[int], Request, Place, "CallReader"]  # the prompt, the text, where, and who reads it


class Conversing:
    """Part of `edgellm.Model`: answers to conversations."""

    def _asked(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int,
        tools: Tools,
        options: Options,
    ) -> Asked:
        from edgellm.chat import encode_chat
        from edgellm.tools import CallReader, ToolCalling

        model = cast("Model", self)
        if model.chat_template is None:
            raise ValueError("chat: the model file has no chat template; use generate()")
        messages = list(messages)
        functions, choice, parallel = tools
        if not functions:
            if choice not in ("auto", "none"):
                raise ValueError(f"tool_choice is {str(choice)[:80]!r}, but there are no tools")
            ids = encode_chat(model.tokenizer, model.chat_template, messages)
            reader = CallReader(None)
        else:
            content = _gbnf(options)
            calling = ToolCalling(
                model.tokenizer, model.chat_template, functions, choice, parallel, content=content
            )
            ids = calling.encode(messages)
            reader = calling.reader(messages)
            options = {**options, "grammar": calling.grammar(), "json_schema": None}
        request, place = Request.of(model, max_tokens, options), Place.of(options)
        place.room(model, ids, max_tokens)
        return ids, request, place, reader

    def _answer(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int,
        tools: Tools,
        options: Options,
    ) -> Generator[str, None, ChatCompletion]:
        ids, request, place, reader = self._asked(messages, max_tokens, tools, options)
        return _read(tokens(cast("Model", self), ids, request, place), reader)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        **options: Unpack[Options],
    ) -> ChatCompletion:
        """Answer a conversation, rendered by the model's own chat template.

        What messages contain is always encoded as plain text: a message cannot forge a turn.

        Parameters
        ----------
        messages : sequence of {"role": ..., "content": ...}
            Roles as the template knows them: "system", "user", "assistant"; "tool" for the result of a call,
            with its `tool_call_id`.
        max_tokens : int
            Most tokens to generate.
        tools : sequence of dict, optional
            Functions that the model may call, in OpenAI's form (`edgellm.tools`).
        tool_choice : {"auto", "none", "required"} or dict
            Whether it may, may not or must call one; ``{"type": "function", "function": {"name": ...}}``
            names the one it must call.
        parallel_tool_calls : bool
            Whether one answer may hold several calls.
        **options
            As `generate`. With tools, `json_schema` or a `grammar` as text is for answers without calls.

        Returns
        -------
        completion : ChatCompletion
            A `Completion` with `.message`, ready to be appended to `messages`. Calls are in `.tool_calls`
            and fit the schemas of their tools; `.finish_reason` is "tool_calls" then.

        Raises
        ------
        ValueError
            If a message or tool is malformed, the choice names no tool, the model has no chat template, or
            `max_tokens` cannot hold the shortest call that is asked for.
        ContextError
            If the conversation does not fit in the context.

        Examples
        --------
        >>> lamp = {"name": "lamp", "parameters": {"properties": {"on": {"type": "boolean"}}}}
        >>> asked = [{"role": "user", "content": "It is dark."}]
        >>> with edgellm.load(edgellm.models.resolve("smollm2-135m")) as m:
        ...     done = m.chat(asked, tools=[{"type": "function", "function": lamp}], tool_choice="required")
        >>> done.tool_calls[0]["function"]["name"], done.finish_reason
        ('lamp', 'tool_calls')
        """
        tooling = (tools, tool_choice, parallel_tool_calls)
        return drain(self._answer(messages, max_tokens, tooling, options))

    def stream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        **options: Unpack[Options],
    ) -> Iterator[str]:
        """As `chat`, piece by piece; see `stream`. Calls are in the `ChatCompletion` at the end."""
        return self._answer(messages, max_tokens, (tools, tool_choice, parallel_tool_calls), options)

    async def achat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        **options: Unpack[Options],
    ) -> ChatCompletion:
        """As `chat`, for asyncio; see `agenerate`."""
        from edgellm.generation import aio

        model = cast("Model", self)
        asked = self._asked(messages, max_tokens, (tools, tool_choice, parallel_tool_calls), options)
        ids, request, place, reader = asked
        run = await aio.start(model, ids, request, place)
        async with aclosing(aio.steps(model, run)) as steps:
            async for token in steps:
                reader.push(token.text)
        reader.finish()
        return _answered(run.generation.result(), reader)

    def astream_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_tokens: int = 512,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        **options: Unpack[Options],
    ) -> AsyncGenerator[str, None]:
        """As `stream_chat`, for ``async for``; see `agenerate`. Arguments are checked at the call."""
        asked = self._asked(messages, max_tokens, (tools, tool_choice, parallel_tool_calls), options)
        return _aread(cast("Model", self), asked)


def _gbnf(options: Options) -> str | None:
    """The grammar of an answer without calls, as text."""
    grammar, schema = options.get("grammar"), options.get("json_schema")
    if grammar is not None and schema is not None:
        raise ValueError("grammar and json_schema: give one of them")
    if schema is not None:
        from edgellm.grammar import schema_to_gbnf

        return schema_to_gbnf(schema)
    if grammar is not None and not isinstance(grammar, str):
        raise ValueError("grammar: with tools it must be text, because it becomes part of a larger one")
    return grammar


def _read(
    steps: Generator[Token, None, Completion], reader: CallReader
) -> Generator[str, None, ChatCompletion]:
    """Yield what is said; return the answer with the calls."""
    try:
        while True:
            try:
                token = next(steps)
            except StopIteration as end:
                done: Completion = end.value
                break
            yield from _said(reader.push(token.text))
        yield from _said(reader.finish())
    finally:
        steps.close()
    return _answered(done, reader)


async def _aread(model: Model, asked: Asked) -> AsyncGenerator[str, None]:
    from edgellm.generation import aio

    ids, request, place, reader = asked
    async with aclosing(aio.steps(model, await aio.start(model, ids, request, place))) as steps:
        async for token in steps:
            for said in _said(reader.push(token.text)):
                yield said
    for said in _said(reader.finish()):
        yield said


def _answered(done: Completion, reader: CallReader) -> ChatCompletion:
    whole = reader.tool_calls and not reader.in_call and done.finish_reason != "cancelled"
    reason = "tool_calls" if whole else done.finish_reason
    kept = {field.name: getattr(done, field.name) for field in fields(done)}
    kept |= {"text": reader.content, "finish_reason": reason, "tool_calls": reader.tool_calls}
    return ChatCompletion(**kept)


def _said(deltas: list[dict[str, Any]]) -> Iterator[str]:
    return (delta["content"] for delta in deltas if "content" in delta)
