"""/v1/completions: what is asked."""

from __future__ import annotations

from typing import Any

from edgellm.server import asking
from edgellm.server.asking import Asked, Desk
from edgellm.server.errors import bad
from edgellm.server.fields import Fields

DEFAULT_MAX_TOKENS = 16  # OpenAI's
MAX_LOGPROBS = 20


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
    fields.refuse("suffix", ("",), "is not supported: the model only continues texts")
    prompts = _prompts(fields, desk)
    count = asking.choices(fields, desk, len(prompts))
    best_of: int | None = fields.integer("best_of", None, 1, 1 << 20)
    if best_of is not None and best_of != count:
        raise bad("best_of other than n is not supported", "best_of", "unsupported")
    max_tokens, shared = asking.options(fields, desk, DEFAULT_MAX_TOKENS)
    stream, include_usage = asking.streaming(fields)
    logprobs: int | None = fields.integer("logprobs", None, 0, MAX_LOGPROBS)
    echo = fields.flag("echo")
    if echo and logprobs is not None:
        raise bad("logprobs of an echoed prompt are not supported", "echo", "unsupported")
    gbnf = fields.text("grammar")
    cache_prompt = fields.flag("cache_prompt", True)
    fields.finish()
    if gbnf is not None:
        shared["grammar"] = asking.checked(lambda: desk.grammars.gbnf(gbnf), "grammar")
    if logprobs is not None:
        shared["logprobs"] = logprobs
    made = asking.requests(desk, count, max_tokens, shared)
    decode = desk.model.tokenizer.decode
    echoed = [own if isinstance(own, str) else decode(own) for own in prompts] if echo else []
    ids = asking.checked(lambda: [asking.prompt_ids(desk.model, own) for own in prompts], "prompt")
    return Asked(ids, made, stream, include_usage, logprobs, cache_prompt, echo=echoed)


def _prompts(fields: Fields, desk: Desk) -> list[str | list[int]]:
    """A string, ids, or an array of either."""
    prompt = fields.take("prompt")
    return asking.inputs(fields, "prompt", prompt, desk.model.config.vocab, desk.most_choices)
