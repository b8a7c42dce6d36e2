"""Calls of tools: what a model is told of them, what it may write, and what its text says.

`ToolCalling` is the whole of it, for `Model.chat(tools=...)` and for the server alike: it shows the tools
to the model (`encode`), builds the grammar in which a call that has begun can only end as a known tool with
arguments that fit its schema (`grammar`), and reads text as it comes into content and calls (`reader`).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgellm._tool_forms import CallForm, call_id, checked_tools, form_of
from edgellm.chat import Message, encode_chat

if TYPE_CHECKING:
    from edgellm._core import Tokenizer
    from edgellm.grammar import Grammar

__all__ = ["CallReader", "ToolCalling"]

Delta = dict[str, Any]

_WORDS = re.compile(
    r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|#[^\n]*|(?P<rule>[A-Za-z_][A-Za-z0-9_-]*)', re.DOTALL
)


def _literal(text: str) -> str:
    r"""Text as a terminal of a grammar.

    Examples
    --------
    >>> _literal('a"\n')
    '"a\\"\\n"'
    """
    for char, escape in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n")):
        text = text.replace(char, escape)
    return f'"{text}"'


def _one_of(chars: str, negated: bool = False) -> str:
    """A class of characters."""
    escaped = "".join(f"\\{c}" if c in "\\]^-[" else "\\n" if c == "\n" else c for c in chars)
    return f"[{'^' if negated else ''}{escaped}]"


def _renamed(gbnf: str, prefix: str) -> str:
    """A grammar with `prefix` before the name of every rule.

    Examples
    --------
    >>> _renamed('root ::= "root" [a-z]* item', "t-")
    't-root ::= "root" [a-z]* t-item'
    """
    return _WORDS.sub(lambda word: prefix + word[0] if word["rule"] else word[0], gbnf)


def _text_rules(marker: str, leads: bool, then: str | None) -> list[str]:
    """Rules for text that may end anywhere; after `marker`, which it holds nowhere else, rule `then` goes on.

    State i has seen the first i characters of the marker: the automaton of Knuth, Morris and Pratt, "Fast
    pattern matching in strings", 1977. Where the marker `leads`, it counts at the beginning of the text only.
    """
    rules = []
    for i, wanted in enumerate(marker):
        seen = marker[:i]
        last = i + 1 == len(marker)
        after = f"text-{i + 1}" if not last else then
        ways = [f"{_literal(wanted)} {after}"] if after is not None else []
        others = {wanted}
        if leads:
            rest = f"{_one_of(wanted, negated=True)} any"
        else:
            for char in sorted(set(marker) - {wanted}):
                back = next(n for n in range(i + 1, -1, -1) if (seen + char).endswith(marker[:n]))
                if back > 0:
                    ways.append(f"{_literal(char)} text-{back}")
                    others.add(char)
            rest = f"{_one_of(''.join(sorted(others)), negated=True)} text-0"
        if i == 0 and not leads:  # a loop rather than one more rule for each character
            rules.append(f"text-0 ::= {_one_of(wanted, negated=True)}* ({' | '.join(ways)})?")
        else:
            rules.append(f"text-{i} ::= ({' | '.join([*ways, rest])})?")
    if leads:
        rules.append("any ::= [^\\x00]*")
    return rules


class ToolCalling:
    """Tools for one request: the prompt's part, the grammar and the reader of answers.

    Parameters
    ----------
    tokenizer : Tokenizer
        The model's.
    template : str or None
        Its chat template.
    tools : sequence of dict
        In OpenAI's form, ``{"type": "function", "function": {"name": ..., "description": ...,
        "parameters": ...}}``. `parameters` is the JSON schema of an object; without it, no arguments.
    tool_choice : {"auto", "none", "required"} or dict
        Whether the model may, may not or must call; ``{"type": "function", "function": {"name": ...}}``
        makes it call that one, once.
    parallel_tool_calls : bool
        Whether one answer may hold several calls, if the model's template can show several.
    content : str, optional
        A GBNF grammar that an answer without calls must follow; any text by default.

    Raises
    ------
    ValueError
        If a tool or the choice is malformed, two tools share a name, or the choice names no tool; the message
        names the place.

    Examples
    --------
    >>> lamp = {"type": "function", "function": {"name": "lamp"}}
    >>> calling = ToolCalling(None, None, [lamp], tool_choice="required")
    >>> reader = calling.reader([])
    >>> deltas = reader.push('<tool_call>\\n{"name": "lamp", "arguments": {}}\\n</tool_call>')
    >>> reader.tool_calls[0]["id"], reader.tool_calls[0]["function"]
    ('call00000', {'name': 'lamp', 'arguments': '{}'})
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str | None,
        tools: Sequence[Mapping[str, Any]],
        tool_choice: str | Mapping[str, Any] = "auto",
        parallel_tool_calls: bool = True,
        content: str | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self.tools = checked_tools(tools)
        self.names = [tool["function"]["name"] for tool in self.tools]
        self._content = content
        self.form = form_of(template)
        if content is not None:  # such text may hold the marker, but not begin with it
            if self.form.marker.startswith("{") and self.tools:
                raise ValueError(
                    "tools: this model writes calls as JSON, so JSON cannot be asked of answers too"
                )
            self.form = replace(self.form, leads=True)
        self._callable = self._chosen(tool_choice)
        self._must = tool_choice not in ("auto", "none")
        named = isinstance(tool_choice, Mapping)
        self._many = bool(parallel_tool_calls) and self.form.between is not None and not named

    def _chosen(self, choice: str | Mapping[str, Any]) -> list[int]:
        """Indices of the tools that may be called."""
        everything = list(range(len(self.tools)))
        if isinstance(choice, str) and choice in ("auto", "none", "required"):
            if choice == "required" and not self.tools:
                raise ValueError("tool_choice: 'required' needs tools")
            return [] if choice == "none" else everything
        choice = choice if isinstance(choice, Mapping) else {"function": None, "type": choice}
        function = choice.get("function")
        if not isinstance(function, Mapping) or choice.get("type") != "function":
            raise ValueError(
                "tool_choice must be 'auto', 'none', 'required' or "
                f'{{"type": "function", "function": {{"name": ...}}}}, got {str(choice)[:80]!r}'
            )
        name = function.get("name")
        if name not in self.names:
            known = ", ".join(self.names) or "none"
            raise ValueError(f"tool_choice: there is no tool {str(name)[:80]!r} (tools: {known})")
        return [self.names.index(name)]

    def encode(self, messages: Sequence[Message], today: datetime.date | None = None) -> list[int]:
        """The conversation as ids, with the tools shown; errors as `edgellm.chat.encode_chat`.

        Tools are shown whatever the choice, so that requests which differ in it share their prefix.
        """
        return encode_chat(self._tokenizer, self._template, messages, tools=self.tools, today=today)

    def gbnf(self) -> str:
        """The grammar of an answer.

        Raises
        ------
        ValueError
            If the parameters of a tool are a schema that grammars cannot express; the message names the tool.
        """
        form = self.form
        rules: list[str] = []
        if self._callable:
            rules += self._call_rules()
        if self._must:
            rules.insert(0, f"root ::= {_literal(form.marker)} calls")
        elif self._content is not None:
            calls = f"{_literal(form.marker)} calls | " if self._callable else ""
            rules.insert(0, f"root ::= {calls}content-root")
            rules.append(_renamed(self._content, "content-"))
        else:
            rules.insert(0, "root ::= text-0")
            rules += _text_rules(form.marker, form.leads, "calls" if self._callable else None)
        return "\n".join(rules) + "\n"

    def _call_rules(self) -> list[str]:
        from edgellm.grammar import schema_to_gbnf

        form = self.form
        many = f" ({_literal(form.between or '')} call)*" if self._many else ""
        end = f" {_literal(form.end)}" if form.end else ""
        start = f"{_literal(form.start)} " if form.start else ""
        rules = [f"calls ::= {start}call{many}{end}"]
        rules.append(f"call ::= {' | '.join(f'tool-{i}' for i in self._callable)}")
        for i in self._callable:
            function = self.tools[i]["function"]
            parameters = function.get("parameters")
            if parameters is None:
                parameters = {"properties": {}, "additionalProperties": False}
            try:
                schema = schema_to_gbnf({"type": "object", **parameters})
            except ValueError as error:
                raise ValueError(f"tools[{i}].function.parameters: {error}") from error
            head = _literal(form.head + function["name"] + form.middle)
            tail = f" {_literal(form.tail)}" if form.tail else ""
            rules.append(f"tool-{i} ::= {head} args-{i}-root{tail}")
            rules.append(_renamed(schema, f"args-{i}-"))
        return rules

    def grammar(self) -> Grammar:
        """`gbnf` compiled for the tokenizer."""
        from edgellm.grammar import from_gbnf

        return from_gbnf(self._tokenizer, self.gbnf())

    def reader(self, messages: Sequence[Message]) -> CallReader:
        """A reader of the answer to a conversation; the ids of calls go on after those that it holds."""
        before = sum(len(message.get("tool_calls") or ()) for message in messages)
        return CallReader(self.form if self._callable else None, before)


class CallReader:
    """Reads an answer as it comes; what it gives has the form of OpenAI's streaming deltas.

    A beginning of a marker, and white space that may stand before one, is held back until it is clear.

    Parameters
    ----------
    form : CallForm or None
        How calls are written; None: all is content.
    first : int
        Number of the first call in the conversation, from which its id is made.

    Attributes
    ----------
    content : str
        Text of the answer so far, without calls and white space before them.
    tool_calls : list of dict
        The calls that are complete: ``{"id", "type": "function", "function": {"name", "arguments"}}``.
    in_call : bool
        Whether a call has begun that is not complete.
    """

    def __init__(self, form: CallForm | None, first: int = 0) -> None:
        self._first = first
        self._held = ""
        self._out: list[Delta] = []
        self.content = ""
        self.tool_calls: list[Delta] = []
        self._reading_calls = self.in_call = False
        self._steps = self._plain() if form is None else self._read(form)
        next(self._steps)

    def push(self, piece: str) -> list[Delta]:
        """Take more of the answer's text and return what became sure."""
        self._held += piece
        next(self._steps)
        return self._given()

    def finish(self) -> list[Delta]:
        """The answer has ended: what was held back. A call that was cut short stays out of `tool_calls`."""
        if not self._reading_calls:
            self._say(self._held)
        self._held = ""
        return self._given()

    def _given(self) -> list[Delta]:
        out, self._out = self._out, []
        return out

    def _say(self, text: str) -> None:
        if text:
            self.content += text
            self._out.append({"content": text})

    def _plain(self) -> Generator[None, None, None]:
        """Text without calls; each yield waits for more of it."""
        while True:
            self._say(self._held)
            self._held = ""
            yield

    def _read(self, form: CallForm) -> Generator[None, None, None]:
        yield from self._read_text(form.marker, form.leads)
        self._reading_calls = True
        before = form.start
        while True:
            yield from self._skip(before + form.head)
            name = yield from self._read_until(form.middle)
            number, self.in_call = len(self.tool_calls), True
            call = {"id": call_id(self._first + number), "type": "function"}
            shown = {"index": number, **call, "function": {"name": name, "arguments": ""}}
            self._out.append({"tool_calls": [shown]})
            arguments = yield from self._read_json(number)
            yield from self._skip(form.tail)
            self.tool_calls.append({**call, "function": {"name": name, "arguments": arguments}})
            self.in_call = False
            before = form.between or form.end

    def _read_text(self, marker: str, leads: bool) -> Generator[None, None, None]:
        """Up to the end of the marker; white space before it is no content."""
        while True:
            at = self._held.find(marker)
            if at == 0 or (at > 0 and not leads):
                self._say(self._held[:at].rstrip())
                self._held = self._held[at + len(marker) :]
                return
            if leads and not marker.startswith(self._held):
                yield from self._plain()
            part = next(n for n in range(len(marker) - 1, -1, -1) if self._held.endswith(marker[:n]))
            ready = self._held[: len(self._held) - part].rstrip()
            self._say(ready)
            self._held = self._held[len(ready) :]
            yield

    def _skip(self, text: str) -> Generator[None, None, None]:
        while len(self._held) < len(text):
            yield
        while not self._held.startswith(text):  # only an answer outside the grammar gets here
            yield
        self._held = self._held[len(text) :]

    def _read_until(self, text: str) -> Generator[None, None, str]:
        while (at := self._held.find(text)) < 0:
            yield
        read, self._held = self._held[:at], self._held[at + len(text) :]
        return read

    def _read_json(self, number: int) -> Generator[None, None, str]:
        """One JSON value that is an object, given on piece by piece."""
        parts: list[str] = []
        depth, in_string, escaped = 0, False, False
        while True:
            end = len(self._held)
            for i, char in enumerate(self._held):
                if in_string:
                    in_string = escaped or char != '"'
                    escaped = char == "\\" and not escaped
                elif char == '"':
                    in_string = True
                elif char in "{[":
                    depth += 1
                elif char in "}]":
                    depth -= 1
                    if depth == 0:
                        end = i + 1
                        break
            piece, self._held = self._held[:end], self._held[end:]
            if piece:
                parts.append(piece)
                self._out.append({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
            if depth == 0 and parts:
                return "".join(parts)
            yield
