"""Conversations as token ids: the chat template of a model, applied.

Templates in the ChatML form (SmolLM2 and many others) are recognised and rendered here, with nothing but
NumPy installed. Any other goes through jinja2 in a sandbox with limits: `pip install 'edgellm[templates]'`.

What a user writes stays text: `encode_chat` turns only the template's own `<|im_end|>` and the like into
control tokens, never those inside a message.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from edgellm._chatml import ChatML, recognise
from edgellm._core import Tokenizer
from edgellm._tool_forms import form_of, prepare

__all__ = ["ROLES", "Message", "Segment", "checked", "encode_chat", "render_chat", "render_segments"]

ROLES = ("system", "developer", "user", "assistant", "tool")

Message = Mapping[str, Any]

_NONCHARACTERS = [chr(point) for point in range(0xFDD0, 0xFDF0)]


class Segment(NamedTuple):
    """A run of rendered text, and whether it is the template's own, in which control tokens count."""

    text: str
    is_control: bool


def _text(content: object, where: str) -> str:
    """The content of a message: a str, or the joined texts of a list of parts."""
    if isinstance(content, list | tuple):
        for i, part in enumerate(content):
            kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
            if kind != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"{where}: content[{i}] is no part of text: {str(kind)[:40]!r}")
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{where}: content must be a str, got {type(content).__name__}")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: content holds a lone surrogate at index {error.start}") from None
    return content


def _calls(calls: object, where: str) -> list[dict[str, Any]]:
    """The calls of an assistant's message; arguments become JSON in a str."""
    if not isinstance(calls, list | tuple):
        raise ValueError(f"{where} must be a list, got {type(calls).__name__}")
    out = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"{where}[{i}] must be a dict with a 'function' that has a 'name'")
        arguments = function.get("arguments", "{}")
        try:
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            json.loads(arguments)
            json.dumps([function["name"], arguments], ensure_ascii=False).encode("utf-8")
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"{where}[{i}].function.arguments is no JSON") from None
        number = call.get("id", "")
        if not isinstance(number, str):
            raise ValueError(f"{where}[{i}].id must be a str, got {type(number).__name__}")
        out.append({"id": number, "type": "function", "function": {**function, "arguments": arguments}})
    return out


def checked(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages with every content a str and calls in one form.

    Raises
    ------
    ValueError, TypeError
        Naming the first thing that is wrong.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise TypeError(f"messages must be a list of dicts, got {type(messages).__name__}")
    if not messages:
        raise ValueError("messages is empty")
    out = []
    known: set[str] = set()
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, Mapping):
            raise ValueError(
                f"{where} must be a dict with 'role' and 'content', got {type(message).__name__}"
            )
        if "role" not in message:
            raise ValueError(f"{where} has no 'role'")
        if not isinstance(message["role"], str):
            raise ValueError(f"{where}: role must be a str, got {type(message['role']).__name__}")
        if message["role"] not in ROLES:
            raise ValueError(f"{where}: role {message['role']!r} is none of {', '.join(ROLES)}")
        clean = dict(message)
        calls = clean.pop("tool_calls", None)
        if calls:
            if message["role"] != "assistant":
                raise ValueError(f"{where}: only the role 'assistant' has tool_calls")
            clean["tool_calls"] = _calls(calls, f"{where}.tool_calls")
            known |= {call["id"] for call in clean["tool_calls"]}
        elif "content" not in message:
            raise ValueError(f"{where} has no 'content'")
        answers = clean.get("tool_call_id")
        if answers is not None and answers not in known:
            raise ValueError(f"{where}: no earlier call has the id {str(answers)[:80]!r}")
        silent = calls and clean.get("content") is None
        clean["content"] = "" if silent else _text(clean["content"], where)
        out.append(clean)
    return out


def _chatml_segments(form: ChatML, messages: Sequence[Message], prompt: bool) -> Iterator[Segment]:
    shown = [(message["role"], Segment(message["content"], False)) for message in messages]
    if form.default_system is not None and messages[0]["role"] != "system":
        shown.insert(0, ("system", Segment(form.default_system, True)))
    for role, content in shown:
        yield Segment(f"<|im_start|>{role}\n", True)
        yield content
        yield Segment("<|im_end|>\n", True)
    if prompt and form.prompts:
        yield Segment("<|im_start|>assistant\n", True)


def _merged(segments: Iterator[Segment]) -> list[Segment]:
    out: list[Segment] = []
    for text, is_control in segments:
        if out and out[-1].is_control == is_control:
            out[-1] = Segment(out[-1].text + text, is_control)
        elif text:
            out.append(Segment(text, is_control))
    return out


def _strings(value: object) -> Iterator[str]:
    """Every string inside JSON-like data, keys included."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            stack.extend([*item.keys(), *item.values()])
        elif isinstance(item, list | tuple):
            stack.extend(item)


def _split(marked: str, start: str, end: str) -> list[Segment] | None:
    """Segments of a text where `start` and `end` enclose what is not control; None if they do not pair."""
    parts = re.split(f"([{start}{end}])", marked)
    if parts[1::2] != [start, end] * (len(parts) // 4):
        return None
    return _merged(Segment(text, i % 2 == 0) for i, text in enumerate(parts[::2]))


def _jinja_segments(
    template: str, messages: Sequence[Message], control_texts: Collection[str], options: dict[str, Any]
) -> list[Segment]:
    """Render twice: as it is, and with every content between two characters that nothing else has.

    If the second text without those characters is the first, they show where the contents went. Otherwise
    the template looks into contents, and one that holds the text of a control token cannot be kept apart.
    """
    try:
        from edgellm import _templates
    except ImportError as error:
        raise ImportError(
            "this chat template is not ChatML and needs jinja2: pip install 'edgellm[templates]'"
        ) from error

    plain = _templates.render(template, messages, **options)
    outside = [{k: v for k, v in message.items() if k != "content"} for message in messages]
    others = list(_strings([outside, options["tools"]]))
    suspects = [text for text in control_texts if any(text in other for other in others)]

    contents = [message["content"] for message in messages]
    taken = set("".join([template, *contents, *others]))
    free = [c for c in _NONCHARACTERS if c not in taken]
    if len(free) >= 2:
        start, end = free[:2]
        marked = []
        for message, content in zip(messages, contents, strict=True):
            core = content.strip()
            if core:
                content = content.replace(core, start + core + end, 1)
            marked.append({**message, "content": content})
        text = _templates.render(template, marked, **options)
        segments = _split(text, start, end)
        if segments is not None and text.replace(start, "").replace(end, "") == plain and not suspects:
            return segments

    suspects += [text for text in control_texts if any(text in content for content in contents)]
    if suspects:
        raise ValueError(
            f"chat: a message holds the control token {suspects[0]!r}, which this template cannot keep apart"
        )
    return _merged(iter([Segment(plain, True)]))


def render_segments(
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    bos: str = "",
    eos: str = "",
    tools: Sequence[Mapping[str, Any]] | None = None,
    today: datetime.date | None = None,
    control_texts: Collection[str] = (),
) -> list[Segment]:
    """Render a conversation as text that is the template's and text that is the messages'.

    Parameters
    ----------
    template : str or None
        The model's chat template (`tokenizer.chat_template` of a GGUF); None stands for plain ChatML.
    messages : list of dict
        Each with a `role` of `ROLES` and a `content`: a str, or a list of ``{"type": "text", "text": str}``.
        An assistant's may have `tool_calls` in OpenAI's form instead, a tool's a `tool_call_id`. A jinja2
        template sees other keys too.
    add_generation_prompt : bool
        End with the header of an answer.
    bos, eos : str
        What a template sees as `bos_token` and `eos_token`.
    tools : list of dict, optional
        In OpenAI's form; a template that has no place for them gets them in the system message.
    today : datetime.date, optional
        The date that a template may show. Without it `strftime_now` is undefined and templates show none, so
        that the same conversation gives the same ids every day.
    control_texts : collection of str
        Texts of control tokens. If a message holds one and the template alters contents so that it cannot be
        kept apart, that is an error.

    Returns
    -------
    list of Segment
        Not empty texts, alternating; joined they are the rendered conversation.

    Raises
    ------
    ValueError
        If a message is malformed (the error says which and how), the template refuses the messages, or as
        `control_texts` says.
    TypeError
        If `messages` is no list.
    FormatError
        If the template is broken or does not end within its limits.
    ImportError
        If the template needs jinja2 and that is not installed.

    Examples
    --------
    >>> render_segments(None, [{"role": "user", "content": "Hi"}], add_generation_prompt=False)
    [Segment(text='<|im_start|>user\\n', is_control=True), Segment(text='Hi', is_control=False),
     Segment(text='<|im_end|>\\n', is_control=True)]
    """
    form = ChatML(None, True) if template is None else recognise(template)
    default = None if form is None else form.default_system
    messages, tools = prepare(form_of(template), checked(messages), tools, default)
    if form is not None:
        return _merged(_chatml_segments(form, messages, add_generation_prompt))
    options = {
        "add_generation_prompt": add_generation_prompt,
        "bos": bos,
        "eos": eos,
        "tools": tools,
        "today": today,
    }
    return _jinja_segments(str(template), messages, control_texts, options)


def render_chat(
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    bos: str = "",
    eos: str = "",
    tools: Sequence[Mapping[str, Any]] | None = None,
    today: datetime.date | None = None,
) -> str:
    """Render a conversation as one text; parameters and errors as `render_segments`.

    To get ids use `encode_chat`: encoding this text with `parse_special=True` would let a message forge the
    end of its turn.

    Examples
    --------
    >>> print(render_chat(None, [{"role": "user", "content": "Hi"}]))
    <|im_start|>user
    Hi<|im_end|>
    <|im_start|>assistant
    """
    segments = render_segments(
        template,
        messages,
        add_generation_prompt=add_generation_prompt,
        bos=bos,
        eos=eos,
        tools=tools,
        today=today,
    )
    return "".join(segment.text for segment in segments)


def encode_chat(
    tokenizer: Tokenizer,
    template: str | None,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    today: datetime.date | None = None,
) -> list[int]:
    """Render a conversation and encode it, with control tokens only where the template writes them.

    For messages without the text of a control token the ids are those of the rendered text encoded with
    `parse_special=True`. A vocabulary that asks for BOS gets it, unless the template wrote it.

    Parameters
    ----------
    tokenizer : Tokenizer
        The model's.
    template, messages, add_generation_prompt, tools, today
        As `render_segments`.

    Returns
    -------
    list of int
        Token ids.

    Raises
    ------
    ValueError, TypeError, FormatError, ImportError
        As `render_segments`.

    Examples
    --------
    >>> letters = [chr(c) for c in range(33, 127)] + ["Ġ", "Ċ", "<|im_start|>", "<|im_end|>"]
    >>> tokenizer = Tokenizer(letters, [1] * 96 + [3, 3], [], "gpt-2")
    >>> ids = encode_chat(tokenizer, None, [{"role": "user", "content": "<|im_end|>"}])
    >>> ids.count(97)
    1
    """
    specials = tokenizer.special_tokens
    names = ["" if i is None else tokenizer.decode([i]) for i in (tokenizer.bos_id, tokenizer.eos_id)]
    segments = render_segments(
        template,
        messages,
        add_generation_prompt=add_generation_prompt,
        bos=names[0],
        eos=names[1],
        tools=tools,
        today=today,
        control_texts=specials,
    )

    # Plain text runs on over the borders of segments, so that it is cut into tokens as one text.
    ids = tokenizer.encode_segments(segments)
    bos = tokenizer.bos_id
    if tokenizer.add_bos and bos is not None and ids[:1] != [bos]:
        ids.insert(0, bos)
    return ids
