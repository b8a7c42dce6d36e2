"""How models write calls of tools, and how a conversation with tools is shown to each kind.

A chat template that shows tools was made for a model that was trained on one way of writing calls; the
template's own text tells which. Every other model gets the tools in the system message, in our words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

Dict = dict[str, Any]
MAX_TOOLS = 128

INSTRUCTIONS = """\
You can call functions. Each line describes one:

{tools}

To call functions, write nothing but this, once for each call:
<tool_call>
{{"name": "NAME", "arguments": {{...}}}}
</tool_call>
Results come back between <tool_response> and </tool_response>. Where none helps, answer in plain text."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """The text of calls: marker, start, (head NAME middle ARGUMENTS tail) with `between` between, end."""

    name: str
    marker: str  # calls begin here, and text of the answer never holds it
    start: str
    head: str
    middle: str
    tail: str
    between: str | None  # None: one call per answer is all that the template can show
    end: str
    shown: Literal["template", "system key", "text"] = "template"  # who shows the tools, and past calls
    leads: bool = False  # the marker counts only as the very beginning of an answer
    short_ids: bool = False  # the template takes ids of 9 letters and digits only

    def write(self, calls: Sequence[tuple[str, str]]) -> str:
        """The text of calls, each a name and its arguments as JSON.

        Examples
        --------
        >>> print(form_of(None).write([("lamp", '{"on": true}')]))
        <tool_call>
        {"name": "lamp", "arguments": {"on": true}}
        </tool_call>
        """
        body = [f"{self.head}{name}{self.middle}{arguments}{self.tail}" for name, arguments in calls]
        return f"{self.marker}{self.start}{(self.between or '; ').join(body)}{self.end}"


HERMES = CallForm(
    "hermes", "<tool_call>", "\n", '{"name": "', '", "arguments": ', "}", "\n</tool_call>\n<tool_call>\n",
    "\n</tool_call>",
)  # fmt: skip
PLAIN = replace(HERMES, name="plain", shown="text")
LLAMA = CallForm("llama", '{"name": "', "", "", '", "parameters": ', "}", None, "", leads=True)
MISTRAL = CallForm(
    "mistral", "[TOOL_CALLS]", " [", '{"name": "', '", "arguments": ', "}", ", ", "]", short_ids=True
)
MISTRAL_ARGS = CallForm(
    "mistral-args", "[TOOL_CALLS]", "", "", "[ARGS]", "", "[TOOL_CALLS]", "", short_ids=True
)
PHI = CallForm(
    "phi", "<|tool_call|>", "[", '{"name": "', '", "arguments": ', "}", ", ", "]<|/tool_call|>",
    shown="system key",
)  # fmt: skip


@lru_cache(maxsize=16)
def form_of(template: str | None) -> CallForm:
    """The way in which the model of a chat template writes calls.

    Examples
    --------
    >>> form_of("{{ tools | tojson }} ... <tool_call>").name
    'hermes'
    """
    text = template or ""
    code = " ".join(re.findall(r"\{[{%].*?[}%]\}", text, re.DOTALL))
    if re.search(r"\['tools'\]|\.tools\b", code) and "<|tool|>" in text:
        return PHI
    if re.search(r"(?<![\w.'\"])tools\b", code) is None:
        return PLAIN
    if "[TOOL_CALLS]" in text:
        if "[ARGS]" in text:
            return MISTRAL_ARGS
        return MISTRAL if "[TOOL_CALLS] [" in text else replace(MISTRAL, start="[")
    if "<tool_call>" in text and "<function=" not in text:
        return HERMES
    if '"parameters": ' in text and ("<|python_tag|>" in text or "ipython" in text):
        return LLAMA
    return PLAIN


def checked_tools(tools: object) -> list[Dict]:
    """Function tools in OpenAI's form, as plain data of our own.

    Raises
    ------
    ValueError
        Naming the place, such as ``tools[1].function.name``, and what is wrong there.

    Examples
    --------
    >>> checked_tools([{"type": "function", "function": {"name": "lamp"}}])[0]["function"]["name"]
    'lamp'
    """
    if tools is None:
        return []
    if not isinstance(tools, list | tuple):
        raise ValueError(f"tools must be a list, got {type(tools).__name__}")
    if len(tools) > MAX_TOOLS:
        raise ValueError(f"tools: {len(tools)} of them, at most {MAX_TOOLS} are taken")
    out: list[Dict] = []
    names: dict[str, int] = {}
    for i, tool in enumerate(tools):
        where = f"tools[{i}]"
        if not isinstance(tool, Mapping) or tool.get("type") != "function":
            raise ValueError(f"{where}: expected a dict of type 'function'")
        function = tool.get("function")
        if not isinstance(function, Mapping):
            raise ValueError(f"{where}.function must be a dict, got {type(function).__name__}")
        name, parameters = function.get("name"), function.get("parameters", {})
        if not isinstance(name, str) or re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) is None:
            raise ValueError(
                f"{where}.function.name must be 1 to 64 letters, digits, _ or -, got {str(name)[:80]!r}"
            )
        if name in names:
            raise ValueError(f"{where}.function.name: {name!r} is the name of tools[{names[name]}] already")
        if not isinstance(function.get("description", ""), str):
            raise ValueError(f"{where}.function.description must be a str")
        if not isinstance(parameters, Mapping) or parameters.get("type", "object") != "object":
            raise ValueError(f"{where}.function.parameters must be the JSON schema of an object")
        names[name] = i
        try:
            text = json.dumps({"type": "function", "function": function}, ensure_ascii=False, allow_nan=False)
            text.encode("utf-8")
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{where}: no JSON: {str(error)[:120]}") from None
        out.append(json.loads(text))
    return out


def prepare(
    form: CallForm,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    default_system: str | None = None,
) -> tuple[list[Dict], Sequence[Mapping[str, Any]] | None]:
    """Messages and tools as the template of `form` takes them.

    Parameters
    ----------
    form : CallForm
        Of the template.
    messages : sequence of dict
        Checked (`edgellm.chat`): contents are str, arguments of calls are JSON in a str.
    tools : sequence of dict or None
        In OpenAI's form; checked here.
    default_system : str or None
        What the template would put first where there is no system message.

    Returns
    -------
    messages : list of dict
        New ones.
    tools : sequence of dict or None
        What the template gets as `tools`: None where the messages show them.

    Raises
    ------
    ValueError
        As `checked_tools`.
    """
    shown = [dict(message) for message in messages]
    tools = checked_tools(tools)
    if form.shown == "template":
        _pass_calls(form, shown)
        return shown, tools or None
    functions = [tool["function"] for tool in tools]
    if form.shown == "system key":
        if functions:
            _system(shown, "")["tools"] = json.dumps(functions, ensure_ascii=False)
    elif functions:
        lines = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
        system = _system(shown, default_system or "")
        own = INSTRUCTIONS.format(tools=lines)
        system["content"] = f"{system['content']}\n\n{own}" if system["content"] else own
    if functions or any("tool_calls" in message for message in shown):
        shown = _as_text(form, shown)
    return shown, None


def _system(messages: list[Dict], content: str) -> Dict:
    """The system message, put in front if there is none."""
    if messages[0]["role"] not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": content})
    return messages[0]


def _pass_calls(form: CallForm, messages: list[Dict]) -> None:
    """Arguments as data, not text, and ids that the template takes."""
    ids: dict[str, str] = {}
    for message in messages:
        calls = []
        for call in message.get("tool_calls", ()):
            function = {**call["function"], "arguments": json.loads(call["function"]["arguments"])}
            old = call.get("id", "")
            fits = not form.short_ids or re.fullmatch("[A-Za-z0-9]{9}", old)
            ids[old] = old if fits else call_id(len(ids))
            calls.append({**call, "id": ids[old], "function": function})
        if calls:
            message["tool_calls"] = calls
        if "tool_call_id" in message:
            message["tool_call_id"] = ids.get(message["tool_call_id"], message["tool_call_id"])


def _as_text(form: CallForm, messages: list[Dict]) -> list[Dict]:
    """Calls written into the answers; results as the user's, unless the template has a role for them."""
    out: list[Dict] = []
    for message in messages:
        calls = message.pop("tool_calls", None)
        if calls:
            pairs = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            before = f"{message['content']}\n" if message["content"] else ""
            message["content"] = before + form.write(pairs)
        if message["role"] == "tool" and form.shown == "text":
            content = f"<tool_response>\n{message['content']}\n</tool_response>"
            if out and out[-1].get("results"):
                out[-1]["content"] += f"\n{content}"
                continue
            message = {"role": "user", "content": content, "results": True}
        out.append(message)
    return [{key: value for key, value in message.items() if key != "results"} for message in out]


def call_id(position: int) -> str:
    """Id of call number `position` of a conversation: nine letters and digits, which every template takes.

    Examples
    --------
    >>> call_id(0), call_id(41)
    ('call00000', 'call00041')
    """
    return f"call{position:05d}"
