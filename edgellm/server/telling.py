"""How /v1/chat/completions and /v1/completions word their answers."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import edgellm
from edgellm.generation import Token
from edgellm.server.errors import dumps

if TYPE_CHECKING:
    from edgellm.scheduler import Handle
    from edgellm.server.asking import Asked
    from edgellm.tokenizer import Tokenizer

# The same answer to the same request with the same seed, as long as this does not change.
FINGERPRINT = f"edgellm-{edgellm.__version__}-numerics-{edgellm.__numerics__}"
LEAST_LOGPROB = -9999.0  # stands for a probability of 0, which JSON has no logarithm of


def event(value: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + dumps(value) + b"\n\n"


class _Frame:
    """What both endpoints share: the head of every object, and events around a piece of text."""

    def __init__(self, prefix: str, kind: str, chunk: str, model: str, asked: Asked) -> None:
        self.asked = asked
        self._head = {"created": int(time.time()), "model": model, "system_fingerprint": FINGERPRINT}
        self._id = f"{prefix}-{secrets.token_hex(12)}"
        self._kind, self._chunk = kind, chunk
        self._usage: dict[str, Any] = {"usage": None} if asked.include_usage else {}
        self._cuts: dict[int, tuple[bytes, bytes]] = {}

    def object(self, **more: Any) -> dict[str, Any]:
        """The whole answer."""
        return {"id": self._id, "object": self._kind, **self._head, **more}

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """An event of the stream."""
        head = {"id": self._id, "object": self._chunk, **self._head}
        return event({**head, "choices": choices, **self._usage, **more})

    def around(self, index: int, choice: dict[str, Any], hole: str) -> tuple[bytes, bytes]:
        """What stands before and after a text in the events of a choice: only the text changes."""
        if index not in self._cuts:
            before, after = self.chunk([choice]).split(json.dumps(hole).encode())
            self._cuts[index] = before, after
        return self._cuts[index]


_HOLE = "\x00text\x00"


class ChatTeller:
    """Answers of /v1/chat/completions."""

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer) -> None:
        self._frame = _Frame("chatcmpl", "chat.completion", "chat.completion.chunk", model, asked)
        self._readers = asked.readers
        self._logprobs = asked.logprobs is not None
        self._tokenizer = tokenizer
        self._begun: set[int] = set()

    def _begin(self, index: int) -> bytes:
        if index in self._begun:
            return b""
        self._begun.add(index)
        delta = {"role": "assistant", "content": "", "refusal": None}
        return self._frame.chunk([_chat_choice(index, delta)])

    def events(self, index: int, tokens: list[Token]) -> bytes:
        """Events for more tokens of a choice."""
        text = "".join([token.text for token in tokens])
        head = self._begin(index)
        if not self._readers and not self._logprobs:
            if not text:
                return head
            before, after = self._frame.around(index, _chat_choice(index, {"content": _HOLE}), _HOLE)
            return head + before + json.dumps(text).encode() + after
        deltas = [{"content": text}] if not self._readers else self._readers[index].push(text)
        return head + self._tell(index, deltas, tokens)

    def _tell(self, index: int, deltas: Iterable[dict[str, Any]], tokens: Sequence[Token] = ()) -> bytes:
        """Events for changes; the log-probabilities go with the first."""
        told = {"content": self._entries(tokens), "refusal": None} if self._logprobs and tokens else None
        out = []
        for delta in deltas or ([{"content": ""}] if told else []):
            out.append(self._frame.chunk([_chat_choice(index, delta, told)]))
            told = None
        return b"".join(out)

    def end(self, index: int, handle: Handle) -> bytes:
        """Events that end a choice."""
        out = self._begin(index)
        reason = handle.result().finish_reason
        if self._readers:
            reader = self._readers[index]
            out += self._tell(index, reader.finish())
            reason = "tool_calls" if reader.tool_calls else reason
        return out + self._frame.chunk([_chat_choice(index, {}, None, reason)])

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The event that tells the usage."""
        return self._frame.chunk([], usage=usage) if self._frame.asked.include_usage else b""

    def whole(self, handles: Sequence[Handle], tokens: Sequence[list[Token]], usage: dict[str, Any]) -> bytes:
        """The answer in one piece."""
        choices = [self._whole(i, handle, tokens[i]) for i, handle in enumerate(handles)]
        return dumps(self._frame.object(choices=choices, usage=usage))

    def _whole(self, index: int, handle: Handle, tokens: list[Token]) -> dict[str, Any]:
        done = handle.result()
        message: dict[str, Any] = {"role": "assistant", "content": done.text, "refusal": None}
        reason = done.finish_reason
        if self._readers:
            reader = self._readers[index]
            reader.push(done.text)
            reader.finish()
            message["content"] = reader.content
            if reader.tool_calls:
                message["content"] = reader.content or None
                message["tool_calls"] = reader.tool_calls
                reason = "tool_calls"
        told = {"content": self._entries(tokens), "refusal": None} if self._logprobs else None
        return {"index": index, "message": message, "logprobs": told, "finish_reason": reason}

    def _entries(self, tokens: Iterable[Token]) -> list[dict[str, Any]]:
        out = []
        for token in tokens:
            if token.id is not None:
                entry = self._entry(token.id, token.logprob)
                out.append({**entry, "top_logprobs": [self._entry(t.id, t.logprob) for t in token.top]})
        return out

    def _entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        raw = self._tokenizer.token_bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": _finite(logprob), "bytes": list(raw)}


def _chat_choice(
    index: int, delta: dict[str, Any], logprobs: Any = None, reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _finite(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None else max(LEAST_LOGPROB, logprob)


class CompletionTeller:
    """Answers of /v1/completions."""

    def __init__(self, asked: Asked, model: str, tokenizer: Tokenizer) -> None:
        self._frame = _Frame("cmpl", "text_completion", "text_completion", model, asked)
        self._each = len(asked.requests)
        self._echo = asked.echo
        self._logprobs = asked.logprobs
        self._tokenizer = tokenizer
        self._offsets: dict[int, int] = {}

    def _echoed(self, index: int) -> str:
        return self._echo[index // self._each] if self._echo else ""

    def _begin(self, index: int) -> bytes:
        if index in self._offsets:
            return b""
        echoed = self._echoed(index)
        self._offsets[index] = len(echoed)
        return self._frame.chunk([_text_choice(index, echoed)]) if echoed else b""

    def events(self, index: int, tokens: list[Token]) -> bytes:
        """Events for more tokens of a choice."""
        head = self._begin(index)
        text = "".join([token.text for token in tokens])
        if self._logprobs is None:
            if not text:
                return head
            before, after = self._frame.around(index, _text_choice(index, _HOLE), _HOLE)
            return head + before + json.dumps(text).encode() + after
        told = self._entries(index, tokens)
        return head + self._frame.chunk([_text_choice(index, text, told)])

    def end(self, index: int, handle: Handle) -> bytes:
        """Events that end a choice."""
        reason = handle.result().finish_reason
        return self._begin(index) + self._frame.chunk([_text_choice(index, "", None, reason)])

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The event that tells the usage."""
        return self._frame.chunk([], usage=usage) if self._frame.asked.include_usage else b""

    def whole(self, handles: Sequence[Handle], tokens: Sequence[list[Token]], usage: dict[str, Any]) -> bytes:
        """The answer in one piece."""
        choices = []
        for index, handle in enumerate(handles):
            done, echoed = handle.result(), self._echoed(index)
            self._offsets[index] = len(echoed)
            told = None if self._logprobs is None else self._entries(index, tokens[index])
            choices.append(_text_choice(index, echoed + done.text, told, done.finish_reason))
        return dumps(self._frame.object(choices=choices, usage=usage))

    def _entries(self, index: int, tokens: Iterable[Token]) -> dict[str, Any]:
        """Log-probabilities in the form of this endpoint: one list for each property."""
        texts, own, top, offsets = [], [], [], []
        for token in tokens:
            if token.id is not None:
                texts.append(self._text(token.id))
                own.append(_finite(token.logprob))
                top.append({self._text(t.id): _finite(t.logprob) for t in token.top})
                offsets.append(self._offsets[index])
            self._offsets[index] += len(token.text)
        return {"tokens": texts, "token_logprobs": own, "top_logprobs": top, "text_offset": offsets}

    def _text(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode("utf-8", "replace")


def _text_choice(index: int, text: str, logprobs: Any = None, reason: str | None = None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
