"""What chat and completion requests have in common: from fields to `edgellm.generation.Request`."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgellm.generation import Request, Sampling
from edgellm.server.errors import ApiError, as_api_error, bad
from edgellm.server.fields import Fields
from edgellm.server.settings import Settings

if TYPE_CHECKING:
    from edgellm.grammar import Grammar
    from edgellm.model import Model

MAX_STOPS = 16
MAX_BIASES = 1024
_GRAMMARS = 64

# Parameters of OpenAI's that say nothing about the text.
HARMLESS = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
    "prompt_cache_retention",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, understood: prompts as ids, how each is continued, and how the answer is told."""

    prompts: list[list[int]]
    requests: list[Request]  # of each prompt, one for each choice
    stream: bool
    include_usage: bool
    logprobs: int | None
    cache_prompt: bool
    grammar_used: bool = False
    readers: list[Any] = field(default_factory=list)  # of tool calls, one for each choice
    echo: list[str] = field(default_factory=list)  # texts before the answers, one for each prompt


class Grammars:
    """Compiled grammars, the last ones kept: the same schema comes with every request."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._kept: OrderedDict[str, Grammar] = OrderedDict()
        self._lock = threading.Lock()

    def gbnf(self, text: str) -> Grammar:
        """A grammar from its text."""
        from edgellm import grammar

        with self._lock:
            if text in self._kept:
                self._kept.move_to_end(text)
                return self._kept[text]
        made = grammar.from_gbnf(self._tokenizer, text)
        with self._lock:
            self._kept[text] = made
            while len(self._kept) > _GRAMMARS:
                self._kept.popitem(last=False)
        return made


@dataclass(frozen=True, slots=True)
class Desk:
    """What is needed to understand a request."""

    model: Model
    settings: Settings
    grammars: Grammars
    most_choices: int

    def check_model(self, fields: Fields) -> None:
        """404 if a request is for another model."""
        name = fields.text("model")
        if name is not None and not self.settings.knows(name):
            raise ApiError(
                404,
                f"the model {name[:80]!r} does not exist; this server has {self.settings.name!r}",
                "model",
                "model_not_found",
            )


def take_what_changes_nothing(fields: Fields) -> None:
    """Parameters of OpenAI's that have no meaning here."""
    for name in HARMLESS:
        fields.take(name)


def options(fields: Fields, desk: Desk, default_max_tokens: int) -> tuple[int, dict[str, Any]]:
    """max_tokens, and the other keyword arguments that all choices of a request share."""
    settings = desk.settings
    most = settings.max_tokens or desk.model.config.context
    names = ("max_completion_tokens", "max_tokens")
    given = [value for name in names if (value := fields.integer(name, None, 1, most)) is not None]
    if len(set(given)) > 1:
        raise bad("max_tokens and max_completion_tokens differ", "max_tokens")
    max_tokens: int = given[0] if given else min(default_max_tokens, most)
    sampling = Sampling(
        temperature=fields.number("temperature", settings.default_temperature, 0.0, 100.0),
        top_k=fields.integer("top_k", 0, -1, 1 << 30) or 0,
        top_p=fields.number("top_p", 1.0, 0.0, 1.0),
        min_p=fields.number("min_p", 0.0, 0.0, 1.0),
        repeat_penalty=fields.number("repeat_penalty", 1.0, 0.01, 100.0),
        seed=_seed(fields),
        presence_penalty=fields.number("presence_penalty", 0.0, -2.0, 2.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2.0, 2.0),
    )
    rest: dict[str, Any] = {"stop": fields.texts("stop", MAX_STOPS)}
    bias = _bias(fields, desk.model.config.vocab)
    if bias:
        rest["logit_bias"] = tuple(sorted(bias.items()))
    return max_tokens, {"sampling": sampling, **rest}


def _seed(fields: Fields) -> int:
    seed = fields.integer("seed", None, -(1 << 63), (1 << 64) - 1)
    return secrets.randbits(63) if seed is None else int(seed) % (1 << 64)


def _bias(fields: Fields, vocab: int) -> dict[int, float]:
    own = fields.object("logit_bias")
    if own is None:
        return {}
    names = own.names()
    if len(names) > MAX_BIASES:
        raise bad(f"logit_bias: {len(names)} tokens, at most {MAX_BIASES} are taken", "logit_bias")
    bias: dict[int, float] = {}
    for name in names:
        if not (name.isascii() and name.isdecimal() and len(name) < 10) or int(name) >= vocab:
            raise bad(f"logit_bias: {name[:40]!r} is no token id (0..{vocab - 1})", "logit_bias")
        bias[int(name)] = own.number(name, 0.0, -100.0, 100.0)
    return bias


def choices(fields: Fields, desk: Desk, prompts: int = 1) -> int:
    """How many answers each prompt gets."""
    count: int = fields.integer("n", 1, 1, desk.most_choices)
    if prompts * count > desk.most_choices:
        raise bad(f"{prompts} prompts with n={count}: at most {desk.most_choices} answers at once", "n")
    return count


def streaming(fields: Fields) -> tuple[bool, bool]:
    """Whether to stream, and whether the last event tells the usage."""
    stream = fields.flag("stream")
    own = fields.object("stream_options")
    if own is None:
        return stream, False
    if not stream:
        raise bad("stream_options needs stream", "stream_options")
    usage = own.flag("include_usage")
    own.take("include_obfuscation")
    own.finish()
    return stream, usage


def requests(desk: Desk, count: int, max_tokens: int, shared: dict[str, Any]) -> list[Request]:
    """A request for each choice: they differ in their random numbers."""
    draft = desk.settings.draft
    made = [Request(max_tokens=max_tokens, stream=i, draft=draft, **shared) for i in range(count)]
    checked(lambda: made[0].check(desk.model))
    return made


def inputs(fields: Fields, name: str, value: Any, vocab: int, most: int) -> list[str | list[int]]:
    """The texts of a field that takes a string, an array of token ids, or an array of either.

    Raises
    ------
    ApiError
        If it is none of these, is empty, or holds more than `most`.
    """
    form = "a string, an array of token ids, or an array of these"
    if isinstance(value, str) or _is_ids(value):
        value = [value]
    if not isinstance(value, list) or not value:
        raise fields.wrong(name, form, value)
    if len(value) > most:
        raise bad(f"{name}: {len(value)} texts, at most {most} are taken at once", name)
    for text in value:
        if not isinstance(text, str) and not _is_ids(text):
            raise fields.wrong(name, f"made of strings or of arrays of token ids 0..{vocab - 1}", text)
        if not text:
            raise bad(f"{name}: a text is empty", name)
        if not isinstance(text, str) and not all(0 <= token < vocab for token in text):
            raise bad(f"{name}: token ids must be in 0..{vocab - 1}", name)
    return value


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def prompt_ids(model: Model, prompt: str | list[int]) -> list[int]:
    """Ids of a prompt, as `Model.generate` makes them."""
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt, add_special=True)
    return prompt


def checked(call: Callable[[], Any], param: str | None = None) -> Any:
    """What a call of the engine gives; what it raises becomes an error for the client."""
    try:
        return call()
    except ApiError:
        raise
    except Exception as error:
        raise as_api_error(error, param) from error
