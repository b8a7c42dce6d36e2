"""Recognise a chat template that is ChatML, however it is written, so that it renders without jinja2.

A template is cut into its tags; text, `{{ a }}{{ b }}` and `{{ a + b }}` become one list of constants and
expressions, `message.role` becomes `message['role']`. What remains is compared with the one form there is:
every message between `<|im_start|>role` and `<|im_end|>`, a default system message where the first is of
another role (or none), and the assistant's header at the end. Anything else is not ChatML to us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

MAX_SCANNED = 4096  # characters; every ChatML template is shorter

_TAG = re.compile(r"\{%(?P<block>.*?)%\}|\{\{(?P<out>.*?)\}\}|\{#.*?#\}", re.DOTALL)
_WORD = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")|(?P<field>\.\s*[A-Za-z_]\w*)|(?P<other>\w+|==|!=|\S))",
    re.DOTALL,
)
Part = tuple[str, str]  # ("text" | "expression" | "block", what)


@dataclass(frozen=True, slots=True)
class ChatML:
    """What is particular to one ChatML template."""

    default_system: str | None  # the message put first where the caller's first is not a system message
    prompts: bool  # whether it ends with the assistant's header when asked to


def _unquote(literal: str) -> str:
    """Value of a string literal, as jinja2 reads it."""
    return literal[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")


def _words(code: str) -> list[str]:
    """Canonical words of a tag: strings by repr, fields as subscripts."""
    found = []
    for match in _WORD.finditer(code.strip()):
        if match["text"]:
            found.append(repr(_unquote(match["text"])))
        elif match["field"]:
            found.append(f"[{match['field'][1:].strip()!r}]")
        else:
            found.append(match["other"])
    return found


def _canonical(code: str) -> str:
    """A tag in one way of writing.

    Examples
    --------
    >>> _canonical(" message . role!="+'"user"') == _canonical("message['role'] != 'user'")
    True
    """
    return re.sub(r" ?([\[\]]) ?", r"\1", " ".join(_words(code)))


def _output(code: str) -> Iterator[Part]:
    """Parts of `{{ code }}`: what stands between plus signs."""
    term: list[str] = []
    for word in [*_words(code), "+"]:
        if word != "+":
            term.append(word)
        elif len(term) == 1 and term[0][0] in "'\"":
            yield "text", _unquote(term[0])
            term = []
        else:
            yield "expression", re.sub(r" ?([\[\]]) ?", r"\1", " ".join(term))
            term = []


def _pieces(template: str) -> Iterator[Part]:
    """Tags and text of a template in order; white space goes where jinja2 as set up for chat drops it."""
    at = 0
    for match in [*_TAG.finditer(template), None]:
        text = template[at : match.start() if match else len(template)]
        before, tag = template[max(at - 3, 0) : at], match[0] if match else ""
        starts_line = at == 0
        if before.endswith(("%}", "#}")) and text.startswith("\n"):
            text, starts_line = text[1:], True
        if before.startswith("-"):
            text = text.lstrip()
        if tag.startswith(("{%-", "{{-", "{#-")):
            text = text.rstrip()
        elif tag.startswith(("{%", "{#")):
            line = text.rfind("\n") + 1
            if (line or starts_line) and not text[line:].strip():
                text = text[:line]
        if text:
            yield "text", text
        if match is None:
            return
        at = match.end()
        if match["block"] is not None:
            yield "block", _canonical(match["block"].strip("-"))
        elif match["out"] is not None:
            yield from _output(match["out"].strip("-"))


def _merged(parts: Iterator[Part]) -> list[Part]:
    """The same with neighbouring constants joined."""
    out: list[Part] = []
    for kind, what in parts:
        if kind == "text" and out and out[-1][0] == "text":
            out[-1] = ("text", out[-1][1] + what)
        else:
            out.append((kind, what))
    return out


_OPEN = "<|im_start|>"
_LOOP = ("block", _canonical("for message in messages"))
_FIRST_IS_OTHER = [
    ("block", _canonical(f"if {condition}"))
    for condition in (
        "loop.first and messages[0].role != 'system'",
        "messages[0].role != 'system' and loop.first",
        "loop.first and message.role != 'system'",
        "message.role != 'system' and loop.first",
    )
]
_MESSAGE = [
    ("text", _OPEN),
    ("expression", _canonical("message.role")),
    ("text", "\n"),
    ("expression", _canonical("message.content")),
    ("text", "<|im_end|>\n"),
    ("block", "endfor"),
]
_PROMPT = [("block", "if add_generation_prompt"), ("text", f"{_OPEN}assistant\n"), ("block", "endif")]


@lru_cache(maxsize=16)
def recognise(template: str) -> ChatML | None:
    """What a template is if it is ChatML, else None.

    Examples
    --------
    >>> recognise("{% for m in messages %}{{ m.content }}{% endfor %}") is None
    True
    """
    if len(template) > MAX_SCANNED or "{%+" in template or "+%}" in template:
        return None
    try:
        parts = _merged(_pieces(template))
    except UnicodeDecodeError:  # a string literal with a broken escape
        return None

    if not parts or parts.pop(0) != _LOOP:
        return None
    default = None
    if parts and parts[0] in _FIRST_IS_OTHER:
        kind, shown = parts[1] if len(parts) > 2 else ("", "")
        framed = re.fullmatch(r"<\|im_start\|>system\n(.*)<\|im_end\|>\n", shown, re.DOTALL)
        if framed is None or kind != "text" or parts[2] != ("block", "endif"):
            return None
        default, parts = framed[1], parts[3:]
    rest = parts[len(_MESSAGE) :]
    if parts[: len(_MESSAGE)] != _MESSAGE or rest not in ([], _PROMPT):
        return None
    return ChatML(default, bool(rest))
