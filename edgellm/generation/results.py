"""What a generation gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class TokenLogprob(NamedTuple):
    """How likely a token was."""

    id: int
    text: str  # of the token alone
    logprob: float  # natural logarithm of its probability before penalties, bias and grammar
    top: tuple[TokenLogprob, ...] = ()  # the likeliest tokens there, the best first


class Token(NamedTuple):
    """What a step of a generation gave."""

    id: int | None  # None for text that was held back and became sure only by the end
    text: str  # what became sure with it: whole characters, no beginning of a stop string; may be ""
    logprob: float | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one generation went. All in seconds of wall time."""

    prompt_tokens: int
    generated_tokens: int
    prefill_s: float
    decode_s: float
    ttft_s: float  # from the call to the first token

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; nan if there was at most one."""
        steps = self.generated_tokens - 1
        return self.decode_s / steps if steps > 0 else float("nan")


@dataclass(frozen=True, slots=True)
class Speculation:
    """How drafts fared in one generation."""

    drafted: int  # tokens that were guessed and verified
    accepted: int  # of them, those that the text has
    steps: int  # evaluations after the prompt; without drafts it takes one per token

    @property
    def acceptance(self) -> float:
        """Share of the drafts that was right; nan if there was none."""
        return self.accepted / self.drafted if self.drafted else float("nan")


@dataclass(frozen=True, slots=True)
class Completion:
    """What a generation gave."""

    text: str
    ids: list[int]
    timings: Timings
    finish_reason: str  # "stop": an end token, a stop string or the grammar's end; "length": no more room
    logprobs: list[TokenLogprob] | None = None  # of each id, where asked for
    speculation: Speculation | None = None  # where there was a draft

    def _repr_html_(self) -> str | None:
        """For notebooks: the tokens coloured by their probability, where `logprobs` was asked for."""
        if self.logprobs is None:
            return None
        from edgellm._token_view import tokens_html

        speed = f"{len(self.ids)} tokens, the first after {1e3 * self.timings.ttft_s:.0f} ms"
        return tokens_html(self.logprobs, f"{speed}, ended by {self.finish_reason}")


@dataclass(frozen=True, slots=True)
class ChatCompletion(Completion):
    """What a model answered; `text` is what it said beside calls of tools."""

    tool_calls: list[dict[str, Any]] = field(default_factory=list)  # as OpenAI's; finish_reason "tool_calls"

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, ready to be appended to the conversation."""
        if not self.tool_calls:
            return {"role": "assistant", "content": self.text}
        return {"role": "assistant", "content": self.text or None, "tool_calls": self.tool_calls}
