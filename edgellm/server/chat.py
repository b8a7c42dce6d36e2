"""/v1/chat/completions: what is asked, and how the answer is told."""

from __future__ import annotations

from typing import Any

from edgellm.chat import encode_chat
from edgellm.server import asking
from edgellm.server.asking import Asked, Desk
from edgellm.server.errors import bad
from edgellm.server.fields import Fields
from edgellm.tools import ToolCalling

MAX_TOP_LOGPROBS = 20
_ANY_OBJECT = {"type": "object"}
_UNSUPPORTED = {
    "functions": "is replaced by tools",
    "function_call": "is replaced by tool_choice",
    "audio": "is not supported",
    "prediction": "is not supported",
    "web_search_options": "is not supported",
    "reasoning_effort": "is not supported",
    "verbosity": "is not supported",
}


def understand(data: dict[str, Any], desk: Desk) -> Asked:
    """A body as a request.

    Raises
    ------
    ApiError
        That names the field and what is wrong with it.
    """
    fields = Fields(data)
    desk.check_model(fields)
    asking.take_what_changes_nothing(fields)
    for name, why in _UNSUPPORTED.items():
        fields.refuse(name, (), why)
    fields.refuse("modalities", (["text"],), "only text is supported")
    messages = fields.take("messages")
    if not isinstance(messages, list) or not messages:
        raise fields.wrong("messages", "an array of at least one message", messages)
    count = asking.choices(fields, desk)
    max_tokens, shared = asking.options(fields, desk, desk.settings.default_max_tokens)
    stream, include_usage = asking.streaming(fields)
    logprobs = _logprobs(fields)
    content = _content_grammar(fields)
    calling = _tools(fields, desk, content)
    cache_prompt = fields.flag("cache_prompt", True)
    fields.finish()

    model = desk.model
    if model.chat_template is None:
        raise bad("this model has no chat template: use /v1/completions")
    gbnf = content
    if calling is not None:
        ids = asking.checked(lambda: calling.encode(messages), "messages")
        gbnf = asking.checked(calling.gbnf, "tools")
    else:
        ids = asking.checked(lambda: encode_chat(model.tokenizer, model.chat_template, messages), "messages")
    if gbnf is not None:
        place = "tools" if calling is not None else "response_format"
        shared["grammar"] = asking.checked(lambda: desk.grammars.gbnf(gbnf), place)
    if logprobs is not None:
        shared["logprobs"] = logprobs
    readers = [] if calling is None else [calling.reader(messages) for _ in range(count)]
    made = asking.requests(desk, count, max_tokens, shared)
    return Asked([ids], made, stream, include_usage, logprobs, cache_prompt, gbnf is not None, readers)


def _logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs")
    top: int | None = fields.integer("top_logprobs", None, 0, MAX_TOP_LOGPROBS)
    if top is not None and not wanted:
        raise bad("top_logprobs needs logprobs", "top_logprobs")
    return (top or 0) if wanted else None


def _content_grammar(fields: Fields) -> str | None:
    """The grammar that the text of an answer follows."""
    gbnf = fields.text("grammar")
    form = fields.object("response_format")
    if form is None:
        return gbnf
    kind = form.choice("type", "text", ("text", "json_object", "json_schema"))
    schema: Any = None
    if kind == "json_object":
        schema = _ANY_OBJECT if (own := form.take("schema")) is None else own
    elif kind == "json_schema":
        inner = form.object("json_schema")
        if inner is None:
            raise bad("response_format.json_schema is missing", "response_format.json_schema")
        inner.text("name")
        inner.text("description")
        inner.flag("strict")
        schema = inner.take("schema")
        inner.finish()
        if not isinstance(schema, dict | bool):
            raise inner.wrong("schema", "a JSON schema: an object or a boolean", schema)
    form.finish()
    if schema is None:
        return gbnf
    if gbnf is not None:
        raise bad("grammar and response_format exclude each other", "grammar")
    from edgellm.grammar import schema_to_gbnf

    return str(asking.checked(lambda: schema_to_gbnf(schema), "response_format"))


def _tools(fields: Fields, desk: Desk, content: str | None) -> ToolCalling | None:
    tools = fields.take("tools")
    choice = fields.take("tool_choice")
    parallel = fields.flag("parallel_tool_calls", True)
    if tools is not None and not isinstance(tools, list):
        raise fields.wrong("tools", "an array", tools)
    if not tools:
        if choice is not None and choice not in ("none", "auto"):
            raise bad("tool_choice needs tools", "tool_choice")
        return None
    for i, tool in enumerate(tools):
        if isinstance(tool, dict) and tool.get("type") != "function":
            raise bad(f"tools[{i}].type must be 'function'", f"tools[{i}].type")
    model = desk.model
    made: ToolCalling = asking.checked(
        lambda: ToolCalling(
            model.tokenizer,
            model.chat_template,
            tools,
            "auto" if choice is None else choice,
            parallel,
            content,
        ),
        "tools",
    )
    return made
